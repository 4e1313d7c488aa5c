"""Tests what README.md says about ADK's own services.

`peers.py` has the promises and runs in the environment of a baked project. The project's service must
keep each promise, and ADK's service must break it as described here. If ADK has fixed a fault, this test
fails, and README.md must be corrected.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .installed import Project

pytestmark = pytest.mark.installed

SCRIPT = Path(__file__).with_name("peers.py")

BROKEN = {
    "redis": {
        "RedisSessionService": {
            "stale_writer_is_refused": "a stale writer was accepted",
            "one_of_many_writers_is_accepted": r"\d+ of 16 were accepted",
            "repeated_event_is_stored_once": "it is stored 2 times",
            "concurrent_user_keys_are_both_kept": r"a key was lost \d+ times in 100",
            "similar_ids_do_not_collide": "user `a` reads the session of user `a:b`",
            "delete_does_not_affect_another_app": "it wiped the state",
            "deleted_session_stays_deleted": "an append has brought it back",
            "refused_creation_changes_nothing": "its `user:` state was written",
            "partial_event_changes_nothing": "its `user:` state was written",
            "user_state_outlives_sessions": "it expires by itself",
            "append_cost_does_not_depend_on_the_history": r"event 500 moves \d\d times the bytes",
            "recent_events_do_not_cost_the_history": "it loads all 500",
            "list_does_not_scan_other_keys": r"it takes \d\d+ commands instead of \d\b",
        },
    },
    "postgres": {
        "DatabaseSessionService": {
            "stale_writer_with_equal_timestamp_is_refused": "a stale writer was accepted",
            "events_keep_their_order": r"the order is \d{10}",
            "repeated_event_is_stored_once": "it ends in IntegrityError",
        },
    },
    "sqlite": {
        "DatabaseSessionService": {
            "stale_writer_with_equal_timestamp_is_refused": "a stale writer was accepted",
            "processes_do_not_count_from_zero_twice": "both were accepted",
            "events_keep_their_order": r"the order is \d{10}",
            "repeated_event_is_stored_once": "it ends in IntegrityError",
        },
        "SqliteSessionService": {
            "one_of_many_writers_is_accepted": r"\d+ of 16 were accepted",
            "stale_writer_with_equal_timestamp_is_refused": "a stale writer was accepted",
            "repeated_event_is_stored_once": "it ends in IntegrityError",
        },
    },
}
"""How a service of ADK breaks a promise, by backend and service."""


def test_adks_own_services_break_promises_that_this_one_keeps(
    project: Project, tmp_path: Path
) -> None:
    """Both services run on the same server."""
    expected = BROKEN.get(project.backend)
    if expected is None:
        return  # ADK has no service for this server
    extra = () if project.backend == "redis" else ("--with", "sqlalchemy[asyncio]>=2,<3")
    with project.server(tmp_path / "server") as uri:
        command = ("python", str(SCRIPT), project.package, project.backend, uri)
        status, said = project.run("uv", "run", "--quiet", *extra, *command)
    assert status == 0, said
    found: dict[str, dict[str, Any]] = json.loads(said.splitlines()[-1])
    assert {name: set(ended) for name, ended in found.items()} == {
        name: set(broken) for name, broken in expected.items()
    }
    for name, broken in expected.items():
        for promise, how in broken.items():
            ended = found[name][promise]
            assert ended["ours"] == "", f"{promise}: {ended['ours']}"
            assert re.search(how, ended["peer"]), f"{name}, {promise}: {ended['peer'] or 'kept'}"
