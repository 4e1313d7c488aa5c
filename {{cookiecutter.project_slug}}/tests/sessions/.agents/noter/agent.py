"""The agent has a tool that changes the session's state, and one that blocks."""

import asyncio
import time
from pathlib import Path

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.tools.tool_context import ToolContext

import tests.sessions.scripted as scripted
from {{ cookiecutter.__package }}.sessions.plugin import OneTurnAtATime


def note(key: str, value: str, tool_context: ToolContext) -> dict[str, str | None]:
    """Set a key of the state and return its previous value."""
    before = tool_context.state.get(key)
    tool_context.state[key] = value
    return {"before": before}


async def hold(path: str) -> dict[str, str]:
    """Create a file and wait until it is removed."""
    await asyncio.to_thread(wait_while_it_exists, Path(path))
    return {"held": path}


def wait_while_it_exists(file: Path) -> None:
    """Create a file and return once it is removed."""
    file.touch()
    while file.exists():
        time.sleep(0.02)


root_agent = LlmAgent(name="noter", model=scripted.Scripted(), tools=[note, hold])

app = App(name="noter", root_agent=root_agent, plugins=[OneTurnAtATime()])
