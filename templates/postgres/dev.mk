{% set service, port, uri = "postgres", 5432, cookiecutter.scheme ~ "://agent:$${POSTGRES_PASSWORD:-agent}@$$address/agent" -%}
{% include "dev-with-server.mk" -%}
