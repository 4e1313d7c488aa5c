# The server is that of SESSION_SERVICE_URI, here or in .env; else that of Docker; else one that runs as long as this command
dev: $(UV)  ## Serve the agent with ADK's web interface on http://localhost:8000
	@set -e; \
	if [ -z "$$SESSION_SERVICE_URI" ] && ! grep -Eqs '^ *(export +)?SESSION_SERVICE_URI *= *[^ #]' .env \
		&& $(DOCKER) compose ps >/dev/null 2>&1; then \
		$(DOCKER) compose up --detach --wait {{ service }}{{ more | default("") }} || { echo 'Without Docker: make dev DOCKER=no' >&2; exit 1; }; \
		address=$$($(DOCKER) compose port {{ service }} {{ port }}); \
		export SESSION_SERVICE_URI="{{ uri }}"; \
	fi; \
	$(UV) run python -m tests.servers -- python -m {{ cookiecutter.__package }} web $(ARGS) </dev/null
