{% set service, port, uri = "mongodb", 27017, cookiecutter.scheme ~ "://$$address/adk" -%}
{% include "dev-with-server.mk" -%}
