"""What README.md says of ADK's own services, seen on them, and seen not to be so here.

The promises are in `peers.py`, which runs in the environment of a baked project: on its service, which
must keep each, and on the service of ADK's that must be seen to break it in the way that is said here.
When this fails because ADK has mended something, README.md has something to take back.
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
            "a_stale_writer_is_refused": "a stale writer was accepted",
            "of_stale_writers_that_come_together_one_is_accepted": r"\d+ of 16 were accepted",
            "an_event_that_is_delivered_again_is_stored_once": "it is stored 2 times",
            "keys_of_two_sessions_of_a_user_are_both_kept": r"a key was lost \d+ times in 100",
            "no_id_reaches_anothers_session": "user `a` reads the session of user `a:b`",
            "deleting_a_session_of_one_app_leaves_another_alone": "it wiped the state",
            "a_deleted_session_stays_deleted": "an append has brought it back",
            "a_creation_that_is_refused_changes_nothing": "its `user:` state was written",
            "a_partial_event_changes_nothing": "its `user:` state was written",
            "state_of_a_user_outlives_sessions": "it expires by itself",
            "an_append_does_not_cost_the_history": r"event 500 moves \d\d times the bytes",
            "the_end_of_a_session_costs_no_more_than_the_end": "it loads all 500",
            "a_list_does_not_scan_what_others_have": r"it takes \d\d+ commands instead of \d\b",
        },
    },
    "postgres": {
        "DatabaseSessionService": {
            "equal_timestamps_hide_no_stale_writer": "a stale writer was accepted",
            "events_keep_their_order": r"the order is \d{10}",
            "an_event_that_is_delivered_again_is_stored_once": "it ends in IntegrityError",
        },
    },
    "sqlite": {
        "DatabaseSessionService": {
            "equal_timestamps_hide_no_stale_writer": "a stale writer was accepted",
            "two_processes_do_not_both_count_from_zero": "both were accepted",
            "events_keep_their_order": r"the order is \d{10}",
            "an_event_that_is_delivered_again_is_stored_once": "it ends in IntegrityError",
        },
        "SqliteSessionService": {
            "of_stale_writers_that_come_together_one_is_accepted": r"\d+ of 16 were accepted",
            "equal_timestamps_hide_no_stale_writer": "a stale writer was accepted",
            "an_event_that_is_delivered_again_is_stored_once": "it ends in IntegrityError",
        },
    },
}
"""How each promise is broken, and by which service, on which backend's server."""


def test_adks_own_services_break_what_this_one_keeps(project: Project, tmp_path: Path) -> None:
    """Each promise is tried on both, on one and the same server."""
    expected = BROKEN.get(project.backend)
    if expected is None:
        return  # no service of ADK's speaks to its server
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
