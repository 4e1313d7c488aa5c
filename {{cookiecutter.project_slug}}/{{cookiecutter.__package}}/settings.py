"""What was chosen for this agent; what may differ from place to place is in the environment."""

from pathlib import Path

APP_NAME = __name__.partition(".")[0]
"""The name of this package: ADK calls the app so, and sessions are stored under it."""

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent

{{ cookiecutter.description | one_line | assigned_to("DESCRIPTION") }}

DEFAULT_MODEL = {{ cookiecutter.model | tojson }}
"""Answers when there is a key and the variable MODEL names no other."""
