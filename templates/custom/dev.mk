dev: $(UV)  ## Serve the agent with ADK's web interface on http://localhost:8000
	@$(UV) run python -m {{ cookiecutter.__package }} web $(ARGS) </dev/null
