"""People who talk to the agent in a browser, with ADK's web interface, find their conversations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Route, expect

from .browser import Chat, chromium
from .installed import Project, Web

pytestmark = [pytest.mark.installed, pytest.mark.two_backends]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def tabs(browser: Browser) -> Iterator[BrowserContext]:
    """Open a window without tabs."""
    with browser.new_context() as context:
        yield context


@pytest.fixture(scope="module")
def web(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Serve the web interface of a project."""
    folder = tmp_path_factory.mktemp("browser")
    command = ("python", "-m", project.package, "web")
    with (
        project.server(folder / "data") as uri,
        project.web(*command, uri=uri, log=folder / "log") as web,
    ):
        yield web


def test_conversation_survives_reload_and_restart(
    project: Project, tabs: BrowserContext, tmp_path: Path
) -> None:
    """A tab that is reloaded shows the same events, also after another process has taken over."""
    command = ("python", "-m", project.package, "web")
    with project.server(tmp_path / "data") as uri:
        with project.web(*command, uri=uri, log=tmp_path / "first.log") as web:
            chat = Chat(tabs.new_page(), web)
            chat.say("My name is Ada.", "Nice to meet you, Ada!")
            chat.say("What is my name?", "Your name is Ada.")
            shown = chat.rows.all_inner_texts()
            chat.page.reload()
            expect(chat.rows).to_have_text(shown, use_inner_text=True)
        port = urlsplit(web.address).port or 0
        with project.web(*command, uri=uri, log=tmp_path / "second.log", port=port):
            chat.page.reload()
            expect(chat.rows).to_have_text(shown, use_inner_text=True)
            chat.say("Who am I?", "Your name is Ada.")


def test_renamed_session_keeps_its_name(web: Web, tabs: BrowserContext) -> None:
    """The name is a part of the session's state, beside the events."""
    chat = Chat(tabs.new_page(), web)
    chat.say("Hello.", "I am a script")
    name = "Ada's 助手 <b>&"
    chat.rename(name)
    assert web.session(chat.session)["state"]["__session_metadata__"]["displayName"] == name
    chat.page.reload()
    expect(chat.title).to_contain_text(name)
    expect(chat.rows.nth(1)).to_contain_text("I am a script")


def test_deleted_session_is_gone(web: Web, tabs: BrowserContext) -> None:
    """The user's other sessions stay."""
    kept, chat = Chat(tabs.new_page(), web), Chat(tabs.new_page(), web)
    for each in (kept, chat):
        each.say("Hello.", "I am a script")
    deleted = chat.session
    chat.delete()
    listed = [session["id"] for session in web.call(f"/apps/{web.app}/users/ada/sessions")]
    assert kept.session in listed
    assert deleted not in listed
    again = Chat(tabs.new_page(), web, deleted)
    expect(again.page.get_by_text("Cannot find specified session.")).to_be_visible()
    expect(again.rows).to_have_count(0)


def test_two_tabs_share_a_conversation(web: Web, tabs: BrowserContext) -> None:
    """Messages that arrive at once are answered one after the other, and both tabs show all of it."""
    one = Chat(tabs.new_page(), web)
    one.say("My name is Ada.", "Nice to meet you, Ada!")
    two = Chat(tabs.new_page(), web, one.session)
    expect(two.rows.last).to_contain_text("Nice to meet you, Ada!")
    held: list[Route] = []

    def send_both(route: Route) -> None:
        held.append(route)
        for each in held if len(held) == 2 else ():
            each.continue_()

    tabs.route("**/run_sse", send_both)
    with (
        one.page.expect_response("**/run_sse") as first,
        two.page.expect_response("**/run_sse") as second,
    ):
        one.send("What is my name?")
        two.send("Remember that the door code is 42.")
    first.value.finished()
    second.value.finished()
    expect(one.rows.last).to_contain_text("Your name is Ada.")
    expect(two.rows.last).to_contain_text("door code is 42")
    events = web.session(one.session)["events"]
    # Each turn is a message, a call of a tool, its result and an answer.
    assert [event["author"] == "user" for event in events] == [True, False, False, False] * 3
    for tab in (one, two):
        tab.page.reload()
        expect(tab.rows).to_have_count(len(events))
