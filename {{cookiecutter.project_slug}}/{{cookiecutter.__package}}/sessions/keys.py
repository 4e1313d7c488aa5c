"""The keys of encrypted sessions, and how encrypted records are told from others.

This module does not encrypt, so it is cheap to import. `encryption.py` does.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from .environment import setting
from .errors import ConfigurationError
from .store import SessionStore

KEYS_VARIABLE, FILE_VARIABLE = "SESSION_KEYS", "SESSION_KEYS_FILE"

ENCRYPTED = b"\x01"
"""The first byte of an encrypted record. No JSON begins with it."""
ID_BYTES = 4
"""Bytes of a key's id, which follow."""
KEY_BYTES = 32

RESERVED = "\x1fkeys\x1f"
"""The name of the app whose state has the check record. The service refuses sessions with such names."""
CHECK = "check"
"""The state key of the check record, which is encrypted like the newest records. A process with wrong keys cannot
read it."""


CLEAR_TEXT = "clear text"
"""What stands for the id of a key where there is none."""


class Unreadable(bytes):
    """What the encryption returns for a record that it cannot read: the reason."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of 32 random bytes."""

    secret: bytes = field(repr=False)

    @property
    def header(self) -> bytes:
        """The first bytes of what this key encrypts."""
        return ENCRYPTED + sha256(b"id of a session key" + self.secret).digest()[:ID_BYTES]

    def __str__(self) -> str:
        return name_of_key(self.header) or ""


def new_key() -> str:
    """Return a new key as SESSION_KEYS has it."""
    return secrets.token_urlsafe(KEY_BYTES)


def session_keys() -> Sequence[Key]:
    """Return the keys of SESSION_KEYS, or of the file that SESSION_KEYS_FILE names.

    Raises:
        ConfigurationError: one of them is not a key, or the file cannot be read. No message shows a key.
    """
    text, path = setting(KEYS_VARIABLE), setting(FILE_VARIABLE)
    name = KEYS_VARIABLE
    if path:
        if text:
            raise ConfigurationError(f"Set either {KEYS_VARIABLE} or {FILE_VARIABLE}, not both.")
        name = path
        try:
            text = Path(path).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text of keys"
            raise ConfigurationError(f"{FILE_VARIABLE}={path} cannot be read: {reason}.") from None
        if not text.strip():
            raise ConfigurationError(f"{FILE_VARIABLE}={path} has no key.")
    keys = []
    for number, word in enumerate((text or "").replace(",", " ").split(), 1):
        try:
            padded = word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4)
            secret = base64.b64decode(padded.translate(str.maketrans("-_", "+/")), validate=True)
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ConfigurationError(
                f"Key {number} of {name} is not {KEY_BYTES} bytes in Base64: `sessions new-key` makes one."
            )
        keys.append(Key(secret))
    return keys


def name_of_key(data: bytes) -> str | None:
    """Return the id of the key that encrypted a record, or None for clear text."""
    if data[: len(ENCRYPTED)] != ENCRYPTED:
        return None
    return data[len(ENCRYPTED) :][:ID_BYTES].hex()


def problem_of(data: bytes) -> str | None:
    """Return why a record cannot be read, as far as it concerns its encryption."""
    if isinstance(data, Unreadable):
        return data.decode()
    if key := name_of_key(data):
        return f"encrypted with key {key}, and {KEYS_VARIABLE} is not set"
    return None


async def check_keys(store: SessionStore) -> None:
    """Read the check record, if there is one.

    Raises:
        ConfigurationError: this process does not have the store's keys.
    """
    refuse_wrong_keys(store.location, (await store.user_state(RESERVED, "")).get(CHECK, b""))


def refuse_wrong_keys(location: str, check_record: bytes) -> None:
    """Raise ConfigurationError if this process could not read the check record."""
    if problem := problem_of(check_record):
        raise ConfigurationError(
            f"The sessions at {location} cannot be read: their check record is {problem}."
        )
