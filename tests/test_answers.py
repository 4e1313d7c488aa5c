"""Questions, accepted answers, and answers that are refused before anything is written."""

from __future__ import annotations

import ast
import json
import keyword
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slugify import slugify

from .baking import ANSWERABLE, BACKENDS, QUESTIONS, ROOT, RULES, bake, cookiecutter, refusal, texts

HOOKS = sorted((ROOT / "hooks").glob("*.py"))
SUFFIXES = sorted({suffix for row in BACKENDS.values() for suffix in row["suffixes"]})

BAD = {
    "project_slug": [
        *("", ".", "..", "../x", "a/b", "a\\b", "/srv/x", "1st", "-x", "x-", "_x", "x_", "a b"),
        *("My-Agent", "my.agent", "agént", "{{ x }}", "a" * 41, "a" * 300),
        *("class", "import", "json", "asyncio", "test", "google", "google-adk", "redis"),
        *("tests", "sessions", "services", "agent", "pydantic", "pytest", "con", "nul"),
    ],
    "scheme": [
        *("", "my_redis", "MyRedis", "1x", "a b", "a:", "a://", "é", "+a", "a+", "{{ x }}"),
        *("a" * 33, "memory", "agentengine", "sqlite", "postgresql", "mysql"),
        *("postgresql+asyncpg", "sqlite+aiosqlite", "http", "https", "file", "gs", "s3", "redis"),
    ],
    "session_ttl": [
        *("", "soon", "-1", "1.5h", "1 h", " 1h", "h", "1w", "1H", "1h30m", "+1", "1_0", "١"),
        *("36501d", "3153600001", "9" * 12 + "d", "9" * 6000, "{{ x }}"),
    ],
    "model": ["", "two words", 'gemini"', "a\nb", "{{ x }}"],
}
GOOD = {
    "project_slug": ["a", "x1", "my-agent", "my_agent", "support--bot", "a" * 40],
    "scheme": ["a", "acme", "acme2", "my-redis", "my.redis", "acme+x", "a" * 32, "sqlites"],
    "session_ttl": ["0", "0s", "90s", "30m", "24h", "7d", "3600", "007", "36500d", "3153600000"],
    "model": ["gemini-3.5-flash", "openai/gpt-5", "projects/p/endpoints/1", "a:b@c"],
}


@pytest.mark.parametrize(("question", "answer"), [(q, a) for q, all_ in BAD.items() for a in all_])
def test_bad_answer_is_refused_in_one_sentence(tmp_path: Path, question: str, answer: str) -> None:
    """The sentence names the question and the remedy, and is short and printable."""
    said = refusal(tmp_path, **{question: answer})
    assert said.startswith(f"{question} ")
    assert said.endswith(".")
    assert said.isprintable()
    assert len(said.splitlines()) == 1
    assert len(said) < 250
    assert any(word in said for word in (": take ", ": write "))


@pytest.mark.parametrize(("question", "answer"), [(q, a) for q, all_ in GOOD.items() for a in all_])
def test_good_answer_is_accepted(question: str, answer: str) -> None:
    """The limits are those that the sentences name."""
    assert list(RULES["problems"]({"_backends": BACKENDS, question: answer})) == []


def test_all_bad_answers_are_named_together(tmp_path: Path) -> None:
    """A check looks at all answers so far."""
    said = refusal(tmp_path, backend="redis", scheme="my_redis", project_name="x")
    assert said.startswith("scheme ")
    found = RULES["problems"]({"_backends": BACKENDS, "scheme": "A", "session_ttl": "soon"})
    assert [sentence.split()[0] for sentence in found] == ["scheme", "session_ttl"]


def test_scheme_with_a_taken_variant_is_refused() -> None:
    """`x` is refused if the backend also registers `xs`, which belongs to ADK."""
    row = {"suffixes": ["", "ql"]}
    answers = {"_backends": {"some": row}, "backend": "some", "scheme": "acme"}
    assert list(RULES["problems"](answers)) == []
    answers["scheme"] = "mys"
    (said,) = RULES["problems"](answers)
    assert "'mysql'" in said


def test_unknown_backend_is_refused_with_a_list_of_known_ones(tmp_path: Path) -> None:
    """Cookiecutter itself checks choices."""
    result = cookiecutter(tmp_path, "--no-input", backend="oracle")
    assert result.exit_code != 0
    assert all(backend in str(result.exception) for backend in BACKENDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answer", ["project_slug=../x", "project_slug=", "scheme=my_redis", "session_ttl=soon"]
)
def test_command_prints_only_the_sentence(tmp_path: Path, answer: str) -> None:
    """The exit status is 1, and there is neither a traceback nor a folder."""
    inside = tmp_path / "inside"
    inside.mkdir()
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--default-config"]
    ran = subprocess.run([*command, "-o", str(inside), answer], capture_output=True, text=True)
    assert ran.returncode == 1
    assert len((ran.stdout + ran.stderr).strip().splitlines()) == 1
    assert list(tmp_path.rglob("*")) == [inside]


@pytest.mark.parametrize("edit", [{"scheme": "my_redis"}, {"backend": "oracle"}, {"model": ""}])
def test_edited_replay_file_is_refused_by_the_hook(tmp_path: Path, edit: dict[str, str]) -> None:
    """Replayed answers are not asked for, so only the hook can check them."""
    replay, out = tmp_path / "replay.json", tmp_path / "out"
    answers = {name: value for name, value in QUESTIONS.items() if name != "__prompts__"}
    answers |= {"project_slug": "my-agent", "__package": "my_agent", "__title": "My Agent"}
    answers |= {"backend": "sqlite", "scheme": "local", "license": "MIT", **edit}
    replay.write_text(json.dumps({"cookiecutter": answers}), "utf-8")
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--default-config"]
    ran = subprocess.run(
        [*command, "-o", str(out), "--replay-file", str(replay)], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert f"{next(iter(edit))} " in ran.stderr.splitlines()[0]
    assert list(out.glob("*")) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_next_steps_are_three_lines(
    tmp_path: Path, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """They name the session URI, the folder and the first commands."""
    project = bake(tmp_path, backend=backend)
    what, where, how = capfd.readouterr().out.splitlines()
    row = BACKENDS[backend]
    assert f"{row['title']} at {row['default_uri'].replace('{scheme}', row['scheme'])}" in what
    assert str(project) in where
    assert "make demo" in how


def test_enter_accepts_the_defaults(tmp_path: Path) -> None:
    """Pressing Enter at every question gives the same project as --no-input."""
    result = cookiecutter(tmp_path / "asked", typed="\n" * len(ANSWERABLE))
    assert result.exit_code == 0, result.output
    plain = bake(tmp_path / "plain")
    asked = tmp_path / "asked" / "my-agent"
    assert {path.name for path in asked.iterdir()} == {path.name for path in plain.iterdir()}


def test_every_question_and_choice_has_a_prompt() -> None:
    """A new backend must have a prompt."""
    prompts = QUESTIONS["__prompts__"]
    assert list(prompts) == ANSWERABLE
    for question, prompt in prompts.items():
        if isinstance(QUESTIONS[question], list):
            assert list(prompt) == ["__prompt__", *QUESTIONS[question]]
    assert QUESTIONS["backend"] == list(BACKENDS)
    assert QUESTIONS["backend"][0] == "sqlite"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook.name))
def test_hooks_need_only_the_standard_library(hook: Path) -> None:
    """They run in cookiecutter's environment."""
    tree = ast.parse(hook.read_text("utf-8"))
    names = {
        (node.module or "").split(".")[0]
        if isinstance(node, ast.ImportFrom)
        else node.names[0].name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names <= sys.stdlib_module_names
    assert not names & {"socket", "subprocess", "urllib", "http"}


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[A-Za-z0-9_.+:/ -]{0,12}", fullmatch=True)))
def test_accepted_scheme_is_found_by_adk(scheme: str) -> None:
    """ADK looks up the scheme that urlparse returns. This holds for all variants."""
    if RULES["scheme_problem"](scheme, SUFFIXES) is None:
        for variant in (scheme + suffix for suffix in SUFFIXES):
            assert urlparse(f"{variant}://host:1/0").scheme == variant
            assert variant not in RULES["ADK_SCHEMES"]


@given(st.from_regex(r"[a-z][a-z0-9]{0,31}", fullmatch=True))
def test_plain_word_is_a_valid_scheme(scheme: str) -> None:
    """Only ADK's own schemes are refused."""
    refused = RULES["scheme_problem"](scheme, [""]) is not None
    assert refused == (scheme in RULES["ADK_SCHEMES"])


@given(st.integers(0, 2**80), st.sampled_from(["", "s", "m", "h", "d"]))
def test_ttl_is_limited_to_a_hundred_years(number: int, unit: str) -> None:
    """The limit is the same in every unit."""
    seconds = number * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    accepted = RULES["ttl_problem"](f"{number}{unit}") is None
    assert accepted == (seconds <= 36500 * 86400)


@given(st.text(max_size=60))
def test_default_slug_is_always_accepted(name: str) -> None:
    """Every project name leads to a valid slug."""
    slug = RULES["safe_slug"](slugify(name))
    assert RULES["slug_problem"](slug) is None


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)))
def test_accepted_slug_is_a_valid_folder_and_package(slug: str) -> None:
    """It is imported, typed in shells and used as the project's name."""
    if RULES["slug_problem"](slug) is None:
        package = slug.replace("-", "_")
        assert package.isidentifier()
        assert not keyword.iskeyword(package)
        assert package not in sys.stdlib_module_names
        assert slug == slug.lower().strip("-_.")


def test_refusal_shows_an_answer_as_it_was_typed(tmp_path: Path) -> None:
    """Letters of any alphabet are not escaped."""
    assert "'Ünïcode'" in refusal(tmp_path, scheme="Ünïcode")


def test_scheme_of_another_backend_is_refused(tmp_path: Path) -> None:
    """A URI with this scheme would look like one of that backend."""
    assert "known as something else" in refusal(tmp_path, backend="redis", scheme="mongodb")
    bake(tmp_path, backend="redis", scheme="redis")


def bake_with(version: str, folder: Path, typed: str, *options: str) -> tuple[int, str]:
    """Bake with a version of cookiecutter, and return the exit status and the output."""
    packages = ["--with", f"cookiecutter=={version}", "--with", "setuptools<70"]
    uv = os.environ.get("UV", "uv")  # uv sets it for what it runs
    command = [uv, "run", "--quiet", "--no-project", "--isolated", "--python", "3.11", *packages]
    words = [*command, "cookiecutter", str(ROOT), "--default-config", "--output-dir", str(folder)]
    result = subprocess.run(
        [*words, *options], input=typed, cwd=folder, capture_output=True, text=True
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("version", ["2.1.1", "1.7.3"])
def test_cookiecutter_that_is_too_old_writes_nothing(version: str, tmp_path: Path) -> None:
    """It says so, except for versions that cannot load the template's checks."""
    status, said = bake_with(version, tmp_path, "", "--no-input")
    assert status != 0
    too_old = "No module named" if version < "2" else f"cookiecutter {version} is too old"
    assert f"Unable to load extension: {too_old}" in said
    assert list(tmp_path.iterdir()) == []


def test_oldest_cookiecutter_bakes_and_asks_again(tmp_path: Path) -> None:
    """README.md says that 2.2 is enough."""
    status, said = bake_with("2.2.0", tmp_path, "Front Desk\n../x\n\n" + "\n" * 8)
    assert status == 0, said
    assert "project_slug '../x' is not a valid name" in said
    assert (tmp_path / "front-desk" / "README.md").exists()


def test_wrong_answer_at_a_prompt_is_asked_again(tmp_path: Path) -> None:
    """At once, with the reason, and the answers that were given stay."""
    typed = "Front Desk\n../x\nclass\n\nWelcomes people.\nAda\n2\nhttp\nacme\nsoon\n1h\n\n1\n1\n"
    result = cookiecutter(tmp_path, typed=typed)
    assert result.exit_code == 0, result.output
    for sentence in ("project_slug '../x' is", "project_slug 'class' would", "scheme 'http' is"):
        assert sentence in result.output
    config = (tmp_path / "front-desk/front_desk/sessions/config.py").read_text("utf-8")
    assert 'SCHEME = "acme"' in config
    assert 'DEFAULT_TTL = "1h"' in config


def test_folder_that_exists_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """At a prompt, another name is asked for."""
    project = bake(tmp_path)
    (project / "mine").touch()
    result = cookiecutter(tmp_path, "--no-input")
    assert result.exit_code == 1
    assert "run `make update` there" in result.output
    result = cookiecutter(tmp_path, typed="\n\nanother\n" + "\n" * 8)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"my-agent", "another"}


def test_project_without_hooks_says_that_it_is_incomplete(tmp_path: Path) -> None:
    """Baking over it with hooks completes it."""
    cookiecutter(tmp_path / "out", "--no-input", "--accept-hooks", "no")
    note = tmp_path / "out" / "my-agent" / "INCOMPLETE.md"
    assert "--overwrite-if-exists" in note.read_text("utf-8")
    cookiecutter(tmp_path / "out", "--no-input", "--overwrite-if-exists")
    assert dict(texts(note.parent)) == dict(texts(bake(tmp_path / "fresh")))
