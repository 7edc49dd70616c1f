"""The operators' console in headless Chromium: signing in, a call that moves appears, axe finds nothing."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyotp
import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from desk_support import OTHER_SID, PASSWORD, SID, Traces, a_call, add_operator, code, pages_of
from flask import Flask
from playwright.sync_api import BrowserContext, Page, expect
from test_console_people_browser import CHINESE, chromium, context  # noqa: F401  (fixtures)
from werkzeug.serving import make_server

from ivr.app import create_app
from ivr.call import steps
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.console.operators import desk, live
from ivr.console.operators.desk import HERE
from ivr.console.people.words import Words
from ivr.keys import Keyring
from ivr.resources import shipped
from ivr.services import Services
from ivr.settings import Settings
from ivr.store.db import Database

WAIT_MS = 60_000  # however slow the machine is


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """One kind is enough here: what the pages do is tested on both without a browser."""
    path = tmp_path / "ivr.sqlite3"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@pytest.fixture
def served(settings: Settings, database: Database, redis_client: redis.Redis, keyring: Keyring) -> Iterator[Flask]:
    """The service, on a real server; where, is in its settings."""
    server = make_server("127.0.0.1", 0, Flask(__name__), threaded=True)
    update = {
        "public_url": f"http://127.0.0.1:{server.server_port}",
        "digit_model_dir": shipped("models/digits"),
        "digit_model_zh_dir": shipped("models/digits-zh"),
        "voice_model_dir": shipped("models/voice"),
    }
    settings = settings.model_copy(update=update)
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, utc_now)  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, utc_now)
    app = create_app(settings, Services(settings, database, calls, engine, judge, None))  # type: ignore[arg-type]
    server.app = app
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield app
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(served: Flask) -> str:
    return str(served.extensions["ivr"].settings.public_url)


@pytest.fixture
def traces(served: Flask, database: Database, keyring: Keyring) -> Traces:
    return a_call(served, database, keyring)


def sign_in(page: Page, url: str, totp: pyotp.TOTP, t: Words) -> None:
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{url}/desk/")
    page.get_by_label(t("sign_in.name")).fill("ann")
    page.get_by_label(t("sign_in.password")).fill(PASSWORD)
    page.get_by_label(t("sign_in.code"), exact=True).fill(code(totp))
    page.get_by_role("button", name=t("sign_in.go")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(t("nav.calls"), timeout=WAIT_MS)


def test_a_call_that_moves_appears_and_a_lost_connection_comes_again(
    context: BrowserContext, url: str, served: Flask, database: Database, keyring: Keyring,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(live, "LIFE_S", 1.0)  # the connection is lost again and again
    t, page = Words("en", HERE), context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None)
    sign_in(page, url, add_operator(database, keyring, "ann"), t)
    expect(page.get_by_role("status")).to_have_text(t("calls.live.on"), timeout=WAIT_MS)
    expect(page.get_by_text(t("calls.live.none"))).to_be_visible()
    engine, rows = served.extensions["ivr"].engine, page.locator("#live tr")
    engine.ring(SID, "+14155550100", "TN-Validation-Passed-A", "en")
    expect(rows).to_have_count(1, timeout=WAIT_MS)
    expect(rows.first).to_contain_text("card")
    expect(page.get_by_text(t("calls.live.none"))).to_have_count(0)
    page.wait_for_event("response", lambda given: "/desk/events" in given.url, timeout=WAIT_MS)  # it comes again
    engine.ring(OTHER_SID, "+14155550101", "TN-Validation-Passed-A", "en")
    expect(rows).to_have_count(2, timeout=WAIT_MS)
    expect(rows.first).to_contain_text(OTHER_SID)
    engine.end(SID)
    expect(rows.first).to_contain_text(steps.ENDED, timeout=WAIT_MS)
    expect(rows).to_have_count(2)
    rows.first.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(t("call.title", sid=SID), timeout=WAIT_MS)
    assert problems == []


def test_a_thread_is_freed_when_its_browser_goes(url: str, served: Flask, database: Database, keyring: Keyring) -> None:
    totp = add_operator(database, keyring, "ann")
    client = served.test_client()
    token = client.get("/desk/sign-in", base_url=url).text.split('name="csrf_token" value="')[1].split('"')[0]
    form = {"csrf_token": token, "name": "ann", "password": PASSWORD, "code": code(totp)}
    client.post("/desk/sign-in", base_url=url, data=form)
    cookie = client.get_cookie("desk-session", "127.0.0.1", "/desk")
    assert cookie
    slots = served.extensions[desk.EXTENSION].streams
    taken = slots._value
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as there:
        asked = f"GET /desk/events?after=0 HTTP/1.1\r\nHost: x\r\nCookie: desk-session={cookie.value}\r\n\r\n"
        there.sendall(asked.encode())
        assert b"200 OK" in there.recv(4096)
        assert slots._value == taken - 1
    for _ in range(600):  # of a tenth of a second; it is noticed with the second line that nobody takes
        if slots._value == taken:
            return
        time.sleep(0.1)
    pytest.fail("the thread still serves a browser that has gone")


@pytest.mark.parametrize("context", [{}, CHINESE], indirect=True, ids=["en", "zh"])
def test_axe_finds_nothing_on_any_page(
    context: BrowserContext, url: str, database: Database, keyring: Keyring, traces: Traces,  # noqa: F811
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    t, page = Words(request.node.callspec.id, HERE), context.new_page()
    wrong: dict[str, str] = {}

    def look(name: str) -> None:
        found = Axe().run(page)
        if found.violations_count:
            wrong[name] = found.generate_report()
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wrong[f"{name} is wider than the screen"] = ""

    totp = add_operator(database, keyring, "ann")
    add_operator(database, keyring, "zoe")
    page.goto(f"{url}/desk/sign-in")
    look("sign-in")
    sign_in(page, url, totp, t)
    asked = pages_of(traces) | {
        "waiting": f"/desk/payments/{traces.waiting_id}",
        "outside": "/desk/health?outside=1",
        "nothing": "/desk/nothing",
    }
    for name, path in asked.items():
        if name == "desk.plot":
            continue
        page.goto(url + path)
        for size in ({"width": 390, "height": 844}, {"width": 1280, "height": 900}):
            page.set_viewport_size(size)  # type: ignore[arg-type]
            look(f"{name} {size['width']}")
    page.goto(f"{url}/desk/customers/{traces.customer_id}")
    page.get_by_role("button", name=t("customer.unlock")).click()
    expect(page.get_by_text(t("said.unlocked"))).to_be_visible(timeout=WAIT_MS)
    look("unlocked")
    assert wrong == {}
