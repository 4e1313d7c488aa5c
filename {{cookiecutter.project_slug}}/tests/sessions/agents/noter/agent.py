"""The agent: one tool that changes the state of the session."""

from google.adk.agents import LlmAgent
from google.adk.tools.tool_context import ToolContext

from tests.sessions.scripted import Scripted


def note(key: str, value: str, tool_context: ToolContext) -> dict[str, str | None]:
    """Set a key of the state, and return what it was before."""
    before = tool_context.state.get(key)
    tool_context.state[key] = value
    return {"before": before}


root_agent = LlmAgent(name="noter", model=Scripted(), tools=[note])
