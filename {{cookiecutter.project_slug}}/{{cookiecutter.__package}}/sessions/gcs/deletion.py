"""Deletes a session with all its objects."""

import time

from .bucket import Bucket, Item
from .errors import Gone
from .names import events_of, has_head, head_of
from .records import Checkpoint


async def delete(bucket: Bucket, folder: str, head: Item | None) -> None:
    """Delete the head of a session first, so that it is gone, and then the rest.

    `head` is the head object, if it is known. It saves a request.
    """
    began = time.monotonic()
    head = head or await bucket.get(head_of(folder))
    while head and not await bucket.delete(head):
        await bucket.pause(began)
        head = await bucket.get(head_of(folder))
    await sweep(bucket, folder)


async def sweep(bucket: Bucket, folder: str) -> None:
    """Delete the remains of earlier sessions in a folder."""
    items = await bucket.find(folder)
    if has_head(folder, items):
        try:
            checkpoint = await bucket.read(items.pop(), Checkpoint.decode)
        except Gone:
            return
        own = events_of(folder, checkpoint.head.position.incarnation)
        items = [item for item in items if not item.name.startswith(own)]
    await bucket.delete_all(items)
