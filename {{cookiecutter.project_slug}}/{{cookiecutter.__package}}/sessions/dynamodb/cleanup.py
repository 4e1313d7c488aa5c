"""Removes the rest of expired and deleted sessions.

DynamoDB itself removes expired heads by their `purge_at`. Events and state have no such date, because every
append would have to update all of them. A process that writes sessions of the same app removes them in the
background. It finds them by the index of the app, and removes the index entry last, so an interrupted cleanup
is repeated.
"""

import asyncio
import logging
import time
from contextlib import suppress

from ..errors import SessionStoreError
from .items import CLOCK_MARGIN, condition, event_name, head_of, number
from .keys import Item, Keys, due_at, indexed_session, text
from .table import ConditionFailed, Table

logger = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two cleanups of an app by one process."""
BATCH = 25
"""Sessions of one cleanup at most."""


class Cleanup:
    """Cleans up in background tasks of the running loop."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._prefix = table.client.options.prefix
        self._next: dict[str, float] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, app: str, now: float) -> None:
        """Clean up an app, unless this process has just done so."""
        if time.monotonic() < self._next.get(app, 0.0):
            return
        self._next[app] = time.monotonic() + INTERVAL
        task = asyncio.create_task(self._run(app, now - CLOCK_MARGIN))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def stop(self) -> None:
        """Stop the tasks of the running loop."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self.tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, app: str, cutoff: float) -> None:
        try:
            entries, more = await self._table.query(
                Keys(self._prefix, app).index_partition, between=("0", due_at(cutoff)), Limit=BATCH
            )
            for entry in entries:
                await self._settle(entry, cutoff)
            if more:
                self._next[app] = 0.0
        except SessionStoreError as error:
            logger.info("Expired sessions are removed later: %s", error)

    async def _settle(self, entry: Item, cutoff: float) -> None:
        """Remove the session of an index entry, or postpone the entry if the session is alive."""
        keys, incarnation = indexed_session(self._prefix, entry)
        found = await self._table.get_one(keys.head)
        if found is not None and text(found, "incarnation") == incarnation:
            expires_at = head_of(found, "").expires_at
            if expires_at is None or expires_at > cutoff:
                await self._postpone(keys, found, entry, due_at(expires_at))
                return
            expired = condition(
                "incarnation = :incarnation AND expires_at <= :cutoff",
                incarnation=found["incarnation"],
                cutoff=number(cutoff),
            )
            if not await self._table.delete(keys.head, expired):
                return
        await self.remove(keys, incarnation, entry)

    async def _postpone(self, keys: Keys, found: Item, entry: Item, due: str) -> None:
        """Move an index entry to the time at which its session will expire."""
        unchanged = condition(
            "incarnation = :incarnation AND due = :seen",
            incarnation=found["incarnation"],
            seen=found["due"],
            due={"S": due},
        )
        move = {"Key": keys.head, "UpdateExpression": "SET due = :due"}
        # Refused if the session was deleted, or already postponed.
        with suppress(ConditionFailed):
            await self._table.transact(
                ("Update", move | unchanged),
                ("Delete", {"Key": entry}),
                ("Put", {"Item": keys.index_entry(due, text(found, "incarnation"))}),
            )

    async def remove(self, keys: Keys, incarnation: str, entry: Item) -> None:
        """Remove the events and the state of a session without a head, and its index entry last.

        If the user has state, an item that names the user takes the place of the index entry.
        """
        async for events in self._table.pages(keys.events_partition, ProjectionExpression="pk, sk"):
            own = [event for event in events if event_name(event)[1] == incarnation]
            await self._table.delete_many(own)
        same = condition("incarnation = :incarnation", incarnation={"S": incarnation})
        await self._table.delete(keys.state, same)
        if state := await self._table.get_one(keys.user_state):
            await self._table.put(keys.named_user(text(state, "user_id")), {})
        await self._table.delete_many([entry])
