"""The pages in headless Chromium on a telephone's screen: used without scripts, and checked by axe in both languages.

With IVR_SHOTS=FOLDER every page that axe sees is also kept there as a picture (``make shots``).
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from people_support import OTHER_PIN, PIN, WRONG_PIN, add_person, appoint, now, pay, request_of, run_code_jobs
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import select
from werkzeug.serving import make_server

from ivr.app import create_app
from ivr.approval import addresses, appointments, freezes, policies, requests
from ivr.approval.links import reveal
from ivr.approval.models import Answer, ApprovalRequest, Link
from ivr.approval.policy import Policy, Role, Rule, When
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.console.people.guard import blueprint
from ivr.console.people.words import Words, texts
from ivr.customers.models import Customer, Notice
from ivr.keys import Keyring
from ivr.locales import LOCALES
from ivr.services import Services
from ivr.settings import Settings
from ivr.store.db import Database

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TELEPHONE = {"width": 390, "height": 844}
SHOTS = Path(os.environ["IVR_SHOTS"]) if os.environ.get("IVR_SHOTS") else None


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("no Chromium: these pages were not looked at in a browser (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # --no-sandbox: Chromium refuses to run as root, as in a container, with it
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """One kind is enough here: what the pages do is tested on both without a browser."""
    path = tmp_path / "ivr.sqlite3"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@pytest.fixture
def url(settings: Settings, database: Database, redis_client: redis.Redis, keyring: Keyring) -> Iterator[str]:
    """The service, on a real server; a browser sends its cookies over http as it does over https."""
    server = make_server("127.0.0.1", 0, Flask(__name__), threaded=True)
    address = f"http://127.0.0.1:{server.server_port}"
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, None, None, utc_now)  # type: ignore[arg-type]
    engine = Engine(calls, database, judge, utc_now)
    settings = settings.model_copy(update={"public_url": address})
    server.app = create_app(settings, Services(settings, database, calls, engine, judge, None))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Visit:
    """One person at one browser."""

    page: Page
    url: str
    database: Database
    keyring: Keyring
    locale: str

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def fill(self, key: str, value: str) -> None:
        self.page.get_by_label(texts(self.locale)[key]).fill(value)

    def press(self, key: str, **values: str) -> None:
        self.page.get_by_role("button", name=Words(self.locale)(key, **values), exact=True).click()

    def sees(self, key: str, **values: str) -> bool:
        return Words(self.locale)(key, **values) in self.page.inner_text("main")

    def sign_in(self, customer: Customer) -> None:
        self.open("/my/")
        self.fill("start.number", customer.number)
        self.press("start.go")
        run_code_jobs(self.database)
        self.fill("code.code", str(self._sent(customer, "page.code")["code"]))
        self.press("code.go")

    def link(self, customer: Customer) -> str:
        return str(self._sent(customer, "approval.ask")["link"])

    def _sent(self, customer: Customer, template: str) -> dict[str, object]:
        with self.database.transaction() as session:
            query = select(Notice).where(Notice.customer_id == customer.id, Notice.template == template)
            notice = session.scalars(query.order_by(Notice.created_at.desc()).limit(1)).one()
            return reveal(notice.values, self.keyring, self.url)


@pytest.fixture
def context(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A telephone; its language and whether it runs scripts are the test's."""
    context = chromium.new_context(viewport=TELEPHONE, has_touch=True, **getattr(request, "param", {}))
    yield context
    context.close()


def visit(context: BrowserContext, url: str, database: Database, keyring: Keyring, locale: str = "en") -> Visit:
    page = context.new_page()
    page.set_default_timeout(60_000)  # however slow the machine is
    return Visit(page, url, database, keyring, locale)


NO_SCRIPTS, CHINESE = {"java_script_enabled": False}, {"locale": "zh-CN"}


@pytest.mark.parametrize("context", [NO_SCRIPTS], indirect=True)
def test_without_scripts_she_signs_in_and_refuses(
    context: BrowserContext, url: str, database: Database, keyring: Keyring
) -> None:
    with database.transaction() as session:
        ward, guardian = add_person(session, keyring), add_person(session, keyring, pin=OTHER_PIN)
        appoint(session, Role.GUARDIAN, ward, guardian)
        request_id = request_of(session, pay(session, ward))
    here = visit(context, url, database, keyring)
    here.sign_in(guardian)
    here.page.get_by_text("City Water").click()
    assert here.sees("request.talk", label="Grandma")
    here.fill("pin", WRONG_PIN)
    here.press("request.refuse")
    assert here.sees("error.pin")
    here.fill("pin", OTHER_PIN)
    here.page.get_by_label(texts("en")["pin"]).press("Enter")  # decides nothing
    here.press("request.refuse")
    assert here.sees("result.refused")
    with database.transaction() as session:
        assert session.get_one(ApprovalRequest, request_id).state == "refused"
    here.press("sign_out")
    here.open("/my/requests")
    assert here.sees("error.signed_out")


@pytest.mark.parametrize("context", [{}, CHINESE], indirect=True, ids=["en", "zh"])
def test_she_opens_a_link_and_approves(
    context: BrowserContext, url: str, database: Database, keyring: Keyring, request: pytest.FixtureRequest
) -> None:
    locale = request.node.callspec.id
    with database.transaction() as session:
        ward, guardian = add_person(session, keyring), add_person(session, keyring, pin=OTHER_PIN, locale=locale)
        appoint(session, Role.GUARDIAN, ward, guardian)
        request_id = request_of(session, pay(session, ward, 1_500, ship_to="1 Main Street"))
    here = visit(context, url, database, keyring, locale)
    here.page.goto(here.link(guardian))
    assert "City Water" not in here.page.content()
    here.fill("pin", OTHER_PIN)
    here.press("link.go")
    assert here.page.url.endswith(f"/my/requests/{request_id}")
    here.page.get_by_label(texts(locale)["request.add_address"]).check()
    here.fill("request.address_label", "Home")
    here.fill("pin", OTHER_PIN)
    here.press("request.approve")
    assert here.sees("result.approved")
    with database.transaction() as session:
        assert session.get_one(ApprovalRequest, request_id).state == "approved"
        assert [a.label for a in addresses.book(session, ward.id)] == ["Home"]
        assert session.scalars(select(Link.used_at).where(Link.request_id == request_id)).one() is not None


def test_another_sites_form_is_refused(
    context: BrowserContext, url: str, database: Database, keyring: Keyring
) -> None:
    """A page elsewhere that posts with her cookies in the browser: it has neither them nor our token."""
    with database.transaction() as session:
        ward, guardian = add_person(session, keyring), add_person(session, keyring, pin=OTHER_PIN)
        appoint(session, Role.GUARDIAN, ward, guardian)
        request_id = request_of(session, pay(session, ward))
    here = visit(context, url, database, keyring)
    here.sign_in(guardian)
    form = (
        f'<form method="post" action="{url}/my/requests/{request_id}"><input name="pin" value="{OTHER_PIN}">'
        '<button name="answer" value="approve">Win</button></form>'
    )
    context.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    here.page.goto("http://evil.example/")
    here.page.get_by_role("button", name="Win").click()
    assert here.sees("error.elsewhere")
    with database.transaction() as session:
        assert session.get_one(ApprovalRequest, request_id).state == "open"


def gallery(database: Database, keyring: Keyring, locale: str) -> tuple[list[Customer], dict[str, tuple[int, str]]]:
    """Who signs in, and every page, as (who of them, path)."""
    names = {"en": ("Grandma", "Tom", "Paul"), "zh": ("外婆", "小明", "老王")}[locale]
    with database.transaction() as session:
        ward, minor, free, asker = (add_person(session, keyring, locale=locale, minor=n == 1) for n in range(4))
        guardian, other = (add_person(session, keyring, pin=OTHER_PIN, locale=locale) for _ in range(2))
        of_ward = appoint(session, Role.GUARDIAN, ward, guardian, names[0])
        appoint(session, Role.GUARDIAN, ward, other, names[0])
        of_minor = appoint(session, Role.GUARDIAN, minor, guardian, names[1])
        of_free = appoint(session, Role.SUPERVISOR, free, guardian, names[2], currency="USD", above_minor=10_000)
        proposed = appointments.propose(
            session, Role.SUPERVISOR, ward_id=asker.id, approver_id=guardian.id, label=names[0], who="test", now=now()
        ).id
        addresses.add(session, ward.id, "Home", "12 Garden Road, Springfield", who="test", now=now())
        pay(session, ward, 1_250, ship_to="12 Garden Road, Springfield", merchant="Corner Bookshop")
        waits = request_of(session, pay(session, ward, 1_990, ship_to="48 Harbour Street", merchant="Radio Shop"))
        request_of(session, pay(session, free, 25_000, merchant="Quick Loans Ltd"))
        done = request_of(session, pay(session, ward, 5_000, merchant="City Water"))
        late = request_of(session, pay(session, ward, 7_000, merchant="Flower Shop"))
        session.get_one(ApprovalRequest, late).expires_at = now()
        casino = Rule(name="no casino", when=When(kinds=frozenset({"casino"})), refuse=True)
        policies.put(session, minor.id, Policy(name="own", rules=(casino,)), who="test", now=now())
        freezes.freeze(session, minor.id, who="test", now=now())
        requests.answer(session, done, guardian.id, Answer.APPROVE, verified_by="pin, page", now=now())
    pages = {
        "start": (-1, "/my/"),
        "link": (-1, "/my/l/" + "0" * 48),
        "nothing": (-1, "/my/nothing"),
        "requests": (0, "/my/requests"),
        "request": (0, f"/my/requests/{waits}"),
        "request-approved": (0, f"/my/requests/{done}"),
        "request-expired": (0, f"/my/requests/{late}"),
        "wards": (0, "/my/wards"),
        "ward": (0, f"/my/wards/{of_ward}"),
        "ward-frozen": (0, f"/my/wards/{of_minor}"),
        "ward-of-a-supervisor": (0, f"/my/wards/{of_free}"),
        "limits": (0, f"/my/wards/{of_ward}/limits"),
        "limits-told": (0, f"/my/wards/{of_minor}/limits"),
        "addresses": (0, f"/my/wards/{of_ward}/addresses"),
        "telling": (0, f"/my/wards/{of_ward}/telling"),
        "voice": (0, f"/my/wards/{of_minor}/voice"),
        "freeze": (0, f"/my/wards/{of_minor}/freeze"),
        "end": (0, f"/my/wards/{of_minor}/end"),
        "appointment": (0, f"/my/appointments/{proposed}"),
        "appointment-active": (0, f"/my/appointments/{of_ward}"),
        "me": (1, "/my/me"),
        "me-frozen": (2, "/my/me"),
        "end-mine": (1, f"/my/me/appointments/{of_free}/end"),
        "pin": (1, "/my/me/pin"),
        "rung": (1, "/my/me/rung"),
        "supervisor-named": (1, "/my/me/supervisor"),
        "supervisor": (2, "/my/me/supervisor"),
    }
    return [guardian, free, minor], pages


@pytest.mark.parametrize("context", [{}, CHINESE], indirect=True, ids=["en", "zh"])
def test_axe_finds_nothing_on_any_page(
    context: BrowserContext, url: str, database: Database, keyring: Keyring, request: pytest.FixtureRequest
) -> None:
    locale = request.node.callspec.id
    people, pages = gallery(database, keyring, locale)
    here, wrong = visit(context, url, database, keyring, locale), {}
    forms = 0

    def look(name: str) -> None:
        found = Axe().run(here.page)
        if found.violations_count:
            wrong[name] = found.generate_report()
        wide = here.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        assert not wide, f"{name} is wider than the screen"
        if SHOTS:
            SHOTS.mkdir(parents=True, exist_ok=True)
            here.page.screenshot(path=SHOTS / f"{locale}-{name}.png", full_page=True)

    for who in sorted({who for who, _ in pages.values()}):
        if who >= 0:
            here.sign_in(people[who])
        for name, (whose, path) in pages.items():
            if whose == who:
                here.open(path)
                look(name)
                forms += here.page.locator("main form").count()
        if who < 0:
            here.open("/my/")
            here.fill("start.number", people[0].number)
            here.press("start.go")
            look("code")
            here.fill("code.code", "000000")
            here.press("code.go")
            look("code-wrong")
        if who == 0:
            here.open(pages["request"][1])
            here.fill("pin", PIN)
            here.press("request.approve")
            look("request-wrong-pin")
            here.open(pages["limits"][1])
            here.fill("limits.small", "lots")
            here.fill("pin", OTHER_PIN)
            here.press("save")
            look("limits-wrong")
    assert wrong == {}
    assert forms >= 12  # the pages were there, and not errors instead


def test_the_gallery_shows_every_page(database: Database, keyring: Keyring, url: str) -> None:
    """Every address that the pages have is looked at, in every language."""
    _, shown = gallery(database, keyring, LOCALES[0])
    seen = {re.sub(r"[0-9a-f]{16}", "*", re.sub(r"/l/\w+", "/l/*", path)) for _, path in shown.values()} | {"/my/code"}
    app = Flask(__name__)
    app.register_blueprint(blueprint)
    there = {re.sub(r"<[^>]+>", "*", rule.rule) for rule in app.url_map.iter_rules() if "people." in rule.endpoint}
    # What ends an app's binding is only posted to, and leads back to the list.
    assert there - seen == {"/my/*", "/my/static/*", "/my/out", "/my/me/apps/*/end"}
