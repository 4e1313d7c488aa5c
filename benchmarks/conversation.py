"""The conversation that every contestant holds, the same one for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.genai import types

IMAGE_EVERY, IMAGE_BYTES = 200, 100_000
PROSE = (
    "the order was sent on Tuesday and should be with you by the end of this week; if it is not"
    " please tell us which of the two addresses the parcel went to, so that we can ask the carrier"
)


def conversation(seed: int = 0, *, images: bool = True) -> Iterator[Event]:
    """Yield the events of an endless conversation: question, tool call, result, answer, and again.

    Texts have some hundred characters, results set state, and one event in 200 carries an image.
    """
    dice = random.Random(seed)
    for number in count():
        step = number % 4
        author = "user" if step == 0 else "assistant"
        delta: dict[str, Any] = {}
        if images and number % IMAGE_EVERY == IMAGE_EVERY - 1:
            image = types.Blob(data=dice.randbytes(IMAGE_BYTES), mime_type="image/png")
            parts = [types.Part(text=text(dice, 8)), types.Part(inline_data=image)]
        elif step == 1:
            arguments = {
                "query": text(dice, 6),
                "limit": 10,
                "filters": {"status": ["open", "new"]},
            }
            call = types.FunctionCall(id=f"call-{number}", name="search_orders", args=arguments)
            parts = [types.Part(function_call=call)]
        elif step == 2:
            rows = [
                {"id": dice.randrange(10**6), "title": text(dice, 8), "price": dice.random()}
                for _ in range(5)
            ]
            result = types.FunctionResponse(
                id=f"call-{number - 1}", name="search_orders", response={"rows": rows}
            )
            parts = [types.Part(function_response=result)]
            delta = {"last_search": rows[0], f"seen_{dice.randrange(10)}": number}
            if number % 20 == 2:
                delta["user:searches"] = number
        else:
            parts = [types.Part(text=text(dice, dice.randrange(20, 120)))]
        yield Event(
            id=f"{seed:x}-{number:x}-{dice.randrange(16**8):08x}",
            invocation_id=f"e-{number // 4}",
            author=author,
            timestamp=1_750_000_000.0 + number,
            content=types.Content(role="user" if author == "user" else "model", parts=parts),
            actions=EventActions(state_delta=delta),
        )


def text(dice: random.Random, words: int) -> str:
    """Return some words."""
    return " ".join(dice.choices(PROSE.split(), k=words))
