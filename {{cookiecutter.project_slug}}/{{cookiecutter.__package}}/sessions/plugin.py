"""The plugin that makes ADK's Runner wait for the turns before its own."""

import weakref
from typing import Any

from google.adk.agents.base_agent import BaseAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types
from typing_extensions import override

from .service import PersistentSessionService
from .session import PersistentSession
from .turns import watch_agent


class OneTurnAtATime(BasePlugin):
    """Makes a message wait until earlier messages of the same session are answered.

    The turn begins before the message is appended, and the session is brought up to date. It ends after the
    answer or an error. A run that is cancelled without ADK's abort signal calls no plugin: its turn ends with the
    cancelled task of the caller or of the agent, or when the session object is garbage.

    A live session (`run_live`) takes no turn, because it may last for hours. With ADK's own session services,
    the plugin does nothing.
    """

    def __init__(self) -> None:
        super().__init__(name="one_turn_at_a_time")

    @override
    async def on_user_message_callback(
        self, *, invocation_context: InvocationContext, user_message: types.Content
    ) -> None:
        """Begin the turn of a message."""
        await self.before_run_callback(invocation_context=invocation_context)

    @override
    async def before_run_callback(self, *, invocation_context: InvocationContext) -> None:
        """Begin the turn of a run that is resumed without a message."""
        service, session = invocation_context.session_service, invocation_context.session
        if not isinstance(service, PersistentSessionService):
            return
        if invocation_context.live_request_queue is None and isinstance(session, PersistentSession):
            turn = await service.begin_turn(session)
            if turn:
                weakref.finalize(session, service.turns.abandon, turn).atexit = False

    @override
    async def before_agent_callback(
        self, *, agent: BaseAgent, callback_context: CallbackContext
    ) -> None:
        """Watch the task that runs the agent for its cancellation."""
        watch_agent()

    @override
    async def after_run_callback(self, *, invocation_context: InvocationContext) -> None:
        """End the turn of a run that is complete or whose generator was closed."""
        service, session = invocation_context.session_service, invocation_context.session
        if isinstance(service, PersistentSessionService) and isinstance(session, PersistentSession):
            await service.end_turn(session)

    @override
    async def on_run_error_callback(
        self, *, invocation_context: InvocationContext, **_: Any
    ) -> None:
        """End the turn of a run that failed."""
        await self.after_run_callback(invocation_context=invocation_context)
