"""`adk deploy` with the commands of a project's README: the staged files find the sessions.

A stand-in for `gcloud` and `kubectl` keeps what it is given. That is then installed and served as its Dockerfile says. No cloud is
involved, and the image is not built.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .installed import Project, Web

pytestmark = pytest.mark.installed

STAND_IN = """\
#!/bin/sh
for word; do if [ -f "$word/Dockerfile" ]; then cp -r "$word" "$STAGED"; fi; done
"""
"""Keeps the folder that it is given."""


@pytest.mark.two_backends(backends=["redis"])
def test_deployed_agent_finds_the_sessions(project: Project, tmp_path: Path) -> None:
    """The scheme is registered and its driver installed."""
    staged, staged_for_gke = tmp_path / "app", tmp_path / "gke"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gcloud", "kubectl"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    with project.server(tmp_path / "data") as uri:
        export, deploy = commands(project)
        status, said = project.run("sh", "-c", export)
        assert status == 0, said
        path = f"{programs}{os.pathsep}{project.folder / '.venv/bin'}{os.pathsep}$PATH"
        deploy = deploy.replace("PROJECT", "p").replace("REGION", "r").replace("URI", uri)
        for folder, command in (
            (staged, deploy),
            (staged_for_gke, deploy.replace("cloud_run", "gke --cluster_name c")),
        ):
            status, said = project.run("sh", "-c", f'STAGED="{folder}" PATH="{path}" {command}')
            assert status == 0, said
        assert files(staged_for_gke) == files(staged)
        requirements = staged / "agents" / project.package / "requirements.txt"
        for install in (
            ("uv", "venv", "--python", sys.executable, str(tmp_path / "venv")),
            ("uv", "pip", "install", "--python", str(tmp_path / "venv"), "-r", str(requirements)),
        ):
            status, said = project.run(*install)
            assert status == 0, said
        with serve(tmp_path, staged, project.package) as web:
            web.create("one")
            web.say("one", "My name is Ada.")
        with serve(tmp_path, staged, project.package) as web:
            assert "Ada" in web.say("one", "What is my name?")


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files of a folder by their paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def commands(project: Project) -> list[str]:
    """Return the two commands of the README."""
    readme = (project.folder / "README.md").read_text("utf-8")
    block = re.search(r"```sh\n(uv export .*?)```", readme, re.S)
    assert block
    return block[1].replace("\\\n", " ").strip().splitlines()


@contextmanager
def serve(folder: Path, staged: Path, app: str) -> Iterator[Web]:
    """Run the command of the staged Dockerfile with the staged folder as `/app`. Kill it in the end."""
    dockerfile = (staged / "Dockerfile").read_text("utf-8")
    assert 'ENV PYTHONPATH="/app:$PYTHONPATH"' in dockerfile
    [line] = re.findall(r"^CMD (.+)$", dockerfile, re.M)
    words = shlex.split(line) if not line.startswith("[") else re.findall(r'"([^"]*)"', line)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [re.sub(r"^--port=.*", f"--port={port}", word) for word in words]
    words = [re.sub(r"^--host=.*", "--host=127.0.0.1", word) for word in words]
    words = [re.sub(r"^/app\b", str(staged), word) for word in words]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"PYTHONPATH": str(staged), "PYTHONUNBUFFERED": "1", "MODEL": "offline"}
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(folder / "venv" / "bin" / words[0]), *words[1:]],
            cwd=staged,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        web = Web(f"http://127.0.0.1:{port}", app)
        web.wait(process, log)
        yield web
    finally:
        process.kill()
        process.wait()
