"""Settings from the environment and from `.env` files."""

import os
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values

from .errors import ConfigurationError

PROJECT = Path(__file__).resolve().parents[2]
"""The folder of the project, with its `.env`."""


def dotenv_files() -> list[Path]:
    """Return the existing `.env` files: that of the working directory, then that of the project."""
    candidates = dict.fromkeys(folder / ".env" for folder in (Path.cwd(), PROJECT))
    found = []
    for path in candidates:
        with suppress(PermissionError):  # in a folder that this process may not enter
            found += [path] if path.is_file() else []
    return found


def load_environment() -> None:
    """Add the settings of the `.env` files to the environment, which wins.

    A blank setting counts as not set.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    for name, value in _settings().items():
        if not os.environ.get(name):
            os.environ[name] = value


def setting(name: str) -> str | None:
    """Return a setting of the environment or of the `.env` files, and leave the environment as it is.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    return os.environ.get(name) or _settings().get(name)


def _settings() -> dict[str, str]:
    """Return the settings of the `.env` files."""
    found: dict[str, str] = {}
    for path in dotenv_files():
        try:
            settings = dotenv_values(path, encoding="utf-8")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{path} is not a UTF-8 file: save it as UTF-8.") from None
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
        for name, value in settings.items():
            if value:
                found.setdefault(name, value)
    return found
