"""Checks of the files of baked projects. Nothing of a project is installed or run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from .baking import BACKENDS, QUESTIONS, ROOT, RULES, bake, cookiecutter, run, texts

TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
ADK_OWN = re.compile(
    r'"sqlite(:///x)?"|"postgresql"|custom_metadata|custom[ _]time|sqlite_session_service|SqliteSession\w+'
    r"|(adk\+\w+|postgresql\+asyncpg|sqlite)://"
    r"|(?s:## Bring your sessions.+?## )"
)
"""ADK's own names, which are not ours."""
OF_ADK = ("my_agent/sessions/commands/sources.py", "tests/proof/test_transfer.py")
"""Files that open or damage the stores of ADK's own services."""

ROOMS = {
    "yours": "my_agent/agent.py my_agent/tools.py my_agent/settings.py tests/test_agent.py",
    "the demo": "my_agent/demo tests/test_demo.py",
    "from the template": "my_agent/sessions tests/sessions tests/servers",
}


def belongs_to(path: Path) -> set[str]:
    """Return the modules of backends in the name of a template file."""
    names = [*path.parent.parts, path.stem.removeprefix("test_")]
    modules = {module for row in BACKENDS.values() for module in row["modules"]}
    return {m for m in modules for name in names if name == m or name.startswith(f"{m}_")}


def listed(row: dict[str, Any]) -> set[str]:
    """Return the files that a backend lists in addition."""
    return {file.format(package="my_agent") for file in row.get("files", [])}


@pytest.mark.parametrize("proof", ["no", "yes"])
def test_project_has_exactly_the_files_of_its_backend(
    backend: str, proof: str, tmp_path: Path
) -> None:
    """A project has the common files and those of its backend, and none of another backend."""
    row = BACKENDS[backend]
    elsewhere = set[str]().union(*map(listed, BACKENDS.values())) - listed(row)
    expected = set()
    for path in TEMPLATE.rglob("*"):
        name = (
            path.relative_to(TEMPLATE).as_posix().replace("{{cookiecutter.__package}}", "my_agent")
        )
        others = belongs_to(Path(name)) - set(row["modules"])
        of_parts = set(row["modules"]) - {row["store"]["module"]}
        other_test = (
            re.match(r"tests/(sessions/test_|proof/)", name) and belongs_to(Path(name)) & of_parts
        )
        if name == "INCOMPLETE.md":
            continue  # only in projects that are baked without hooks
        left_out = proof == "no" and backend != "custom" and name.startswith("tests/proof/")
        if path.is_file() and ".pyc" not in name and not (others or other_test or left_out):
            expected.add(name)
    project = bake(tmp_path, backend=backend, proof=proof)
    assert {path for path, _ in texts(project)} == expected - elsewhere


def test_readme_names_the_files_of_each_room(baked: Path) -> None:
    """The rooms are the owner's files, the demo and the files from the template."""
    readme = (baked / "README.md").read_text("utf-8")
    for paths in ROOMS.values():
        for path in paths.split():
            assert (baked / path).exists(), path
            assert Path(path).name in readme, path


def test_sessions_do_not_import_the_agent(baked: Path) -> None:
    """The folder and its tests could become a package of their own."""
    for path in (baked / "my_agent" / "sessions").rglob("*.py"):
        depth = len(path.relative_to(baked / "my_agent" / "sessions").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, f"{path}: imports from outside of sessions"
                assert not (node.module or "").startswith("my_agent"), path
    for path in [*(baked / "tests" / "sessions").rglob("*.py"), *baked.glob("tests/servers/*.py")]:
        text = path.read_text("utf-8")
        assert set(re.findall(r"from my_agent\.(\w+)", text)) <= {"sessions"}, path


INTERFACES = """
    __getattr__ supported_models generate_content_async get_user_state flush traceback memo
    before_run_callback after_run_callback on_run_error_callback on_user_message_callback user_message
    before_agent_callback callback_context atexit custom_time trust_env format variant
""".split()
"""Names that Python, ADK or drivers use, and `variant`, which not every backend needs."""


def test_no_code_is_unused(baked: Path) -> None:
    """The project uses each of its functions, classes and variables."""
    run(
        "vulture",
        "my_agent",
        "services.py",
        "--ignore-decorators=@sessions.command,@override",
        f"--ignore-names={','.join(INTERFACES)}",
        cwd=baked,
    )


def test_no_folder_is_empty(baked: Path) -> None:
    """Empty folders are removed."""
    assert [path for path in baked.rglob("*") if path.is_dir() and not list(path.iterdir())] == []


def test_no_jinja_is_left(baked: Path) -> None:
    """Only Python (f-strings) and GitHub's expressions have double braces."""
    for path, text in texts(baked):
        assert "cookiecutter" not in text, path
        if not path.endswith(".py"):
            assert not re.search(r"(?<!\$)\{\{|\{%|%\}|\{#", text), path


def test_other_backends_leave_no_trace(baked: Path, backend: str) -> None:
    """No file names another backend or its driver."""
    own = {backend, *BACKENDS[backend]["modules"]}
    foreign = set[str]().union(*(words(name) for name in BACKENDS if name not in own))
    foreign -= set[str]().union(*(words(name) for name in BACKENDS if name in own))
    for path, text in texts(baked):
        without = "" if path in OF_ADK else ADK_OWN.sub("", text).lower()
        found = {word for word in foreign if re.search(rf"\b{re.escape(word)}", without)}
        assert not found, path


def words(backend: str) -> set[str]:
    """Return the names of a backend and its drivers."""
    row = BACKENDS[backend]
    names = (backend, row["title"], *row["modules"], *map(package, row["dependencies"]))
    return {name.lower() for name in names} - {"requests"}  # an English word as well


def package(requirement: str) -> str:
    """Return the package name of a requirement."""
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0]


def test_text_files_are_tidy(baked: Path) -> None:
    """Files end with one newline and have neither trailing spaces nor many blank lines."""
    for path, text in texts(baked):
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not text.startswith("\n") or path == "LICENSE", path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
        assert path == "LICENSE" or not re.search(r"\n\n\n\n", text), path


def test_files_are_valid_python_toml_and_yaml(baked: Path) -> None:
    """Every file of these types parses."""
    for path, text in texts(baked):
        if path.endswith(".py"):
            ast.parse(text, path)
        elif path.endswith(".toml"):
            tomllib.loads(text)
        elif path.endswith((".yml", ".yaml")):
            list(yaml.safe_load_all(text))


def test_python_is_formatted_and_linted(baked: Path) -> None:
    """The project's own configuration is used. `test_variants` checks the types."""
    run("ruff", "format", "--check", "--no-cache", ".", cwd=baked)
    run("ruff", "check", "--no-cache", ".", cwd=baked)


PLACEHOLDERS = (
    *(":password@", ":secret@", "not a real one", "PASSWORD: agent", ":agent@"),
    '"commit": "',  # of the template
)


def test_no_secrets(baked: Path) -> None:
    """A scanner finds only placeholders and the passwords of tests."""
    tool = str(Path(sys.executable).with_name("detect-secrets"))
    ran = subprocess.run(
        [tool, "scan", "--all-files", "--force-use-all-plugins", "."],
        cwd=baked,
        capture_output=True,
        text=True,
        check=True,
    )
    for path, found in json.loads(ran.stdout)["results"].items():
        lines = (baked / path).read_text("utf-8").splitlines()
        for secret in found:
            line = lines[secret["line_number"] - 1]
            assert any(known in line for known in PLACEHOLDERS), f"{path}: {line}"


EDGES = [
    {"project_slug": "a", "scheme": "a", "session_ttl": "0", "model": "a"},
    {"project_slug": "z" * 40, "scheme": "z" * 32, "session_ttl": "0" * 10 + "1d"},
    {"project_slug": "mine-and-yours", "model": "z" * 80},
]


@pytest.mark.parametrize("answers", EDGES, ids=["short", "long", "odd"])
def test_length_of_answers_does_not_affect_formatting(
    backend: str, answers: dict[str, str], tmp_path: Path
) -> None:
    """Line breaks and the order of imports stay right."""
    project = bake(tmp_path, backend=backend, **answers)
    run("ruff", "format", "--check", "--no-cache", ".", cwd=project)
    run("ruff", "check", "--no-cache", ".", cwd=project)


def test_compose_file_is_valid(baked: Path) -> None:
    """It matches the schema of the Compose specification."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    run("check-jsonschema", *schema, "docker-compose.yml", cwd=baked)


def test_only_the_container_listens_on_all_interfaces(baked: Path) -> None:
    """The API has no login, so ports of containers and the default of `serve` are for this machine."""
    compose = yaml.safe_load((baked / "docker-compose.yml").read_text("utf-8"))
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    server = (baked / "my_agent" / "sessions" / "server.py").read_text("utf-8")
    assert 'click.Option(["--host"], envvar="HOST", default="127.0.0.1"' in server


def test_workflow_is_valid(baked: Path) -> None:
    """It matches GitHub's schema and passes actionlint."""
    workflow = ".github/workflows/ci.yml"
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow, cwd=baked)
    run("actionlint", workflow, cwd=baked)
    updates = ".github/dependabot.yml"
    run("check-jsonschema", "--builtin-schema", "vendor.dependabot", updates, cwd=baked)


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint has no wheel for Windows")
def test_dockerfile_is_linted(baked: Path) -> None:
    """Hadolint reports nothing."""
    run("hadolint", "Dockerfile", cwd=baked)


SHARED = [name for name, row in BACKENDS.items() if "deploy/kubernetes.yaml" in listed(row)]
"""The backends whose sessions several machines can share."""


@pytest.mark.parametrize("backend", SHARED)
def test_kubernetes_manifest_is_valid_and_fits_the_image(backend: str, tmp_path: Path) -> None:
    """It matches the schemas of Kubernetes, and its numbers are those of the Dockerfile and of `serve`."""
    project = bake(tmp_path, backend=backend)
    manifest = (project / "deploy" / "kubernetes.yaml").read_text("utf-8")
    deployment, service = yaml.safe_load_all(manifest)
    for each in (deployment, service):
        kubernetes_validate.validate(each, "1.36", strict=True)
    dockerfile = (project / "Dockerfile").read_text("utf-8")
    server = (project / "my_agent" / "sessions" / "server.py").read_text("utf-8")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert f"PORT={container['ports'][0]['containerPort']}\n" in dockerfile
    assert f"USER {pod['securityContext']['runAsUser']}\n" in dockerfile
    alive, ready = container["livenessProbe"], container["readinessProbe"]
    assert (alive["httpGet"]["path"], ready["httpGet"]["path"]) == ("/health", "/ready")
    assert 'add_api_route("/ready"' in server
    assert "/ready'" in dockerfile
    found = re.search(r'"--shutdown_timeout"\],.*?default=(\d+)', server, re.DOTALL)
    assert found
    drain = int(container["args"][-1])
    assert pod["terminationGracePeriodSeconds"] > drain + int(found[1])
    readme = (project / "README.md").read_text("utf-8")
    compose = yaml.safe_load((project / "docker-compose.yml").read_text("utf-8"))
    for stops in (compose["services"]["agent"]["stop_grace_period"], readme):
        patience = re.search(r"^(\d+)s$|^TimeoutStopSec=(\d+)$", stops, re.MULTILINE)
        assert patience
        assert int(patience[1] or patience[2]) > int(found[1])
    on_cloud_run = re.search(r"--args=\S+,--shutdown_timeout=(\d+)\n", readme)
    assert on_cloud_run
    assert int(on_cloud_run[1]) < 10, "then it is killed"
    assert ready["periodSeconds"] * ready["failureThreshold"] < drain, "noticed in time"
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_backends_in_a_file_name_another_way_to_several_machines(backend: str, baked: Path) -> None:
    """A README says that the agent can run on several machines, or that it cannot."""
    readme = (baked / "README.md").read_text("utf-8")
    assert ("kubectl apply" in readme) == (backend in SHARED)
    assert ("bake a project for a database server" in readme) == (backend not in SHARED)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")
def test_systemd_unit_is_valid(tmp_path: Path) -> None:
    """The unit of the README passes `systemd-analyze verify`."""
    readme = (bake(tmp_path) / "README.md").read_text("utf-8")
    unit = re.search(r"```ini\n(.*?)```", readme, re.DOTALL)
    assert unit
    text = re.sub(r"/srv/[^/]+/\.venv/bin/python", sys.executable, unit[1])
    (tmp_path / "agent.service").write_text(text, "utf-8")
    command = ["systemd-analyze", "verify", "agent.service"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("licence", QUESTIONS["license"])
def test_licence(tmp_path: Path, licence: str) -> None:
    """LICENSE has the chosen text and the author, or does not exist. pyproject.toml agrees."""
    project = bake(tmp_path, license=licence, author="Ada Lovelace")
    said = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    if licence == "Proprietary":
        assert not (project / "LICENSE").exists()
        assert "license" not in said
    else:
        assert "Ada Lovelace" in (project / "LICENSE").read_text("utf-8")
        assert said["license"] == licence
        run("ruff", "check", "--no-cache", ".", cwd=project)


def test_answers_reach_the_project(tmp_path: Path) -> None:
    """Each answer is in the files that use it."""
    answers = {"project_name": "Front Desk", "description": "Welcomes people.", "author": "Ada"}
    project = bake(tmp_path, **answers, scheme="acme", session_ttl="1h", model="gemini-9")
    assert project.name == "front-desk"
    said = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert said["name"] == "front-desk"
    assert said["description"] == answers["description"]
    assert said["authors"] == [{"name": "Ada"}]
    assert (project / "README.md").read_text("utf-8").startswith("# Front Desk\n")
    config = (project / "front_desk" / "sessions" / "config.py").read_text("utf-8")
    assert 'SCHEME = "acme"' in config
    assert 'DEFAULT_TTL = "1h"' in config
    assert any('"gemini-9"' in text for path, text in texts(project) if path.endswith(".py"))


def test_no_slug_shadows_a_file_of_the_project(baked: Path) -> None:
    """`adk run my_agent` makes the files of the package importable as top-level modules."""
    for path in [*(baked / "my_agent").iterdir(), *baked.glob("*.py")]:
        if not path.stem.startswith("__"):
            assert RULES["is_taken"](path.stem), path


def test_overwriting_bake_can_change_the_backend(tmp_path: Path) -> None:
    """Baking with --overwrite-if-exists gives the same project as a fresh bake."""
    first, second = list(BACKENDS)[:2]
    project = bake(tmp_path / "twice", backend=first)
    cookiecutter(tmp_path / "twice", "--no-input", "--overwrite-if-exists", backend=second)
    fresh = bake(tmp_path / "once", backend=second)
    assert dict(texts(project)) == dict(texts(fresh))


def test_overwriting_bake_keeps_what_the_owner_made(tmp_path: Path) -> None:
    """Also files with the names of other backends' files, and in folders of theirs."""
    project = bake(tmp_path, backend="sqlite", proof="no")
    made = [
        *("tests/test_custom_things.py", "tests/proxy.py", "tests/servers/proxy.py"),
        *("my_agent/sessions/custom/store.py", "my_agent/sessions/stores/custom.py"),
        *("tests/proof/test_mine.py", "tests/sessions/test_redis_import.py", "my_agent/redis.py"),
        *("deploy/kubernetes.yaml", "docs/writing-a-store.md"),
    ]
    for path in made:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("mine\n", "utf-8")
    before = dict(texts(project))
    cookiecutter(tmp_path, "--no-input", "--overwrite-if-exists", backend="sqlite", proof="no")
    assert dict(texts(project)) == before
    assert not (project / ".set-aside").exists()


def test_bakes_are_reproducible(baked: Path, backend: str, tmp_path: Path) -> None:
    """The same answers give the same bytes, so an update shows only real changes."""
    assert dict(texts(bake(tmp_path, backend=backend))) == dict(texts(baked))


def test_workflows_of_the_template_are_valid() -> None:
    """They pass the same checks as the workflow of a project."""
    for workflow in (".github/workflows/ci.yml", ".github/workflows/release.yml"):
        run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow, cwd=ROOT)
        run("actionlint", workflow, cwd=ROOT)
    updates = ".github/dependabot.yml"
    run("check-jsonschema", "--builtin-schema", "vendor.dependabot", updates, cwd=ROOT)


def test_archive_of_the_repository_can_be_baked(tmp_path: Path) -> None:
    """GitHub offers the repository as a zip file, and a release has one."""
    archive = tmp_path / "template.zip"
    command = ["git", "archive", "--prefix=template/", f"--output={archive}", "HEAD"]
    subprocess.run(command, cwd=ROOT, check=True)
    result = cookiecutter(tmp_path / "out", "--no-input", template=str(archive))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "my-agent" / "README.md").exists()


def test_backend_rows_are_complete() -> None:
    """Every row has the same keys in the same order."""
    first, *others = (
        [name for name in row if name not in ("files", "other_servers")]
        for row in BACKENDS.values()
    )
    assert all(names == first for names in others)
    for row in BACKENDS.values():
        assert row["store"]["module"] in row["modules"]
        assert "" in row["suffixes"]
        scheme, _, _ = row["default_uri"].partition("://")
        assert scheme in [f"{{scheme}}{suffix}" for suffix in row["suffixes"]]
