"""ADK's command line with this project's sessions.

`python -m <package> web` runs `main()`, which fills in the session URI and the agent's folder. Plain
`adk web .` loads a `services.py`, which calls `register_for_adk()`. Both register the URI scheme, and both
refuse an unknown scheme, which ADK would treat as a SQLAlchemy database.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click
from click.core import ParameterSource

from . import register
from .commands.terminal import print_anything
from .config import AGENT_FOLDER, APP_NAME, BACKEND_TITLE, SCHEMES
from .environment import PROJECT, load_environment
from .errors import ConfigurationError

ADK_SCHEMES = ("memory", "agentengine", "sqlite", "postgresql", "mysql")
"""ADK's own schemes. A scheme with a `+` is a SQLAlchemy dialect with its driver."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command of ADK or of this project, and exit with its status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    print_anything()
    try:
        load_environment()
        if arguments[:1] == ["run"]:
            interrupt_at_once()
        sys.exit(run(arguments))
    except ConfigurationError as error:
        sys.exit(f"Error: {error}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # what is still buffered cannot be written either
        quiet = error.errno == errno.EPIPE  # as with `| head`
        sys.exit(1 if quiet else f"Error: The output cannot be written: {error.strerror}.")
    except (click.Abort, KeyboardInterrupt) as error:
        # The end of the input ends a conversation, and Ctrl-C interrupts a command.
        sys.exit(0 if isinstance(error.__cause__, EOFError) else 130)


def interrupt_at_once() -> None:
    """Make the first Ctrl-C end a conversation that waits for input.

    With Python's own handler, asyncio only cancels its task at the first Ctrl-C, and the task waits for a line.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def run(arguments: list[str]) -> int:
    """Run a command and return its exit status. Only ADK's own commands load ADK's command line."""
    own = own_commands()
    group = click.Group(commands=own)
    words = arguments or os.environ.get("COMP_WORDS", "").split()[1:]  # of a line to complete
    if not words or words[0] not in own:
        from google.adk.cli import main as adk

        if not arguments or arguments[0] in ("serve", "--help"):  # it takes long to import
            from .server import serve_command

            adk.add_command(serve_command(adk.commands["api_server"]))
        for name, command in own.items():
            adk.add_command(command, name)
        register()
        group, arguments = adk, with_defaults(adk, arguments)
    color = False if os.environ.get("NO_COLOR") else None
    status = group.main(arguments, standalone_mode=False, color=color)
    return status if isinstance(status, int) else 0


def own_commands() -> dict[str, click.Command]:
    """Return the commands of this project."""
    from .commands.cli import sessions
    from .commands.doctor import doctor

    return {"sessions": sessions, "doctor": doctor}


def with_defaults(adk: click.Group, arguments: list[str]) -> list[str]:
    """Return the arguments with the session URI and the agent's folder filled in."""
    command = adk.commands.get(arguments[0]) if arguments else None
    if command is None or not any(
        option.name == "session_service_uri" for option in command.params
    ):
        return arguments
    from .factory import session_uri

    name, *rest = arguments
    with command.make_context(name, list(rest), resilient_parsing=True) as context:
        folder = AGENT_FOLDER if "agent" in context.params else served_folder()
        added = [] if has_folder(context) else [str(folder)]
        if uri := context.params["session_service_uri"]:
            check_scheme(uri)
        elif not chose_other_storage(context):
            uri = session_uri()
            check_scheme(uri)
            added.append(f"--session_service_uri={uri}")
    return [name, *added, *rest]


def served_folder() -> Path:
    """Return the folder that servers serve: the project if it has several agents, or the agent's own."""
    agents = list(PROJECT.glob("*/agent.py"))
    return PROJECT if len(agents) > 1 and (PROJECT / "services.py").is_file() else AGENT_FOLDER


def has_folder(context: click.Context) -> bool:
    """Return whether the command line names an agent's folder.

    `run` takes a folder and a question. A single argument that is not a folder is the question.
    """
    if "agent" in context.params:
        return bool(context.params["agent"] or context.params.get("query"))
    return given(context, "agents_dir")


def chose_other_storage(context: click.Context) -> bool:
    """Return whether the command line asks for ADK's own storage."""
    return bool(context.params.get("in_memory")) or given(context, "use_local_storage")


def given(context: click.Context, name: str) -> bool:
    """Return whether an argument is on the command line."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def check_scheme(uri: str) -> None:
    """Refuse a session URI whose scheme neither this project nor ADK knows.

    Raises:
        ClickException: the scheme is unknown. The message shows only the scheme.
    """
    scheme, separator, _ = uri.partition(":")
    scheme = scheme.lower() if separator else ""
    dialect, plus, _ = scheme.partition("+")
    if scheme in SCHEMES or dialect in ADK_SCHEMES or (plus and dialect not in SCHEMES):
        return
    what = f"an unknown scheme {scheme!r}" if scheme else "no scheme"
    ours = " or ".join(f"{known}://" for known in SCHEMES)
    raise click.ClickException(
        f"The session URI has {what}: use {ours} for {BACKEND_TITLE}, one of ADK's own"
        f" ({', '.join(ADK_SCHEMES)}), or a SQLAlchemy dialect with its driver (mysql+aiomysql)."
    )


def register_for_adk() -> None:
    """Register the scheme for a `services.py`, and check the URI of the command that ADK runs.

    ADK ignores exceptions here, so an unknown scheme ends the process.
    """
    register()
    context = click.get_current_context(silent=True)
    if context is None or "session_service_uri" not in context.params:
        return
    if uri := context.params["session_service_uri"]:
        try:
            check_scheme(uri)
        except click.ClickException as error:
            sys.exit(f"Error: {error.message}")
    elif not chose_other_storage(context):
        click.echo(
            "Without --session_service_uri, ADK uses its own session storage;"
            f" `python -m {APP_NAME} {context.info_name}` uses {BACKEND_TITLE}.",
            err=True,
        )
