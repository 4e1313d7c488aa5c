"""What the table of `dynamodb.py` holds: the keys of its items, and items to records and back.

One table with the keys `pk` and `sk`. Ids are percent-encoded, so that no id can spell another's key:

    pk                                    sk                            the item
    <prefix>/user/<app>/<user>            head/<session>                a session's head
    <prefix>/user/<app>/<user>            state/<session>               its state, an attribute for each key
    <prefix>/user/<app>/<user>            state                         the user's state, likewise
    <prefix>/app/<app>                    state                         the app's state, likewise
    <prefix>/events/<app>/<user>/<session> <revision>/<incarnation>/<part>     an event, or a part of a large one
    <prefix>/index/<app>                  <due>/<user>/<session>/<incarnation> what there is of an app, and since
                                                                        when it may be left over
    <prefix>/schema                       version                       written when the table is made
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from ..store import Head, Position, SessionKey, StoredEvent

Item = dict[str, Any]
"""An item, or its key, as the SDK has it: `{"name": {"S": "text"}}`."""

LONGEST_NAME = 200
"""Characters of an encoded id that stand in a key, which DynamoDB limits to 1,024 bytes."""
PART_BYTES = 390_000
"""Bytes of an event in one item, which DynamoDB limits to 400 KB with the names of its attributes."""
MAX_EVENT_BYTES = 3_500_000
"""Bytes of an event. A transaction holds 4 MB, and state changes go along."""
MAX_KEYS_AT_ONCE = 400
"""State keys of one scope that an update can set: DynamoDB limits its expression to 4 KB."""
MAX_KEY_BYTES = 60_000
"""Bytes of an encoded state key, which DynamoDB limits to 64 KB."""
GRACE = 300.0
"""Seconds that what has expired is left alone, in case another process has a slower clock."""

STATE = "s:"
"""What the attributes begin with that hold state."""
NEVER = "never"
DELETED = f"{0:011d}"
TIMESTAMP = struct.Struct(">d")


@dataclass(frozen=True, slots=True)
class Names:
    """The ids of a session as keys spell them."""

    app: str
    user: str
    session: str

    @classmethod
    def of(cls, key: SessionKey) -> "Names":
        """Encode the ids of a key."""
        return cls(name(key.app_name), name(key.user_id), name(key.session_id))


class Layout:
    """The keys of all items under one prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = quote(prefix, safe="")
        self.version = item(f"{self._prefix}/schema", "version")

    def app_state(self, names: Names) -> Item:
        return item(f"{self._prefix}/app/{names.app}", "state")

    def user(self, names: Names) -> str:
        return f"{self._prefix}/user/{names.app}/{names.user}"

    def user_state(self, names: Names) -> Item:
        return item(self.user(names), "state")

    def head(self, names: Names) -> Item:
        return item(self.user(names), f"head/{names.session}")

    def state(self, names: Names) -> Item:
        return item(self.user(names), f"state/{names.session}")

    def events(self, names: Names) -> str:
        return f"{self._prefix}/events/{names.app}/{names.user}/{names.session}"

    def index(self, app: str) -> str:
        return f"{self._prefix}/index/{app}"

    def indexed(self, names: Names, incarnation: str, due: str) -> Item:
        entry = f"{due}/{names.user}/{names.session}/{name(incarnation)}"
        return item(self.index(names.app), entry, incarnation={"S": incarnation})


def name(text: str) -> str:
    """Encode an id for a key. A long one becomes its digest, which no short one can look like."""
    encoded = quote(text, safe="")
    if len(encoded) <= LONGEST_NAME:
        return encoded
    return f"#{sha256(text.encode()).hexdigest()}"


def due_after(expires_at: float | None) -> str:
    """Return since when a session may be left over, so that texts sort as times do."""
    return NEVER if expires_at is None else f"{max(1, int(expires_at)):011d}"


def item(pk: str, sk: str, **attributes: Any) -> Item:
    """Return an item, or the key of one."""
    return {"pk": {"S": pk}, "sk": {"S": sk}, **attributes}


def key_of(found: Item) -> Item:
    """Return the key of an item."""
    return {"pk": found["pk"], "sk": found["sk"]}


def text(found: Item, attribute: str) -> str:
    """Return an attribute that is a text."""
    value: str = found[attribute]["S"]
    return value


def head_attributes(head: Head, *, listed: str) -> dict[str, Any]:
    """Return what is stored of a head. An id stands there only if the key has but its digest."""
    attributes = {
        "incarnation": {"S": head.position.incarnation},
        "revision": number(head.position.revision),
        "updated": {"B": TIMESTAMP.pack(head.updated_at)},
        "lives": number(head.ttl),
        "listed": {"S": listed},
        **expiry_attributes(head.expires_at),
    }
    for attribute, value in (("user", head.key.user_id), ("session", head.key.session_id)):
        if name(value).startswith("#"):
            attributes[attribute] = {"B": value.encode()}
    return attributes


def expiry_attributes(expires_at: float | None) -> dict[str, Any]:
    """Return when a session ends, and when DynamoDB may remove its head."""
    if expires_at is None:
        return {}
    purge_at = int(expires_at + GRACE) + 1
    return {"expires": number(expires_at), "purge_at": number(purge_at)}


def head_of(found: Item, app_name: str, user_id: str | None = None) -> Head:
    """Return the head that an item holds; the ids that are not given are read from it."""
    user = text(found, "pk").rpartition("/")[2]
    session = text(found, "sk").rpartition("/")[2]
    key = SessionKey(
        app_name,
        user_id if user_id is not None else _id(found, "user", user),
        _id(found, "session", session),
    )
    expires = found.get("expires")
    return Head(
        key,
        Position(text(found, "incarnation"), int(found["revision"]["N"])),
        TIMESTAMP.unpack(found["updated"]["B"])[0],
        int(found["lives"]["N"]),
        float(expires["N"]) if expires else None,
    )


def _id(found: Item, attribute: str, encoded: str) -> str:
    if attribute in found:
        whole: bytes = found[attribute]["B"]
        return whole.decode()
    return unquote(encoded)


def state_attributes(state: Mapping[str, bytes]) -> dict[str, Any]:
    """Return state as attributes.

    Raises:
        ValueError: a key is too long.
    """
    attributes = {}
    for key, value in state.items():
        attribute = STATE + quote(key, safe="")
        if len(attribute) > MAX_KEY_BYTES:
            raise ValueError(
                f"The state key {key[:40]!r}… has {len(key):,} characters: DynamoDB takes no name"
                " that long."
            )
        attributes[attribute] = {"B": value}
    return attributes


def state_of(found: Item | None) -> dict[str, bytes]:
    """Return the state that an item holds."""
    return {
        unquote(attribute[len(STATE) :]): value["B"]
        for attribute, value in (found or {}).items()
        if attribute.startswith(STATE)
    }


def event_items(pk: str, incarnation: str, event: StoredEvent) -> list[Item]:
    """Return the items that hold an event.

    Raises:
        ValueError: it is too large for one transaction.
    """
    if len(event.data) > MAX_EVENT_BYTES:
        raise ValueError(
            f"The event has {len(event.data):,} bytes: DynamoDB takes at most {MAX_EVENT_BYTES:,} in"
            " one step. Keep large files as artifacts and let events name them."
        )
    starts = range(0, max(1, len(event.data)), PART_BYTES)
    return [
        item(
            pk,
            f"{event.revision:012d}/{name(incarnation)}/{place:02d}",
            at={"B": TIMESTAMP.pack(event.timestamp)},
            parts=number(len(starts)),
            data={"B": event.data[start : start + PART_BYTES]},
        )
        for place, start in enumerate(starts)
    ]


class Events:
    """Puts the events of one session together from the items of a query, in whatever order."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, str], dict[int, Item]] = {}

    def add(self, items: list[Item]) -> None:
        """Take items in, those of an earlier session under the same id among them."""
        for found in items:
            revision, incarnation, place = event_name(found)
            self._parts.setdefault((revision, incarnation), {})[place] = found

    def get(self, position: Position) -> StoredEvent | None:
        """Return an event of which all parts are there."""
        parts = self._parts.get((position.revision, name(position.incarnation)))
        if not parts or len(parts) < int(next(iter(parts.values()))["parts"]["N"]):
            return None
        data = [parts[place]["data"]["B"] for place in range(len(parts))]
        return StoredEvent(
            position.revision,
            TIMESTAMP.unpack(parts[0]["at"]["B"])[0],
            data[0] if len(data) == 1 else b"".join(data),
        )


def event_name(found: Item) -> tuple[int, str, int]:
    """Return the revision, the encoded incarnation and the part that an event's item is of."""
    revision, incarnation, place = text(found, "sk").split("/")
    return int(revision), incarnation, int(place)


def index_entry(found: Item) -> tuple[Names, str]:
    """Return the encoded ids and the incarnation of a session that stands in the index."""
    app = text(found, "pk").rpartition("/")[2]
    _, user, session, _ = text(found, "sk").split("/")
    return Names(app, user, session), text(found, "incarnation")


def number(value: float) -> dict[str, str]:
    """Return a number as DynamoDB takes it."""
    return {"N": repr(value)}


def condition(expression: str, **values: Any) -> dict[str, Any]:
    """Return a condition, and values for it and for the update that may go with it."""
    return {
        "ConditionExpression": expression,
        "ExpressionAttributeValues": {f":{place}": value for place, value in values.items()},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def state_update(state: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what sets these keys of a scope and leaves all others alone.

    Raises:
        ValueError: there are too many, or a key is too long.
    """
    if len(state) > MAX_KEYS_AT_ONCE:
        raise ValueError(
            f"{len(state):,} keys of state are changed at once: DynamoDB takes at most"
            f" {MAX_KEYS_AT_ONCE} of one scope in one step."
        )
    attributes = list(state_attributes(state).items())
    places = range(len(attributes))
    return {
        "UpdateExpression": "SET " + ",".join(f"#{place}=:{place}" for place in places),
        "ExpressionAttributeNames": {f"#{place}": attributes[place][0] for place in places},
        "ExpressionAttributeValues": {f":{place}": attributes[place][1] for place in places},
    }
