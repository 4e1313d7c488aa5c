"""The included store needs no server, only its journal.

For your own store: `serve` starts the server with its data in the directory, and finds the data again if it
is called again. `namespace` creates a namespace for one test on a server with other data, and removes it. It is
called for every test, so it should take milliseconds. The store of a server also needs `size` and `written`, see
`tests/proof/test_growth.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def serve(directory: Path, scheme: str) -> Iterator[str]:
    """Return the URI of a journal in the directory."""
    yield f"{scheme}:///{(directory / 'sessions.jsonl').absolute().as_posix()}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return the URI of a journal of its own, with the same options."""
    _, _, query = uri.partition("?")
    with TemporaryDirectory() as directory, serve(Path(directory), scheme) as own:
        yield f"{own}?{query}" if query else own
