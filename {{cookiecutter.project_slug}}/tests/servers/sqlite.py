"""SQLite needs no server, only a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def serve(directory: Path, scheme: str) -> Iterator[str]:
    """Return the URI of a file in the directory."""
    yield f"{scheme}:///{(directory / 'sessions.db').absolute().as_posix()}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Return the URI of a file of its own, with the same options."""
    _, _, query = uri.partition("?")
    with TemporaryDirectory() as directory, serve(Path(directory), scheme) as own:
        yield f"{own}?{query}" if query else own
