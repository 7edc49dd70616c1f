"""The operators' console without a browser: who may come where, what is shown and masked, what is audited."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from html import unescape
from pathlib import Path
from string import Formatter

import pyotp
import pytest
from desk_support import OTHER_SID, PAN, PASSWORD, SID, DeskBrowser, Traces, a_call, add_operator, code, pages_of
from flask import Flask
from people_support import now as real_now
from sqlalchemy import select

from ivr.app import create_app
from ivr.call import steps
from ivr.console import operators
from ivr.console.operators import accounts, sessions
from ivr.console.operators.guard import NEEDS, OPEN, blueprint
from ivr.console.operators.live import MOST_STREAMS
from ivr.console.operators.markdown import to_html
from ivr.console.operators.models import Operator, OperatorSession, Role
from ivr.console.people.words import texts
from ivr.customers import budget
from ivr.customers.errors import InvalidInput
from ivr.customers.models import Audit, Customer
from ivr.keys import Keyring, rotate
from ivr.locales import LOCALES
from ivr.ops.twilio.checks import State as Finding
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.store.db import Database
from voiceprint.sealing import key_id_of

pytest_plugins = ["people_fixtures"]

HERE = Path(operators.__file__).parent
POSTS = {"desk.unlock": "/desk/customers/{}/unlock", "desk.disable": "/desk/operators/{}/disable"}


@pytest.fixture
def console(pages: Flask, settings: Settings) -> Flask:
    """The same application, with the models that ship."""
    given = {"digit_model_dir": "models/digits", "voice_model_dir": "models/voice"}
    update = {name: shipped(folder) for name, folder in given.items()} | {"digit_model_zh_dir": None}
    services = pages.extensions["ivr"]
    object.__setattr__(services, "settings", settings.model_copy(update=update))
    return create_app(services.settings, services)


@pytest.fixture
def traces(console: Flask, database: Database, keyring: Keyring) -> Traces:
    return a_call(console, database, keyring)


@pytest.fixture
def at_desk(console: Flask, database: Database, keyring: Keyring) -> Callable[[], DeskBrowser]:
    return lambda: DeskBrowser(console.test_client(), database, keyring)


def audited(database: Database, what: str) -> list[Audit]:
    with database.transaction() as session:
        return list(session.scalars(select(Audit).where(Audit.what == what).order_by(Audit.at)))


# Signing in


def test_a_code_is_accepted_once_and_half_a_minute_off_at_most(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    totp = add_operator(database, keyring, "ann")

    def proved(steps: int, password: str = PASSWORD, at: datetime = now) -> bool:
        with database.transaction() as session:
            return accounts.prove(session, "ann", password, code(totp, steps, now), keyring, at) is not None

    assert not proved(-2)
    assert not proved(2)
    assert not proved(0, password="not hers at all")
    assert proved(-1)
    assert not proved(-1)
    assert proved(1)
    assert not proved(0), "an older code than the last one accepted"
    later = now + timedelta(hours=1)
    assert not proved(1, at=later)


def test_wrong_tries_make_her_wait_ever_longer_and_never_very_long(
    database: Database, keyring: Keyring, now: datetime
) -> None:
    totp = add_operator(database, keyring, "ann")

    def proved(password: str, at: datetime) -> bool:
        with database.transaction() as session:
            return accounts.prove(session, "ann", password, code(totp, 0, at), keyring, at) is not None

    for _ in range(accounts.FREE_FAILURES):
        assert not proved("wrong", now)
    assert not proved(PASSWORD, now), "she waits"
    with database.transaction() as session:
        assert session.scalars(select(Operator)).one().failures == accounts.FREE_FAILURES, "not counted meanwhile"
    assert proved(PASSWORD, now + accounts.FIRST_WAIT)
    with database.transaction() as session:
        assert session.scalars(select(Operator)).one().failures == 0
    assert accounts.wait_after(1_000) == accounts.LONGEST_WAIT


def test_neither_password_nor_secret_lies_in_the_database(database: Database, keyring: Keyring) -> None:
    totp = add_operator(database, keyring, "ann")
    with database.transaction() as session:
        ann = session.scalars(select(Operator)).one()
        assert ann.password_hash.startswith("$argon2id$")
        assert totp.secret.encode() not in ann.totp_sealed
        assert totp.secret not in repr(accounts.reset(session, "ann", PASSWORD, keyring, who="t", now=real_now()))


def test_a_second_factor_is_sealed_anew_after_a_rotation(
    database: Database, keyring: Keyring, settings: Settings, now: datetime
) -> None:
    totp = add_operator(database, keyring, "ann")
    newer = rotate(settings, accounts.KEY)
    for steps_later in (0, 1):
        with database.transaction() as session:
            assert accounts.prove(session, "ann", PASSWORD, code(totp, steps_later, now), Keyring.load(settings), now)
            assert key_id_of(session.scalars(select(Operator)).one().totp_sealed) == newer


@pytest.mark.parametrize(
    ("name", "password"), [("Ann", PASSWORD), ("a", PASSWORD), ("bob", "short"), ("ann", PASSWORD)]
)
def test_what_is_no_account(database: Database, keyring: Keyring, name: str, password: str) -> None:
    add_operator(database, keyring, "ann")
    with database.transaction() as session, pytest.raises(InvalidInput):
        accounts.add(session, name, Role.VIEWER, password, keyring, who="test", now=real_now())


def test_signing_in_tells_nothing_but_that_it_failed(
    at_desk: Callable[[], DeskBrowser], database: Database, keyring: Keyring
) -> None:
    totp = add_operator(database, keyring, "ann")
    here = at_desk()
    right = code(totp)
    here.try_to_enter("ann", PASSWORD, right)
    assert here.path == "/desk/"
    answers = set()
    for name, password, given in (
        ("ann", PASSWORD, right),  # replayed
        ("ann", PASSWORD, "000000"),
        ("ann", PASSWORD, ""),
        ("ann", "wrong", code(totp, 1)),
        ("nobody", PASSWORD, code(totp, 1)),
        ("ann'--", PASSWORD, "١٢٣٤٥٦"),
    ):
        there = at_desk()
        given_back = there.try_to_enter(name, password, given)
        assert given_back.status_code == 403
        answers.add(re.sub(r'value="[^"]+"', "", there.text))
        there.get("/desk/")
        assert there.path == "/desk/sign-in"
    assert len(answers) == 1
    assert len(audited(database, "console.not_signed_in")) == 6
    assert [row.who for row in audited(database, "console.signed_in")] == ["operator ann (console)"]


def test_an_address_may_try_so_often(at_desk: Callable[[], DeskBrowser], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ivr.console.operators.sign_in.TRIES_AN_ADDRESS_AN_HOUR", 2)
    statuses = [at_desk().try_to_enter("nobody", PASSWORD, "000000").status_code for _ in range(3)]
    assert statuses == [403, 403, 429]


@pytest.mark.parametrize("changed", ["seen_at", "created_at", "disabled", "role", "signed out"])
def test_a_session_ends(at_desk: Callable[[], DeskBrowser], database: Database, keyring: Keyring, changed: str) -> None:
    here = at_desk()
    here.enter("ann")
    with database.transaction() as session:
        row = session.scalars(select(OperatorSession)).one()
        if changed == "seen_at":
            row.seen_at -= sessions.IDLE
        elif changed == "created_at":
            row.created_at -= sessions.LIFE
        elif changed == "disabled":
            accounts.disable(session, "ann", who="test", now=real_now())
        elif changed == "role":
            accounts.set_role(session, "ann", Role.VIEWER, who="test", now=real_now())
    if changed == "signed out":
        here.post("/desk/sign-out")
    here.get("/desk/payments")
    assert here.path == "/desk/sign-in"


def test_a_disabled_operator_cannot_sign_in_until_she_is_reset(
    at_desk: Callable[[], DeskBrowser], database: Database, keyring: Keyring
) -> None:
    totp = add_operator(database, keyring, "ann")
    with database.transaction() as session:
        accounts.disable(session, "ann", who="test", now=real_now())
    here = at_desk()
    assert here.try_to_enter("ann", PASSWORD, code(totp)).status_code == 403
    with database.transaction() as session:
        secret = accounts.reset(session, "ann", PASSWORD + "!", keyring, who="test", now=real_now())
    new = pyotp.parse_uri(secret.uri)
    assert isinstance(new, pyotp.TOTP)
    assert here.try_to_enter("ann", PASSWORD, code(new)).status_code == 403
    here.try_to_enter("ann", PASSWORD + "!", code(new, 1))
    assert here.path == "/desk/"


def test_the_live_page_alone_does_not_keep_her_signed_in(
    at_desk: Callable[[], DeskBrowser], database: Database
) -> None:
    here = at_desk()
    here.enter("ann")
    with database.transaction() as session:
        row = session.scalars(select(OperatorSession)).one()
        row.seen_at = before = row.seen_at - timedelta(minutes=20)
    here.client.get("/desk/events?after=0", base_url="https://pay.example.com", buffered=False).close()
    with database.transaction() as session:
        assert session.scalars(select(OperatorSession.seen_at)).one() == before
    here.get("/desk/payments")
    with database.transaction() as session:
        assert session.scalars(select(OperatorSession.seen_at)).one() > before


# Roles, posts, headers


def test_every_page_names_who_may_see_it(console: Flask) -> None:
    there = {rule.endpoint for rule in console.url_map.iter_rules() if rule.endpoint.startswith("desk.")}
    assert there == set(NEEDS) | OPEN
    assert set(pages_of(Traces("", "", "", ""))) | set(POSTS) | {"desk.events"} == set(NEEDS)


def test_who_may_what() -> None:
    operators_only, admins_only = {"desk.unlock"}, {"desk.operators", "desk.disable"}
    assert {e for e in NEEDS if not Role.VIEWER.may(NEEDS[e])} == operators_only | admins_only
    assert {e for e in NEEDS if not Role.OPERATOR.may(NEEDS[e])} == admins_only
    assert all(Role.ADMIN.may(needed) for needed in NEEDS.values())


@pytest.mark.parametrize("role", [None, *Role])
def test_each_role_sees_what_it_may(
    at_desk: Callable[[], DeskBrowser], database: Database, keyring: Keyring, traces: Traces, role: Role | None
) -> None:
    add_operator(database, keyring, "zoe", Role.VIEWER)
    here = at_desk()
    if role:
        here.enter("ann", role)
    else:
        here.get("/desk/sign-in")
    token = re.search(r'name="csrf_token" value="([^"]+)"', here.text)
    assert token
    for endpoint, path in pages_of(traces).items():
        given = here.client.get(path, base_url="https://pay.example.com")
        if role is None:
            assert given.location == "/desk/sign-in", endpoint
        else:
            assert given.status_code == (200 if role.may(NEEDS[endpoint]) else 403), endpoint
        assert "script-src 'self'" in given.headers["Content-Security-Policy"]
        assert given.headers["Cache-Control"] == "no-store"
    for endpoint, path in POSTS.items():
        given = here.post(path.format("zoe" if endpoint == "desk.disable" else traces.customer_id), token[1])
        if role is None:
            assert here.path == "/desk/sign-in"
        else:
            assert given.status_code == (200 if role.may(NEEDS[endpoint]) else 403), (endpoint, here.text)
    with database.transaction() as session:
        disabled = session.scalars(select(Operator.disabled_at).where(Operator.name == "zoe")).one()
        assert (disabled is not None) == (role is Role.ADMIN)
        locked = budget.is_locked(session, traces.customer_id, real_now())
        assert locked == (role not in (Role.OPERATOR, Role.ADMIN))


@pytest.mark.parametrize("how", ["no token", "wrong token", "another site"])
def test_what_another_site_posts_is_refused(
    at_desk: Callable[[], DeskBrowser], database: Database, traces: Traces, how: str
) -> None:
    here = at_desk()
    here.enter("ann")
    here.get(f"/desk/customers/{traces.customer_id}")
    if how == "another site":
        here.headers["Sec-Fetch-Site"] = "cross-site"
    token = {"no token": "", "wrong token": "abc"}.get(how)
    for path in (f"/desk/customers/{traces.customer_id}/unlock", "/desk/sign-out", "/desk/sign-in", "/desk/customers"):
        assert here.post(path, token).status_code == (403 if how == "another site" else 400)
    with database.transaction() as session:
        assert budget.is_locked(session, traces.customer_id, real_now())


def test_the_cookies_are_the_consoles_own(at_desk: Callable[[], DeskBrowser], pages: Flask) -> None:
    here = at_desk()
    given = here.get("/desk/sign-in")
    assert re.search(r"desk-form=.*Path=/desk", given.headers["Set-Cookie"])
    assert "HttpOnly" in given.headers["Set-Cookie"]
    assert re.search(r"my-form=.*Path=/my", here.get("/my/").headers["Set-Cookie"])


# What is shown


def test_a_customer_is_found_by_her_number_and_unlocked_and_all_of_it_is_audited(
    at_desk: Callable[[], DeskBrowser], database: Database, traces: Traces
) -> None:
    here = at_desk()
    here.enter("ann", Role.OPERATOR)
    here.get("/desk/customers")
    assert here.post("/desk/customers", number=PAN).status_code == 404
    assert PAN not in here.text
    assert here.post("/desk/customers", number="1234567").status_code == 404
    here.post("/desk/customers", number=f"{traces.number[:3]} {traces.number[3:]}")
    assert here.path == f"/desk/customers/{traces.customer_id}"
    assert "5 of 50" in here.text
    here.post(f"{here.path}/unlock")
    assert "Unlocked" in here.text
    assert 'class="second"' not in here.text, "nothing to unlock any more"
    with database.transaction() as session:
        assert not budget.is_locked(session, traces.customer_id, real_now())
    (reset,) = audited(database, "budget.reset")
    assert (reset.who, reset.subject) == ("operator ann (console)", traces.customer_id)
    here.get(f"/desk/payments/{traces.payment_id}")
    here.get(f"/desk/calls/{SID}")
    for what in ("customer.viewed", "payment.viewed", "call.viewed"):
        assert {(row.who, row.subject) for row in audited(database, what)} == {
            ("operator ann (console)", traces.customer_id)
        }
    assert len(audited(database, "customer.not_found")) == 2
    here.get(f"/desk/customers/{traces.customer_id}")
    for what in ("customer.viewed", "payment.viewed", "call.viewed", "budget.reset"):
        assert what in here.text, "her audit trail"


def test_a_call_is_a_ladder(at_desk: Callable[[], DeskBrowser], traces: Traces) -> None:
    here = at_desk()
    here.enter("ann", Role.VIEWER)
    assert SID in here.text
    assert OTHER_SID not in here.text
    here.get(f"/desk/calls/{SID}")
    for shown in ("card → one_bill", "confirm → confirmed", "card.ask", "match", "created", "ended", "then: listen"):
        assert shown in here.text, shown
    assert here.get("/desk/calls/CAnothing").status_code == 404


def test_payments_are_filtered_by_state(at_desk: Callable[[], DeskBrowser], traces: Traces) -> None:
    here = at_desk()
    here.enter("ann", Role.VIEWER)
    for query, shown in (
        ("", {traces.payment_id, traces.waiting_id}),
        ("?state=awaiting", {traces.waiting_id}),
        ("?state=refunded", set()),
        ("?state='", {traces.payment_id, traces.waiting_id}),
    ):
        here.get(f"/desk/payments{query}")
        assert {p for p in (traces.payment_id, traces.waiting_id) if p in here.text} == shown, query
    here.get("/desk/approvals")
    assert traces.waiting_id in here.text
    assert traces.payment_id not in here.text


@pytest.mark.parametrize("locale", LOCALES)
def test_no_page_shows_a_card_number(
    at_desk: Callable[[], DeskBrowser], database: Database, traces: Traces, locale: str
) -> None:
    here = at_desk()
    here.headers["Accept-Language"] = locale
    here.enter("ann")
    with database.transaction() as session:
        numbers = [row.e164 for row in session.get_one(Customer, traces.customer_id).caller_ids]
    asked = [path for name, path in pages_of(traces).items() if name != "desk.plot"]
    for path in [*asked, f"/desk/payments/{traces.waiting_id}", "/desk/customers/0", "/desk/nothing"]:
        here.get(path)
        text = unescape(re.sub(r"<[^>]+>", " ", here.text))
        if path != "/desk/models":  # a card's prose tells of digits
            assert "four two four" not in text, path
        assert not re.search(r"4\D{0,3}2\D{0,3}4\D{0,3}2\D{0,3}4\D{0,3}2\D{0,3}4", text), path
        for number in numbers:
            assert number not in text
            assert number[1:] not in text
        assert f'lang="{"zh-Hans" if locale == "zh" else "en"}"' in here.text


def test_models_are_shown_with_figures_and_plots(at_desk: Callable[[], DeskBrowser], traces: Traces) -> None:
    here = at_desk()
    here.enter("ann", Role.VIEWER)
    given = here.get("/desk/models")
    assert "digits-3" in here.text
    assert "<table>" in given.text
    plot = here.client.get("/desk/models/digits/reliability.png", base_url="https://pay.example.com")
    assert plot.data.startswith(b"\x89PNG")
    for path in ("digits/MODEL_CARD.md", "digits/..%2fMODEL_CARD.md", "voice/reliability.png", "x/reliability.png"):
        assert here.get(f"/desk/models/{path}").status_code == 404, path


def test_a_model_card_cannot_run_anything() -> None:
    card = (
        "# Name\n<script>alert(1)</script> [a](javascript:alert(1)) [b](../x.md) [c](https://example.com)\n"
        "![p](p.png) ![q](https://example.com/q.png)\n\n| | a |\n|---|---|\n| <img onerror=x> | b |\n"
    )
    html = str(to_html(card, {"p.png": "/plots/p.png"}))
    assert "<script" not in html
    assert "javascript" not in re.sub(r"\[a\]\(javascript:alert\(1\)\)", "", html)
    assert "<h2>Name</h2>" in html
    assert '<a href="https://example.com">' in html
    assert "x.md" not in html
    assert "<th></th>" not in html
    assert re.findall(r"<img[^>]*>", html) == ['<img src="/plots/p.png" alt="p" />']


def test_health_says_what_fails(at_desk: Callable[[], DeskBrowser]) -> None:
    here = at_desk()
    here.enter("ann", Role.VIEWER)
    here.get("/desk/health")
    for name in ("public URL", "Redis", "database", "bank", "keys"):
        assert f">{name}<" in here.text, name
    assert {f"health.{state.name.lower()}" for state in Finding} <= set(texts("en", HERE))


# Live


def test_what_a_call_does_comes_to_the_live_page(
    at_desk: Callable[[], DeskBrowser], console: Flask, traces: Traces
) -> None:
    here = at_desk()
    here.enter("ann", Role.VIEWER)
    after = re.search(r'data-after="([^"]+)"', here.text)
    assert after
    steps.tell(console.extensions["ivr"].calls.redis, OTHER_SID, 1, "card", real_now())
    given = here.client.get(f"/desk/events?after={after[1]}", base_url="https://pay.example.com", buffered=False)
    assert given.mimetype == "text/event-stream"
    told = iter(given.response)
    assert "retry" in str(next(told))
    event = str(next(told))
    given.close()
    assert OTHER_SID in event
    assert SID not in event, "what was there before is on the page"
    last = re.search(r"id: (\d+-\d+)", event)
    assert last
    steps.tell(console.extensions["ivr"].calls.redis, OTHER_SID, 2, "over", real_now())
    again = {"Last-Event-ID": last[1]}
    given = here.client.get("/desk/events?after=0", base_url="https://pay.example.com", buffered=False, headers=again)
    told = iter(given.response)
    next(told)
    assert '"over"' in str(next(told)), "goes on where the connection was lost"
    given.close()


def test_a_process_has_threads_left_for_calls(at_desk: Callable[[], DeskBrowser]) -> None:
    here = at_desk()
    assert here.get("/desk/events?after=0").status_code == 401
    here.enter("ann", Role.VIEWER)

    def listen():  # type: ignore[no-untyped-def]
        return here.client.get("/desk/events?after=0", base_url="https://pay.example.com", buffered=False)

    many = [listen() for _ in range(MOST_STREAMS)]
    assert {one.status_code for one in many} == {200}
    assert listen().status_code == 503
    many.pop().close()
    many.append(listen())
    assert many[-1].status_code == 200
    for one in many:
        one.close()
    for wrong in ("", "$", "1", "x-1"):
        assert here.get(f"/desk/events?after={wrong}").status_code == 400


def test_a_step_that_cannot_be_told_stops_no_call(redis_client, now: datetime) -> None:  # type: ignore[no-untyped-def]
    redis_client.set(steps.KEY, "no stream")
    steps.tell(redis_client, SID, 1, "card", now)


# Words


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_text_is_used_and_names_the_same_values_in_every_language(locale: str) -> None:
    words, english = texts(locale, HERE), texts("en", HERE)
    assert {key: places(text) for key, text in words.items()} == {key: places(text) for key, text in english.items()}
    source = "".join(path.read_text() for kind in ("html", "py") for path in sorted(HERE.rglob(f"*.{kind}")))
    named = set(re.findall(r"""["']([a-z_0-9]+(?:\.[a-z_0-9]+)*)["']""", source))
    families = {"role": Role, "health": ["ok", "look", "fail"], "ladder": ["service", "caller", "payment"]}
    families["nav"] = re.findall(r'"(\w+)"', re.search(r"for endpoint in \(([^)]+)\)", source)[1])  # type: ignore
    families["error"] = ["400", "403", "404", "405", "413", "429", "500", "503", "form", "elsewhere"]
    made = {f"{family}.{member}" for family, members in families.items() for member in members}
    of_every_page = {"site", "skip", "nav", "sign_out"}
    assert set(words) - named - made - of_every_page == set()
    called = {key for path in HERE.rglob("*.html") for key in re.findall(r'\bt\("([^"]+)"[,)]', path.read_text())}
    assert (called | made) - set(words) == set()


def test_the_blueprint_is_the_desks() -> None:
    assert blueprint.name == "desk"
