"""The conversation of `make demo`, which survives a restart.

Two processes share only the session store: the first is told a name, and the second is asked for it. The name
is stored in the session only, so nothing is left when the session is deleted at the end. Both processes use the
offline model, which needs no key.
"""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any, NoReturn
from uuid import uuid4

import click

from ..sessions.commands.terminal import print_anything
from ..sessions.environment import load_environment
from ..sessions.errors import SessionStoreError
from ..settings import APP_NAME, OFFLINE

NAME = "Ada"


def main() -> NoReturn:
    """Run the conversation, or the turn that the arguments give."""
    print_anything()
    try:
        load_environment()
        if sys.argv[1:]:
            click.echo(json.dumps(asyncio.run(turn(*sys.argv[1:4], last="last" in sys.argv[4:]))))
        else:
            converse()
    except SessionStoreError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def converse() -> None:
    """Run both processes, show the conversation, and fail if the name was forgotten."""
    user, session = f"demo-{uuid4().hex[:8]}", uuid4().hex[:8]
    first = ask(user, session, f"Hello! For this conversation, my name is {NAME}.")
    click.secho(f"process {first['pid']} has ended, another one starts", dim=True)
    second = ask(user, session, "What is my name?", "last")
    if first["pid"] == second["pid"] or NAME not in second["text"]:
        sys.exit(
            f"Error: the second process should have named {NAME}, but said: {second['text']}\n"
            "If the agent is now your own, remove the demo: README.md says how."
        )
    click.secho(f"It remembered. All that the two share: {second['sessions']}", fg="green")


def ask(user: str, session: str, text: str, *more: str) -> dict[str, Any]:
    """Run a turn in a new process and show it."""
    process = subprocess.run(
        [sys.executable, "-m", f"{APP_NAME}.demo", user, session, text, *more],
        env=os.environ | {"MODEL": OFFLINE},
        stdout=subprocess.PIPE,
        check=False,
    )
    if process.returncode:
        sys.exit(process.returncode)
    answer: dict[str, Any] = json.loads(process.stdout)
    click.echo(f"process {answer['pid']}, you:   {text}")
    click.echo(f"process {answer['pid']}, agent: {answer['text']}")
    return answer


async def turn(user: str, session_id: str, text: str, *, last: bool) -> dict[str, Any]:
    """Send a message to the agent in a new session, or in the last turn in an existing one."""
    from google.adk.runners import Runner
    from google.genai import types

    from ..agent import app
    from ..sessions import create_session_service

    name: dict[str, Any] = {"app_name": APP_NAME, "user_id": user, "session_id": session_id}
    async with create_session_service() as service:
        if not last:
            await service.create_session(**name)
        runner = Runner(app=app, session_service=service)
        said = []
        async for event in runner.run_async(
            user_id=user,
            session_id=session_id,
            new_message=types.Content(role="user", parts=[types.Part(text=text)]),
        ):
            said += [part.text for part in (event.content and event.content.parts) or []]
        await runner.close()
        if last:
            await service.delete_session(**name)
        return {
            "pid": os.getpid(),
            "text": " ".join(filter(None, said)),
            "sessions": service.description,
        }


if __name__ == "__main__":
    main()
