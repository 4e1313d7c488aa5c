{% set service, port, uri = "dynamodb", 8000, cookiecutter.scheme ~ "://agent:agent@sessions?region=us-east-1&endpoint_url=http://$$address&create_table=true" -%}
{% include "dev-with-server.mk" -%}
