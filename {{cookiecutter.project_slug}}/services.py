"""ADK loads this file for `adk web .` and `adk api_server .`.

ADK ignores exceptions of this file, so an error ends the process.
"""

import sys

try:
    from {{ cookiecutter.__package }}.sessions.command_line import register_for_adk
except Exception as error:
    sys.exit(f"Error: {__file__} cannot be loaded ({error}): run `uv sync` in the project.")

register_for_adk()
