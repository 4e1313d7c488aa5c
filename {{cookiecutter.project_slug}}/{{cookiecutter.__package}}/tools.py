"""What the agent can do. Each tool works on the session that it is called in.

State has three scopes, told apart by the prefix of the key: the session's own (no prefix), the
user's in all sessions (`user:`), and everybody's (`app:`). The session service stores what changes
together with the event of the call.
"""

from typing import Any, Literal

from google.adk.sessions.state import State
from google.adk.tools.tool_context import ToolContext

from .sessions.config import BACKEND_TITLE, SCHEME
from .sessions.terminal import time_left

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
        return {"error": "There is nothing to remember this under: the key is empty."}
    if scope not in PREFIXES:
        return {"error": f"There is no scope {scope!r}; there are {', '.join(PREFIXES)}."}
    tool_context.state[PREFIXES[scope] + name] = value
    return {"remembered": name, "value": value, "scope": scope}


def recall(tool_context: ToolContext, key: str = "") -> dict[str, Any]:
    """Recall a fact: from this conversation, else what is known of the user, else of everybody.

    Args:
        key: what the fact is about; left empty, everything that is known is returned.
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
    """Return what the state holds, by scope; `temp:` is not for keeping."""
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
    """Return a key as it is stored: in lower case, with single spaces, without a scope's prefix."""
    name = " ".join(key.split()).lower()
    for prefix in (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX):
        name = name.removeprefix(prefix)
    return name.strip()
