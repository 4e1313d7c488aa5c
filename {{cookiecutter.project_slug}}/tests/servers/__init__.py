"""A real server for the tests, for the demo and for development without Docker."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from {{ cookiecutter.__package }}.sessions.config import SCHEME

from . import {{ cookiecutter._backends[cookiecutter.backend].store.module }} as backend

EFFORT: float = getattr(backend, "EFFORT", 1.0)
"""What part of the usual repetitions is tried: less than 1 where the tests' own server is a slow emulator."""


def serve(directory: Path, *, lasting: bool = True) -> AbstractContextManager[str]:
    """Run a server with its data in `directory`; the value is its session URI.

    TEST_SERVER in the environment names another kind, for which there is a `serve_…` beside it. Where
    the server is much faster if it may forget all in the end, `FLEETING` says how.
    """
    kind = os.environ.get("TEST_SERVER")
    run = getattr(backend, f"serve_{kind}" if kind else "serve", None)
    if run is None:
        raise LookupError(
            f"TEST_SERVER names {kind!r}, and {backend.__name__} has no serve_{kind}."
        )
    options: dict[str, Any] = {} if lasting else getattr(backend, "FLEETING", {})
    served: AbstractContextManager[str] = run(directory, SCHEME, **options)
    return served


def namespace(uri: str) -> AbstractContextManager[str]:
    """Lend a corner of its own on a server; the value is the URI of that corner, removed afterwards."""
    return backend.namespace(uri, SCHEME)
