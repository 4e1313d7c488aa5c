"""`serve --workers`: all workers drain, finish their turns and end. No store knows of them, so one shows it."""

import asyncio
import signal
from pathlib import Path

import httpx

from {{ cookiecutter.__package }}.sessions import create_session_service

from ..sessions.programs import AGENTS, PYTHON, USER, Server
from ..sessions.support import until, with_options
from ..sessions.test_server import start_turn

WORKERS = 2
SESSIONS = [f"s{number}" for number in range(6)]
SERVE = [*PYTHON, "serve", f"--workers={WORKERS}", "--drain=4", str(AGENTS)]


async def test_workers_drain_and_finish_their_turns(uri: str, tmp_path: Path) -> None:
    files = [tmp_path / f"held {name}" for name in SESSIONS]
    with Server(SERVE, uri, tmp_path / "log") as server:
        await until(lambda: server.printed().count("Application startup complete") == WORKERS)
        for name in SESSIONS:
            server.create(name, app="noter")
        # Every request has a connection of its own, which either worker may accept.
        limits = httpx.Limits(max_keepalive_connections=0)
        base = server.http.base_url
        async with httpx.AsyncClient(
            base_url=base, timeout=60, limits=limits, trust_env=False
        ) as http:
            turns = [
                await start_turn(http, name, file)
                for name, file in zip(SESSIONS, files, strict=True)
            ]
            server.process.send_signal(signal.SIGTERM)
            while {(await http.get("/ready")).status_code for _ in range(20)} != {503}:
                pass
            assert (await http.get("/list-apps")).status_code == 200
            await until(lambda: server.printed().count("Shutting down") == WORKERS)
            for file in files:
                file.unlink()
            assert {(await turn).status_code for turn in turns} == {200}
        assert await asyncio.to_thread(server.wait) == 0
    async with create_session_service(with_options(uri, "turn_wait=0")) as service:
        for name in SESSIONS:
            session = await service.get_session(app_name="noter", user_id=USER, session_id=name)
            assert session
            async with service.turn(session):  # refused if the lease were still taken
                pass
