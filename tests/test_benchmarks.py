"""The benchmarks run. What they measure is in docs/benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .baking import ROOT

pytestmark = pytest.mark.installed


def test_turns_are_measured(tmp_path: Path) -> None:
    """The project, its server and each of its variants are started as for a published page."""
    results = tmp_path / "turns.json"
    command = [sys.executable, "-m", "benchmarks.turns", "sqlite", "--events", "10", "--skip-adk"]
    path = f"{Path(os.environ.get('UV', '')).parent}{os.pathsep}{os.environ['PATH']}"  # for uv
    environment = {**os.environ, "PATH": path}
    subprocess.run([*command, "--json", str(results)], cwd=ROOT, env=environment, check=True)
    series = json.loads(results.read_text("utf-8"))["series"]
    measured = {each["who"] for each in series}
    assert measured >= {"ours", "ours, turns=off", "InMemorySessionService"}
