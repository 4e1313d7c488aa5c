"""What is asked, what is accepted, and what is refused before anything is written."""

from __future__ import annotations

import ast
import json
import keyword
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slugify import slugify

from .baking import ANSWERABLE, BACKENDS, QUESTIONS, ROOT, RULES, bake, cookiecutter, refusal

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
        *("postgresql+asyncpg", "sqlite+aiosqlite"),
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
def test_a_bad_answer_is_refused_in_one_sentence(
    tmp_path: Path, question: str, answer: str
) -> None:
    """It names the question, says what to answer instead, and stays short and printable."""
    said = refusal(tmp_path, **{question: answer})
    assert said.startswith(f"{question} ")
    assert said.endswith(".")
    assert said.isascii()
    assert len(said.splitlines()) == 1
    assert len(said) < 250
    assert any(word in said for word in (": take ", ": write "))


@pytest.mark.parametrize(("question", "answer"), [(q, a) for q, all_ in GOOD.items() for a in all_])
def test_a_good_answer_is_accepted(question: str, answer: str) -> None:
    """Limits are where the sentences say that they are."""
    assert list(RULES["problems"]({"_backends": BACKENDS, question: answer})) == []


def test_every_bad_answer_is_named_at_once(tmp_path: Path) -> None:
    """What was answered before a check is looked at as a whole."""
    said = refusal(tmp_path, backend="redis", scheme="my_redis", project_name="x")
    assert said.startswith("scheme ")
    found = RULES["problems"]({"_backends": BACKENDS, "scheme": "A", "session_ttl": "soon"})
    assert [sentence.split()[0] for sentence in found] == ["scheme", "session_ttl"]


def test_a_scheme_whose_variant_is_taken_is_refused() -> None:
    """`x` is refused where the backend would also answer to `xs` and ADK owns that."""
    row = {"suffixes": ["", "ql"]}
    answers = {"_backends": {"some": row}, "backend": "some", "scheme": "acme"}
    assert list(RULES["problems"](answers)) == []
    answers["scheme"] = "mys"
    (said,) = RULES["problems"](answers)
    assert "'mysql'" in said


def test_an_unknown_backend_is_refused_with_the_known(tmp_path: Path) -> None:
    """Cookiecutter itself checks choices, before it reads anything else of the template."""
    result = cookiecutter(tmp_path, "--no-input", backend="oracle")
    assert result.exit_code != 0
    assert all(backend in str(result.exception) for backend in BACKENDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answer", ["project_slug=../x", "project_slug=", "scheme=my_redis", "session_ttl=soon"]
)
def test_the_command_ends_with_the_sentence_alone(tmp_path: Path, answer: str) -> None:
    """The real command: exit status 1, no traceback, and no folder inside or outside."""
    inside = tmp_path / "inside"
    inside.mkdir()
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), "--no-input", "--default-config"]
    ran = subprocess.run([*command, "-o", str(inside), answer], capture_output=True, text=True)
    assert ran.returncode == 1
    assert len((ran.stdout + ran.stderr).strip().splitlines()) == 1
    assert list(tmp_path.rglob("*")) == [inside]


@pytest.mark.parametrize("edit", [{"scheme": "my_redis"}, {"backend": "oracle"}, {"model": ""}])
def test_an_edited_replay_is_refused_by_the_hook(tmp_path: Path, edit: dict[str, str]) -> None:
    """Replayed answers are never asked for, so only the hook can look at them."""
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
def test_the_last_words_are_three_lines(
    tmp_path: Path, backend: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where its sessions live, how to get there, what to run."""
    project = bake(tmp_path, backend=backend)
    what, where, how = capfd.readouterr().out.splitlines()
    row = BACKENDS[backend]
    assert f"{row['title']} at {row['default_uri'].replace('{scheme}', row['scheme'])}" in what
    assert str(project) in where
    assert "make demo" in how


def test_questions_are_asked_in_order_and_enter_takes_the_defaults(tmp_path: Path) -> None:
    """Nine times Enter bakes what --no-input bakes, and each question is in plain words."""
    result = cookiecutter(tmp_path / "asked", typed="\n" * len(ANSWERABLE))
    assert result.exit_code == 0, result.output
    plain = bake(tmp_path / "plain")
    asked = tmp_path / "asked" / "my-agent"
    assert {path.name for path in asked.iterdir()} == {path.name for path in plain.iterdir()}


def test_every_question_and_choice_is_explained() -> None:
    """A new backend cannot be forgotten in the prompts."""
    prompts = QUESTIONS["__prompts__"]
    assert list(prompts) == ANSWERABLE
    for question, prompt in prompts.items():
        if isinstance(QUESTIONS[question], list):
            assert list(prompt) == ["__prompt__", *QUESTIONS[question]]
    assert QUESTIONS["backend"] == list(BACKENDS)
    assert QUESTIONS["backend"][0] == "sqlite"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook.name))
def test_hooks_need_only_the_standard_library(hook: Path) -> None:
    """They run with whatever Python cookiecutter runs with."""
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
def test_an_accepted_scheme_is_one_that_adk_finds(scheme: str) -> None:
    """ADK looks up what urlparse says, for the scheme and for all its variants."""
    if RULES["scheme_problem"](scheme, SUFFIXES) is None:
        for variant in (scheme + suffix for suffix in SUFFIXES):
            assert urlparse(f"{variant}://host:1/0").scheme == variant
            assert variant not in RULES["ADK_SCHEMES"]


@given(st.from_regex(r"[a-z][a-z0-9]{0,31}", fullmatch=True))
def test_a_plain_word_is_a_scheme(scheme: str) -> None:
    """Nothing but ADK's own names is refused among plain words."""
    refused = RULES["scheme_problem"](scheme, [""]) is not None
    assert refused == (scheme in RULES["ADK_SCHEMES"])


@given(st.integers(0, 2**80), st.sampled_from(["", "s", "m", "h", "d"]))
def test_a_ttl_is_accepted_up_to_a_hundred_years(number: int, unit: str) -> None:
    """Whatever the unit, the limit is the same."""
    seconds = number * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    accepted = RULES["ttl_problem"](f"{number}{unit}") is None
    assert accepted == (seconds <= 36500 * 86400)


@given(st.text(max_size=60))
def test_the_default_slug_is_always_accepted(name: str) -> None:
    """No project name can make its own default a bad answer."""
    slug = RULES["safe_slug"](slugify(name))
    assert RULES["slug_problem"](slug) is None


@given(st.one_of(st.text(max_size=8), st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True)))
def test_an_accepted_slug_is_a_folder_and_a_package(slug: str) -> None:
    """It is imported, typed in shells and used as a project's name."""
    if RULES["slug_problem"](slug) is None:
        package = slug.replace("-", "_")
        assert package.isidentifier()
        assert not keyword.iskeyword(package)
        assert package not in sys.stdlib_module_names
        assert slug == slug.lower().strip("-_.")
