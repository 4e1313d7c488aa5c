{% set service, port, uri = "gcs", 4443, cookiecutter.scheme ~ "+http://$$address/sessions" -%}
{% include "dev-with-server.mk" -%}
