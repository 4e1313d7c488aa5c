# On the server that SESSION_SERVICE_URI names, here or in .env; else on Docker's; else on one that runs as long as this does
dev: $(UV)  ## Serve the agent with ADK's web interface on http://localhost:8000
	@set -e; \
	if [ -z "$$SESSION_SERVICE_URI" ] && ! grep -Eqs '^ *(export +)?SESSION_SERVICE_URI *= *[^ #]' .env \
		&& $(DOCKER) compose ps >/dev/null 2>&1; then \
		$(DOCKER) compose up --detach --wait {{ service }}{{ more | default("") }} || { echo 'Without Docker: make dev DOCKER=no' >&2; exit 1; }; \
		address=$$($(DOCKER) compose port {{ service }} {{ port }}); \
		export SESSION_SERVICE_URI="{{ uri }}"; \
	fi; \
	$(UV) run python -m tests.servers -- python -m {{ cookiecutter.__package }} web $(ARGS)
