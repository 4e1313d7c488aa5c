"""The tools of the agent. A tool works on the session that it is called in.

State has three scopes, with a prefix of the key: one session (no prefix), all sessions of a user (`user:`),
and all users of the app (`app:`). The session service stores changes together with the event of the call.
"""

from typing import Any, Literal

from google.adk.sessions.state import State
from google.adk.tools.tool_context import ToolContext

from .sessions.commands.terminal import time_left
from .sessions.config import BACKEND_TITLE, SCHEME

Scope = Literal["session", "user", "app"]

PREFIXES: dict[str, str] = {"session": "", "user": State.USER_PREFIX, "app": State.APP_PREFIX}


def remember(
    key: str, value: str, tool_context: ToolContext, scope: Scope = "user"
) -> dict[str, Any]:
    """Remember a fact, replacing what was remembered under the same key and scope.

    Args:
        key: what the fact is about, in a word or two, such as "name" or "favourite colour".
        value: the fact itself.
        scope: "user" for this person in every conversation, "session" for this conversation only,
            "app" for everybody who talks to this agent.
    """
    name = tidy(key)
    if not name:
        return {"error": "The key is empty."}
    if scope not in PREFIXES:
        return {"error": f"Unknown scope {scope!r}: use one of {', '.join(PREFIXES)}."}
    tool_context.state[PREFIXES[scope] + name] = value
    return {"remembered": name, "value": value, "scope": scope}


def recall(tool_context: ToolContext, key: str = "") -> dict[str, Any]:
    """Recall a fact of this conversation, else of the user, else of everybody.

    Args:
        key: what the fact is about. Without a key, all known facts are returned.
    """
    name = tidy(key)
    if not name:
        return {"facts": facts(tool_context.state.to_dict())}
    for scope, prefix in PREFIXES.items():
        value = tool_context.state.get(prefix + name)
        if value is not None:  # ADK sets a key to None when it rewinds a session
            return {"key": name, "value": value, "scope": scope}
    return {"key": name, "known": False}


def session_report(tool_context: ToolContext) -> dict[str, Any]:
    """Report on the session of this conversation: its id, length, storage and time left."""
    session = tool_context.session
    report: dict[str, Any] = {
        "session": session.id,
        "app": session.app_name,
        "user": session.user_id,
    }
    if hasattr(session, "revision") and hasattr(session, "expires_at"):
        return report | {
            "events": session.revision,
            "backend": f"{BACKEND_TITLE} ({SCHEME}://)",
            "expires_in": time_left(session.expires_at),
        }
    return report | {"events": len(session.events), "backend": "a session service of ADK's own"}


def facts(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the facts in the state by scope, without `temp:` keys."""
    found: dict[str, dict[str, Any]] = {scope: {} for scope in PREFIXES}
    for key, value in state.items():
        if value is None or key.startswith(State.TEMP_PREFIX):
            continue
        scope = next(
            (name for name in ("user", "app") if key.startswith(PREFIXES[name])), "session"
        )
        found[scope][key.removeprefix(PREFIXES[scope])] = value
    return found


def tidy(key: str) -> str:
    """Return a key in its stored form: lower case, single spaces, no prefix of a scope."""
    name = " ".join(key.split()).lower()
    for prefix in (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX):
        name = name.removeprefix(prefix)
    return name.strip()
