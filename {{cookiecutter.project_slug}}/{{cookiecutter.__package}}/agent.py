"""The agent. ADK looks for `app` in this file, and for `root_agent`."""

from google.adk.agents import LlmAgent
from google.adk.apps import App

from .sessions.plugin import OneTurnAtATime
from .settings import APP_NAME, DESCRIPTION, model
from .tools import recall, remember, session_report

INSTRUCTION = """\
You are a friendly assistant with a memory that outlives this conversation.

When somebody tells you something worth knowing again (a name, a preference, a fact), call `remember`
under a short key such as "name". Use the scope "user" unless they say that it is only for this
conversation ("session") or for everybody ("app").
When you are asked for something that you were told before, call `recall` before you answer; without
a key it returns all that you know. Never claim to remember what `recall` does not return.
When you are asked about the session, its age, its storage or how long you remember, call
`session_report`.
Answer briefly, in the language of the question.
"""

root_agent = LlmAgent(
    name=APP_NAME,
    description=DESCRIPTION,
    model=model(),
    instruction=INSTRUCTION,
    tools=[remember, recall, session_report],
)

# With the plugin, a message waits until the one before it in the same session is answered.
app = App(name=APP_NAME, root_agent=root_agent, plugins=[OneTurnAtATime()])
