"""A real server for the tests, for the demo and for development without Docker."""

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from {{ cookiecutter.__package }}.sessions.config import SCHEME

from . import {{ cookiecutter._backends[cookiecutter.backend].store.module }} as backend

EFFORT: float = getattr(backend, "EFFORT", 1.0)
"""Factor of the number of repetitions: less than 1 if the tests' server is a slow emulator."""


def serve(directory: Path, *, lasting: bool = True) -> AbstractContextManager[str]:
    """Run a server with its data in `directory`. The value is its session URI.

    If TEST_SERVER is set to `cluster`, for example, `serve_cluster` of the backend is called instead of
    `serve`. Unless the server is lasting, it may use the faster options of `FLEETING`.
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
    """Return the URI of a namespace of its own on a server. It is removed afterwards."""
    return backend.namespace(uri, SCHEME)
