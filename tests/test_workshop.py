"""docs/workshop.md is typed as it stands: without a network, uv on the PATH, or files at home."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from .baking import ROOT
from .installed import Project

pytestmark = pytest.mark.installed

PAGE = (ROOT / "docs" / "workshop.md").read_text("utf-8")
BEFORE, ROOM = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TYPED = re.findall(r"^\| \d+ \| .*?`(.+?)`", PAGE, re.MULTILINE)
NOWHERE = "http://127.0.0.1:9"


def test_workshop_works_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines are typed but those of the archive, which takes long, and `make test`, which is tested anyway."""
    tools, room = tmp_path / "tools", tmp_path / "room"
    tools.mkdir()
    room.mkdir()
    (tools / "python3").symlink_to(Path(sys.executable).resolve())
    before = BEFORE.replace("<where this repository is>", shlex.quote(str(ROOT)))
    status, said = Project(tmp_path, "sqlite").run("bash", "-ec", re.sub("(?m)^tar.*", "", before))
    assert status == 0, said
    for name in ("cache", "my-agent", "wheels"):
        (tmp_path / name).rename(room / name)

    settings = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tools),
        "http_proxy": NOWHERE,
        "https_proxy": NOWHERE,
        "no_proxy": "localhost,127.0.0.1",
    }
    for line in re.findall(r"^export (.*)", ROOM, re.MULTILINE):
        settings |= dict(word.replace("$PWD", str(room)).split("=") for word in shlex.split(line))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UV", raising=False)
    status, said = Project(room, "sqlite").run("bash", "-ec", re.sub("(?m)^tar.*", "", ROOM))
    assert status == 0, said
    assert "Your name is Ada" in said

    demo, dev, again, listing, tests = TYPED
    assert (demo, dev, again, tests) == ("make demo", "make dev", "make dev", "make test")
    project = Project(room / "my-agent", "sqlite")
    with project.web(*dev.split(), log=tmp_path / "log", end=signal.SIGINT) as web:
        web.create("one")
        web.say("one", "My name is Ada.")
        assert "SQLite" in web.say("one", "Session report")
        assert "Ada" in web.say("one", "What is my name?")
        status, said = project.run(*listing.split())
        assert status == 0, said
        assert "one" in said
