"""The keys `pk` and `sk` of all items.

| item | `pk` | `sk` |
|---|---|---|
| head of a session | `<prefix>/user/<app>/<user>` | `head/<session>` |
| state of a session | `<prefix>/user/<app>/<user>` | `state/<session>` |
| state of a user | `<prefix>/user/<app>/<user>` | `state` |
| state of an app | `<prefix>/app/<app>` | `state` |
| event, or a part of a large one | `<prefix>/events/<app>/<user>/<session>` | `<revision>/<incarnation>/<part>` |
| index entry of a session | `<prefix>/index/<app>` | `<due>/<user>/<session>/<incarnation>` |
| name of a user who had state when a session was removed | `<prefix>/users/<app>` | `user/<user>` |
| version of this layout | `<prefix>/schema` | `version` |

Ids are percent-encoded, so no id can form another's key. `due` is the second at which the session expires, or
`never`. From then on, the cleanup checks the session.
"""

from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from ..store import SessionKey

Item = dict[str, Any]
"""An item, or its key, in the SDK's form: `{"name": {"S": "text"}}`."""

MAX_ID_LENGTH = 200
"""Characters of an encoded id in a key. DynamoDB allows 1,024 bytes for `sk`."""
NEVER = "never"
DELETED = f"{0:011d}"
"""The `due` of a deleted session. It sorts first."""


class Keys:
    """The keys of the items that one session uses. The ids are encoded."""

    def __init__(self, prefix: str, app: str, user: str = "", session: str = "") -> None:
        partition = f"{prefix}/user/{app}/{user}"
        self.app = app
        self.user = user
        self.user_partition = partition
        self.head = item(partition, f"head/{session}")
        self.state = item(partition, f"state/{session}")
        self.user_state = item(partition, "state")
        self.app_state = item(f"{prefix}/app/{app}", "state")
        self.events_partition = f"{prefix}/events/{app}/{user}/{session}"
        self.index_partition = f"{prefix}/index/{app}"
        self.users_partition = f"{prefix}/users/{app}"
        self._indexed = f"{user}/{session}"

    @classmethod
    def of(cls, prefix: str, key: SessionKey) -> "Keys":
        """Return the keys of a session by its ids."""
        ids = (key.app_name, key.user_id, key.session_id)
        return cls(prefix, *map(encode_id, ids))

    def index_entry(self, due: str, incarnation: str) -> Item:
        """Return the index entry of the session."""
        return item(self.index_partition, f"{due}/{self._indexed}/{quote(incarnation, safe='')}")

    def named_user(self, user_id: str) -> Item:
        """Return the item that names the user."""
        return item(self.users_partition, f"user/{self.user}", user_id={"S": user_id})


def indexed_session(prefix: str, entry: Item) -> tuple[Keys, str]:
    """Return the keys and the incarnation of the session of an index entry."""
    app = text(entry, "pk").rpartition("/")[2]
    _, user, session, incarnation = text(entry, "sk").split("/")
    return Keys(prefix, app, user, session), unquote(incarnation)


def encode_id(text: str) -> str:
    """Encode an id for a key. A long one becomes its digest, which differs from any other encoded id."""
    encoded = quote(text, safe="")
    if len(encoded) <= MAX_ID_LENGTH:
        return encoded
    return f"#{sha256(text.encode()).hexdigest()}"


def decode_id(encoded: str) -> str | None:
    """Return the id of an encoded one, or None if that is a digest."""
    return None if encoded.startswith("#") else unquote(encoded)


def due_at(expires_at: float | None) -> str:
    """Return the `due` of an index entry, which sorts like the time."""
    return NEVER if expires_at is None else f"{max(1, int(expires_at)):011d}"


def item(pk: str, sk: str, **attributes: Any) -> Item:
    """Return an item, or the key of one. An index entry has only its key."""
    return {"pk": {"S": pk}, "sk": {"S": sk}, **attributes}


def text(found: Item, attribute: str) -> str:
    """Return a string attribute."""
    value: str = found[attribute]["S"]
    return value
