"""The included store needs no server, only its journal.

For your own store: `serve` starts the server with its data in the directory, and finds the data again if it
is called again. `namespace` creates a namespace for one test on a server with other data, and removes it. It is
called for every test, so it should take milliseconds. `size` is what a namespace takes, and `written` what the
store, or its server, has written so far. Both are in bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit


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


def size(uri: str, scheme: str) -> int:
    """Return the bytes that the files of a namespace take."""
    folder = Path(unquote(urlsplit(uri).path[1:])).parent
    return sum(file.stat().st_size for file in folder.iterdir())


def written(uri: str, scheme: str) -> int:
    """Return the bytes that this process has written so far. Linux counts them."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])
