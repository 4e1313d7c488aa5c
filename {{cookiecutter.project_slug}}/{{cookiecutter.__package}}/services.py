"""ADK loads this file when it is given this folder: `adk web`, `adk run` or `adk api_server`.

It loads it by its bare name, as `services`, and goes on without it after any exception. So the
package is made importable first, and what goes wrong ends the process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from {{ cookiecutter.__package }}.sessions.command_line import register_for_adk
except Exception as error:
    sys.exit(f"Error: {__file__} cannot be loaded ({error}): run `uv sync` in the project.")

register_for_adk()
