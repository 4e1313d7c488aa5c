"""SQLite needs no server: a file is all there is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def serve(directory: Path, scheme: str) -> Iterator[str]:
    """Name a file in the directory."""
    yield f"{scheme}:///{(directory / 'sessions.db').absolute().as_posix()}"


@contextmanager
def namespace(uri: str, scheme: str) -> Iterator[str]:
    """Name a file of its own, and leave the one of the URI alone; its options are kept."""
    _, _, query = uri.partition("?")
    with TemporaryDirectory() as directory, serve(Path(directory), scheme) as own:
        yield f"{own}?{query}" if query else own
