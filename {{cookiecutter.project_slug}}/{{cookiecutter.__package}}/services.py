"""ADK loads this file when a command gets this folder: `adk web`, `adk run` or `adk api_server`.

ADK imports it as `services` and ignores its exceptions. So this file makes the package importable first,
and an error ends the process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from {{ cookiecutter.__package }}.sessions.command_line import register_for_adk
except Exception as error:
    sys.exit(f"Error: {__file__} cannot be loaded ({error}): run `uv sync` in the project.")

register_for_adk()
