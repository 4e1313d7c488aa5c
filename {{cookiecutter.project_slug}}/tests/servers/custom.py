"""The store that came with the project needs no server: its journal is all there is.

For a store of your own: `serve` starts what it talks to, with its data in the directory, so that whoever
serves the same directory again finds the data there. `namespace` makes room for one test on a server that
may have other data, and clears it away; it is called for every test, so it should take milliseconds.
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
