"""Settings of your agent. Settings that differ between deployments are in the environment."""

import importlib
import os
from importlib.util import find_spec

from .sessions.config import APP_NAME
from .sessions.environment import load_environment

__all__ = ["APP_NAME", "DESCRIPTION", "model"]

{{ cookiecutter.description | one_line | assigned_to("DESCRIPTION") }}

DEFAULT_MODEL = {{ cookiecutter.model | tojson }}
"""The model, unless the variable MODEL names another."""

OFFLINE = "offline"
"""The scripted model of the demo, which needs no key."""


def model() -> str:
    """Return the name of the model: MODEL, or else the default.

    Without a key it is the demo's offline model, unless the demo was removed.
    """
    load_environment()
    chosen = os.environ.get("MODEL", "").strip() or DEFAULT_MODEL
    demo = f"{APP_NAME}.demo"
    if (has_credentials() and chosen != OFFLINE) or not find_spec(demo):
        return chosen
    importlib.import_module(demo)  # registers its model with ADK
    return OFFLINE


def has_credentials() -> bool:
    """Return whether the environment gives access to Gemini, with a key or through Google Cloud."""
    cloud = ("GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_USE_VERTEXAI")
    keys = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    return any(os.environ.get(name, "").lower() in {"true", "1"} for name in cloud) or any(
        os.environ.get(name) for name in keys
    )
