"""ADK loads this file when it is given this folder: `adk web .` or `adk api_server .`.

It goes on without it after any exception, so what goes wrong ends the process.
"""

import sys

try:
    from {{ cookiecutter.__package }}.sessions.command_line import register_for_adk
except Exception as error:
    sys.exit(f"Error: {__file__} cannot be loaded ({error}): run `uv sync` in the project.")

register_for_adk()
