"""The variables that this project reads from its environment, and the `.env` file behind them."""

import os
from pathlib import Path

from dotenv import load_dotenv

from .settings import DEFAULT_MODEL, PROJECT

OFFLINE = "offline"
"""As the value of MODEL: the scripted stand-in, even where there is a key."""


def dotenv_files() -> list[Path]:
    """Return the `.env` files that count: that of the working directory, then the project's."""
    candidates = dict.fromkeys(folder / ".env" for folder in (Path.cwd(), PROJECT))
    return [path for path in candidates if path.is_file()]


def load_environment() -> None:
    """Add what `.env` says to the environment; what is set there already wins."""
    for path in dotenv_files():
        load_dotenv(path)


def credentials() -> str | None:
    """Return the name of the variable that gives access to Gemini, or None."""
    for name in ("GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_USE_VERTEXAI"):
        if os.environ.get(name, "").lower() in {"true", "1"}:
            return name
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        if os.environ.get(name):
            return name
    return None


def model_name() -> str:
    """Return the model that answers: MODEL, else the project's own; without a key `OFFLINE`."""
    chosen = os.environ.get("MODEL", "").strip() or DEFAULT_MODEL
    return chosen if credentials() else OFFLINE
