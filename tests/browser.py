"""ADK's web interface in Chromium, for the tests of people's conversations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

from .installed import Web

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
ENDS_WITHIN = 60_000
"""Milliseconds until something must be seen. A slow machine must not fail a test."""

expect.set_options(timeout=ENDS_WITHIN)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium, which reaches this machine and nothing else."""
    assert CHROMIUM.is_file(), (
        f"There is no Chromium at {CHROMIUM}: install it (Debian: apt install chromium),"
        " or set CHROMIUM to its path."
    )
    with sync_playwright() as playwright:
        local = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        with playwright.chromium.launch(executable_path=CHROMIUM, args=[local]) as browser:
            yield browser


class Chat:
    """A tab with a conversation of the user `ada`."""

    def __init__(self, page: Page, web: Web, session: str = "") -> None:
        """Open a session, or begin a new one."""
        self.page = page
        self.rows = page.locator("app-event-row")
        """Messages, calls of tools and their results."""
        self.title = page.locator("button[mattooltip='Select a session']")
        page.set_default_timeout(ENDS_WITHIN)
        # ADK asks on its first page, and writes the answer to the home directory.
        page.route("**/config/telemetry", lambda route: route.fulfill(json={"telemetry": False}))
        chosen = f"&session={session}" if session else ""
        page.goto(f"{web.address}/dev-ui/?app={web.app}&userId=ada{chosen}")

    @property
    def session(self) -> str:
        """Return the id of the session, which is in the address from the first message on."""
        return parse_qs(urlsplit(self.page.url).query)["session"][0]

    def send(self, text: str) -> None:
        """Send a message."""
        box = self.page.get_by_placeholder("Type a message...")
        box.fill(text)
        box.press("Enter")

    def say(self, text: str, answer: str) -> None:
        """Send a message, and wait until its turn has ended and the answer is shown."""
        with self.page.expect_response("**/run_sse") as response:
            self.send(text)
        response.value.finished()
        expect(self.rows.last).to_contain_text(answer)

    def rename(self, name: str) -> None:
        """Give the session a name, and wait until it is stored."""
        self.title.click()
        field = self.page.locator("app-inline-edit")
        field.get_by_role("button", name="Edit").click()
        field.get_by_role("textbox").fill(name)
        with self.page.expect_response(lambda response: response.request.method == "PATCH"):
            field.get_by_role("button", name="Save").click()

    def delete(self) -> None:
        """Delete the session, and wait until it is deleted."""
        self.title.click()
        self.page.get_by_role("button", name="Delete", exact=True).click()
        dialog = self.page.get_by_role("dialog")
        with self.page.expect_response(lambda response: response.request.method == "DELETE"):
            dialog.get_by_role("button", name="Delete", exact=True).click()
