"""The agent: one tool that changes the state of the session."""

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.tools.tool_context import ToolContext

import tests.sessions.scripted as scripted
from {{ cookiecutter.__package }}.sessions.plugin import OneTurnAtATime


def note(key: str, value: str, tool_context: ToolContext) -> dict[str, str | None]:
    """Set a key of the state, and return what it was before."""
    before = tool_context.state.get(key)
    tool_context.state[key] = value
    return {"before": before}


root_agent = LlmAgent(name="noter", model=scripted.Scripted(), tools=[note])

app = App(name="noter", root_agent=root_agent, plugins=[OneTurnAtATime()])
