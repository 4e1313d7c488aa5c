"""`python -m benchmarks [--form quick|full|long] BACKEND …` measures, and writes what comes out to `docs/benchmarks/`.

The quick form takes about a minute for each backend, writes nothing, and fails where an append or a warm
read is no longer flat or falls behind ADK's own: ratios within one run, which a slow machine does not change.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress

from .report import broken_ratios, markdown, write_results, write_summary

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".bench"
BACKENDS: list[str] = list(json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["_backends"])
console = Console(stderr=True)


def main() -> None:
    """Measure the backends that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("backends", nargs="+", metavar="BACKEND", choices=[*BACKENDS, "all"])
    parser.add_argument("--form", choices=["quick", "full", "long"], default="full")
    arguments = parser.parse_args()
    chosen = BACKENDS if "all" in arguments.backends else arguments.backends
    broken = []
    for backend in chosen:
        result = measure(backend, arguments.form)
        Console().print(markdown(result), highlight=False, soft_wrap=True)
        broken += [f"{backend}: {sentence}" for sentence in broken_ratios(result)]
        if arguments.form != "quick":
            write_results(result)
            write_summary()
    for sentence in broken:
        console.print(f"[red]{sentence}[/]", highlight=False)
    sys.exit(1 if broken else 0)


def measure(backend: str, form: str) -> dict[str, Any]:
    """Bake a project, run the probe in it, and return what it measured."""
    console.print(f"[bold]{backend}[/]: baking and installing")
    began, load = datetime.datetime.now(datetime.UTC), os.getloadavg()[0]
    bakes = [bake(backend) for _ in range(1 if form == "quick" else 5)]
    project = CACHE / backend / "my-agent"
    install(backend, project)
    result = probe(backend, form, project)
    result["facts"]["bake, s"] = round(median(bakes), 2)
    if form != "quick":
        result["facts"]["make demo, s"] = round(median(demo(project) for _ in range(3)), 2)
    result["machine"] = {
        "began": f"{began:%Y-%m-%d %H:%M} UTC",
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load before": round(load, 2),
    }
    return result


def bake(backend: str) -> float:
    """Bake a project, keep the environment of an earlier one, and return how long baking took."""
    folder, project = CACHE / backend, CACHE / backend / "my-agent"
    kept = {name: project / name for name in (".venv", "uv.lock") if (project / name).exists()}
    with ExitStack() as stack:
        for name, path in kept.items():
            path.rename(folder / name)
            stack.callback((folder / name).rename, path)
        shutil.rmtree(project, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "cookiecutter",
            str(ROOT),
            "--no-input",
            "--default-config",
        ]
        start = time.perf_counter()
        run([*command, "--output-dir", str(folder), f"backend={backend}"], ROOT)
        return time.perf_counter() - start


def install(backend: str, project: Path) -> None:
    """Install the project, and what ADK's own services need."""
    run(["uv", "sync", "--quiet"], project)
    name = f"benchmarks.contestants.{backend}"
    if find_spec(name) and (extra := import_module(name).REQUIREMENTS):
        run(["uv", "pip", "install", "--quiet", *extra], project)


def probe(backend: str, form: str, project: Path) -> dict[str, Any]:
    """Run the probe with the project's Python, showing how far it is."""
    python = project / (".venv/Scripts/python.exe" if os.name == "nt" else ".venv/bin/python")
    command = [str(python), "-m", "benchmarks.probe", backend, form]
    # The project's own folder comes first, so that `tests` are its tests.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    environment.pop("SESSION_SERVICE_URI", None)
    process = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    result: dict[str, Any] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        for message in messages(process):
            if "result" in message:
                result = message["result"]
            else:
                progress.update(
                    task,
                    description=message["what"],
                    completed=message["done"],
                    total=message["of"],
                )
    if process.wait() or not result:
        sys.exit(f"Error: the measuring of {backend} ended with status {process.returncode}.")
    return result


def messages(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Yield what the probe says, and show what others say."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)
        else:
            console.print(line.rstrip(), highlight=False)


def demo(project: Path) -> float:
    """Return how long `make demo` takes."""
    start = time.perf_counter()
    run(["make", "demo"], project)
    return time.perf_counter() - start


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def run(command: list[str], folder: Path) -> None:
    """Run a command quietly, and show what it said if it failed."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "SESSION_SERVICE_URI")
    }
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"Error: {' '.join(command[:4])} failed.\n{ran.stdout}{ran.stderr}")


if __name__ == "__main__":
    main()
