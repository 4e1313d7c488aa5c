"""Finds and removes damaged records.

A broken disk, another program or a newer version may damage records. Everything that is accepted can be read.
"""

from collections.abc import Mapping, Sequence

from ..codec import encode_state
from ..errors import CorruptSession
from ..keys import check_keys
from ..service import PersistentSessionService
from ..store import SessionKey
from .sources import reader, stored
from .transfer import Found, Unreadable, set_shared_state


async def find_damage(
    service: PersistentSessionService, app_name: str
) -> tuple[int, Sequence[Unreadable], Mapping[SessionKey, str]]:
    """Read all sessions of an app and all shared state, user by user.

    Return the number of sessions, the values of shared state that cannot be read with the records that the store
    leaves out, and the sessions that cannot be read with the reason.
    """
    await check_keys(service.store)
    count, values, sessions = 0, list[Unreadable](), dict[SessionKey, str]()
    async for record in stored(service.store, app_name, None):
        if isinstance(record, Unreadable):
            values.append(record)
        elif isinstance(record, Found):
            count += 1
            if problem := await _problem_of(service, record.key):
                sessions[record.key] = problem
    return count, values, sessions


async def remove_damage(
    service: PersistentSessionService,
    app_name: str,
    values: Sequence[Unreadable],
    sessions: Mapping[SessionKey, str],
) -> None:
    """Set damaged values to None, and delete damaged sessions, unless they can be read by now."""
    for value in values:
        if value.state_key:
            none = encode_state({value.state_key.partition(":")[2]: None})
            await set_shared_state(service.store, app_name, value.user_id, none)
    for key in sessions:
        if await _problem_of(service, key):
            await service.delete_session(
                app_name=app_name, user_id=key.user_id, session_id=key.session_id
            )


async def _problem_of(service: PersistentSessionService, key: SessionKey) -> str | None:
    """Return why a session cannot be read."""
    try:
        await reader(service.store, key)()
    except CorruptSession as error:
        return str(error)
    return None
