{% set service, port, uri = "redis", 6379, cookiecutter.scheme ~ "://$$address/0" -%}
{% include "dev-with-server.mk" -%}
