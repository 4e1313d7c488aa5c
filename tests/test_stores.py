"""Stores that earlier versions wrote are read by this one."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from .installed import Project
from .storing import LOAD_OBJECTS, READ, STORES, execute, sql

pytestmark = pytest.mark.installed

EXPECTED = (STORES / "expected.txt").read_text("utf-8")
WRITTEN = {path.name.partition(".")[0]: path for path in STORES.iterdir() if path.suffix != ".txt"}
WRITTEN["hybrid"] = WRITTEN["postgres"]  # Redis has only copies


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in WRITTEN
        if name != "expected"
    ],
    indirect=True,
)
def test_store_of_the_first_version_is_read_and_continued(project: Project, tmp_path: Path) -> None:
    """Its sessions, states and events are what was written."""
    data, file = tmp_path / "data", WRITTEN[project.backend]
    if file.suffix == ".xz":
        with tarfile.open(file) as archive:
            archive.extractall(data, filter="data")
    with project.server(data) as uri:
        if file.suffix == ".sql":
            sql(project, uri, "psql", "--quiet", f"--file={file}")
        if file.suffix == ".jsonl":
            execute(project, LOAD_OBJECTS, uri, str(file))
        assert execute(project, READ, uri, "append") == EXPECTED
