"""`python -m tests.screenshots` talks to a default project and writes the pictures of README.md to docs/images."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect
from rich.console import Console
from rich.text import Text

from .baking import ROOT, bake
from .browser import Chat, chromium
from .installed import Project

IMAGES = ROOT / "docs" / "images"
WIDTH = 96
"""Columns of the terminal."""


def main() -> None:
    """Tell a name, restart the server, ask for the name, and list and show the session."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chromium() as browser:
        folder = Path(temporary)
        project = Project(bake(folder / "project", backend="sqlite"), "sqlite")
        project.make("setup")
        command = ("python", "-m", project.package, "web")
        page = browser.new_page(viewport={"width": 900, "height": 640})
        panel = page.get_by_role("button", name="Toggle side panel")
        with project.web(*command, uri="", log=folder / "log") as web:
            chat = Chat(page, web)
            panel.click()
            chat.say("My name is Ada.", "Nice to meet you, Ada!")
            take(page, "before-restart")
            session = chat.session
        with project.web(*command, uri="", log=folder / "log") as web:
            chat = Chat(page, web, session)
            panel.click()
            expect(chat.rows.last).to_contain_text("Nice to meet you, Ada!")
            chat.say("What is my name?", "Your name is Ada.")
            take(page, "after-restart")
        page.set_viewport_size({"width": 1000, "height": 600})
        page.set_content(terminal(project, "sessions list", f"sessions show {session}"))
        page.locator("svg").screenshot(path=IMAGES / "sessions.png")


def take(page: Page, name: str) -> None:
    """Write a picture without icons: their fonts are on the internet, and without them they are words."""
    page.screenshot(
        animations="disabled", path=IMAGES / f"{name}.png", style="mat-icon { visibility: hidden }"
    )


def terminal(project: Project, *commands: str) -> str:
    """Run commands in a terminal and return it as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for command in commands:
        line = f"uv run python -m {project.package} {command}"
        shown = ("env", "TERM=xterm-256color", f"COLUMNS={WIDTH}", "script", "-qec")
        status, said = project.run(*shown, line, "/dev/null")
        assert status == 0, said
        console.print(f"[bold green]$[/] {line}", highlight=False)
        console.print(Text.from_ansi(said))
    return console.export_svg(title=project.folder.name)


if __name__ == "__main__":
    main()
