# On the server that SESSION_SERVICE_URI names (here or in .env), else on Docker's, else on the one that the tests start.
WEB = python -m {{ cookiecutter.__package }} web $(ARGS)
dev: $(UV)  ## Serve the agent with ADK's web interface on http://localhost:8000
	@if [ -n "$$SESSION_SERVICE_URI" ] || grep -Eqs '^ *(export +)?SESSION_SERVICE_URI *= *[^ #]' .env; then \
		$(UV) run $(WEB); \
	elif $(DOCKER) compose ps >/dev/null 2>&1; then \
		$(DOCKER) compose up --detach --wait {{ service }} && address=$$($(DOCKER) compose port {{ service }} {{ port }}) || \
			{ echo 'Docker could not start {{ service }}. Without Docker: make dev DOCKER=no' >&2; exit 1; }; \
		SESSION_SERVICE_URI="{{ uri }}" $(UV) run $(WEB); \
	else \
		$(UV) run python -m tests.servers -- $(WEB); \
	fi
