{% set service, port, more = "postgres", 5432, " redis" -%}
{% set cache = "redis://$$($(DOCKER) compose port redis 6379)/0" -%}
{% set uri = cookiecutter.scheme ~ "://agent:$${POSTGRES_PASSWORD:-agent}@$$address/agent?cache=" ~ cache -%}
{% include "dev-with-server.mk" -%}
