"""Converts heads, state and events to items and back. `keys.py` has the keys of items."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from ..store import Head, Position, SessionKey, StoredEvent
from .keys import Item, item, text

PART_BYTES = 390_000
"""Bytes of an event in one item. DynamoDB allows 400 KB with the names of the attributes."""
MAX_EVENT_BYTES = 3_500_000
"""Bytes of an event. The limit of a transaction is 4 MB, with the changes of state."""
MAX_CHANGED_KEYS = 400
"""State keys of one scope in one update. DynamoDB allows 4 KB for its expression."""
MAX_KEY_BYTES = 60_000
"""Bytes of an encoded state key. DynamoDB allows 64 KB for the name of an attribute."""
CLOCK_MARGIN = 300.0
"""Seconds that an expired session is kept, because the clock of another process may be slow."""
STATE_PREFIX = "s:"
"""The prefix of attributes with state."""


def head_attributes(head: Head, *, due: str) -> dict[str, Any]:
    """Return the attributes of a head. They include the ids, because its key may have only digests."""
    return {
        "user_id": {"S": head.key.user_id},
        "session_id": {"S": head.key.session_id},
        "incarnation": {"S": head.position.incarnation},
        "revision": number(head.position.revision),
        "updated_at": timestamp(head.updated_at),
        "lifetime": number(head.ttl),
        "due": {"S": due},
        **expiry_attributes(head.expires_at),
    }


def expiry_attributes(expires_at: float | None) -> dict[str, Any]:
    """Return the attributes of the expiry, and of the removal of the head by DynamoDB."""
    if expires_at is None:
        return {}
    return {
        "expires_at": number(expires_at),
        "purge_at": number(int(expires_at + CLOCK_MARGIN) + 1),
    }


def head_of(found: Item, app_name: str) -> Head:
    """Return the head of an item."""
    expires_at = found.get("expires_at")
    return Head(
        SessionKey(app_name, text(found, "user_id"), text(found, "session_id")),
        Position(text(found, "incarnation"), int(found["revision"]["N"])),
        float(text(found, "updated_at")),
        int(found["lifetime"]["N"]),
        float(expires_at["N"]) if expires_at else None,
    )


def state_attributes(state: Mapping[str, bytes]) -> dict[str, Any]:
    """Return state as attributes.

    Raises:
        ValueError: a key is too long.
    """
    attributes = {}
    for key, value in state.items():
        attribute = STATE_PREFIX + quote(key, safe="")
        if len(attribute) > MAX_KEY_BYTES:
            raise ValueError(
                f"The state key {key[:40]!r}… has {len(key):,} characters, which is too long for"
                " DynamoDB."
            )
        attributes[attribute] = {"B": value}
    return attributes


def state_of(found: Item | None) -> dict[str, bytes]:
    """Return the state of an item."""
    return {
        unquote(attribute.removeprefix(STATE_PREFIX)): value["B"]
        for attribute, value in (found or {}).items()
        if attribute.startswith(STATE_PREFIX)
    }


def state_updates(
    key: Item, state: Mapping[str, bytes], **attributes: Any
) -> list[tuple[str, Any]]:
    """Return the action that sets these keys of one scope, or none. Other keys stay.

    Args:
        attributes: more attributes of the item.

    Raises:
        ValueError: there are too many keys, or one is too long.
    """
    if not state:
        return []
    if len(state) > MAX_CHANGED_KEYS:
        raise ValueError(
            f"{len(state):,} state keys of one scope are changed at once. DynamoDB allows"
            f" {MAX_CHANGED_KEYS}."
        )
    names, values = {}, {}
    for index, (attribute, value) in enumerate((state_attributes(state) | attributes).items()):
        names[f"#{index}"] = attribute
        values[f":{index}"] = value
    update = {
        "Key": key,
        "UpdateExpression": "SET " + ",".join(f"#{index}=:{index}" for index in range(len(names))),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
    return [("Update", update)]


def event_items(pk: str, incarnation: str, event: StoredEvent) -> list[Item]:
    """Return the item of an event, or the items of the parts of a large event.

    Raises:
        ValueError: it is too large for one transaction.
    """
    if len(event.data) > MAX_EVENT_BYTES:
        raise ValueError(
            f"The event has {len(event.data):,} bytes. DynamoDB takes at most {MAX_EVENT_BYTES:,} in"
            " one step: keep large files as artifacts and let events name them."
        )
    starts = range(0, max(1, len(event.data)), PART_BYTES)
    return [
        item(
            pk,
            f"{event.revision:012d}/{quote(incarnation, safe='')}/{part:02d}",
            timestamp=timestamp(event.timestamp),
            parts=number(len(starts)),
            data={"B": event.data[start : start + PART_BYTES]},
        )
        for part, start in enumerate(starts)
    ]


def event_replacements(
    pk: str, incarnation: str, events: Iterable[StoredEvent]
) -> Iterator[list[tuple[str, Any]]]:
    """Yield for each event the actions that replace it if it exists."""
    exists = {"ConditionExpression": "attribute_exists(pk)"}
    for event in events:
        first, *others = event_items(pk, incarnation, event)
        yield [("Put", {"Item": first} | exists), *(("Put", {"Item": part}) for part in others)]


def value_replacements(
    key: Item, old: Mapping[str, bytes], new: Mapping[str, bytes], incarnation: str = ""
) -> Iterator[list[tuple[str, Any]]]:
    """Yield for each value of a scope the action that replaces it if it is still the old one."""
    for name, value in old.items():
        [(kind, update)] = state_updates(key, {name: new[name]})
        update["ConditionExpression"] = "#0 = :old"
        update["ExpressionAttributeValues"][":old"] = {"B": value}
        if incarnation:
            update["ConditionExpression"] += " AND incarnation = :incarnation"
            update["ExpressionAttributeValues"][":incarnation"] = {"S": incarnation}
        yield [(kind, update)]


def event_name(found: Item) -> tuple[int, str, int]:
    """Return the revision, the incarnation and the part of an event's item."""
    revision, incarnation, part = text(found, "sk").split("/")
    return int(revision), unquote(incarnation), int(part)


def join_parts(revision: int, parts: Mapping[int, Item]) -> StoredEvent | None:
    """Return the event of the parts, or None if one is missing."""
    if not parts or len(parts) < int(next(iter(parts.values()))["parts"]["N"]):
        return None
    data = [parts[part]["data"]["B"] for part in range(len(parts))]
    return StoredEvent(revision, float(text(parts[0], "timestamp")), b"".join(data))


def condition(expression: str, **values: Any) -> dict[str, Any]:
    """Return a condition, with the values of the condition and of its update."""
    return {
        "ConditionExpression": expression,
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
    }


def number(value: float) -> dict[str, str]:
    """Return a number as an attribute."""
    return {"N": repr(value)}


def timestamp(value: float) -> dict[str, str]:
    """Return a timestamp as an attribute. The range of DynamoDB's numbers is smaller than that of floats."""
    return {"S": repr(value)}
