"""What people and machines get to see of a simulated call: ladder, JSON, JUnit, checks, the command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import redis
from click.testing import CliRunner
from rich.console import Console
from simcarrier_stub import SID, TOKEN, Service, recognise, serving, stream
from sqlalchemy import select, update

from ivr.call.models import Turn
from ivr.customers.bills import create_bill
from ivr.customers.models import Audit, Bill, BillStatus, Card, Customer
from ivr.customers.register import add_customer
from ivr.ops.commands.call import command
from ivr.ops.simcarrier import junit, report, run_call
from ivr.ops.simcarrier.checks import Inside, leaks, look, problems_of, unchecked
from ivr.ops.simcarrier.ladder import ladder
from ivr.ops.simcarrier.record import Answered, CallRecord, Dialled, Heard
from ivr.ops.simcarrier.scenario import Scenario, parse
from ivr.payments.models import Payment
from ivr.payments.states import State
from ivr.store.db import Database

PAN = "4539148803436467"
PHONE = "+14155550101"


def scenario(turns: list[dict[str, Any]] | None = None, **end: Any) -> Scenario:
    return parse({"name": "A call", "caller": {"from": PHONE}, "turn": turns or [], "end": end}, "test")


def text_of(record: CallRecord) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(ladder(record))
    return console.export_text()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as service:
        yield service


def keyed_call(service: Service) -> CallRecord:
    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on("/voice/turn/1", "<Say>refused</Say>")
    service.on_stream = lambda socket: socket.until("dtmf", 17) and None
    return run_call(
        scenario([{"expect": "card.ask", "keys": "{card.alice}#"}]),
        base_url=service.url,
        account_sid=SID,
        auth_token=TOKEN,
        speed=100,
        values={"card.alice": PAN},
        recognise=recognise,
    )


def test_the_ladder_tells_who_did_what_and_masks_the_card(service: Service) -> None:
    record = keyed_call(service)
    record.decisions[1] = "again: voice no match -3.2"
    text = text_of(record)
    for words in ("POST /voice/answer → 200", "card.ask", "keys •••• 6467#", "ends the stream", "refused"):
        assert words in text
    assert "decided: again: voice no match -3.2" in text
    assert "the call is over: completed" in text
    assert PAN[:12] not in text


def test_a_record_is_json_and_hides_the_card(service: Service) -> None:
    text = json.dumps(keyed_call(service).as_json(), ensure_ascii=False)
    assert "•••• 6467#" in text
    assert PAN[:12] not in text


def test_junit_names_each_problem(tmp_path: Path) -> None:
    right, wrong = CallRecord("right", "CA1", PHONE), CallRecord("wrong", "CA2", PHONE)
    junit.write(tmp_path / "report.xml", [(right, []), (wrong, ["pay.done was not heard", "no debit"])])
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failures = suite.findall("testcase/failure")
    assert [failure.get("message") for failure in failures] == ["pay.done was not heard"]


def test_the_page_needs_nothing_beside_it_and_tells_the_call(service: Service, tmp_path: Path, now: datetime) -> None:
    record = keyed_call(service)
    record.decisions[1] = "again: voice no match -3.2"
    record.add(Heard(record.events[-1].at_s, "pay.done", "谢谢。<b>&"))
    report.write(tmp_path / "page.html", [(record, [f"the number {PAN} is <here>"])], "Calls", now)
    page = (tmp_path / "page.html").read_text()
    chinese = 'lang="zh">谢谢。&lt;b&gt;&amp;'
    for words in ("0 of 1 calls as they should be", "keys •••• 6467#", "decided: again", chinese):
        assert words in page
    assert PAN[:12] not in page
    assert "the number [masked] is &lt;here&gt;" in page
    assert not re.search(r"<script|<link|<img|url\(|https?://|data:|<audio", page)


PUBLISHED = Path(__file__).parents[1] / "fixtures" / "audio"


def spoken_call(service: Service, *folders: Path, **options: Any) -> CallRecord:
    service.on("/voice/answer", "<Say>card.ask</Say>" + stream(service))
    service.on("/voice/turn/1", "<Say>refused</Say>")
    service.on_stream = lambda socket: socket.until("media", 60) and None
    scenario_ = scenario([{"expect": "card.ask", "play": "alice/yes.wav"}]).model_copy(update={"folder": folders[0]})
    return run_call(
        scenario_, base_url=service.url, account_sid=SID, auth_token=TOKEN, speed=50, recognise=recognise, **options
    )


def test_only_published_recordings_are_drawn_and_only_where_they_are_asked_for(
    service: Service, tmp_path: Path, now: datetime
) -> None:
    (tmp_path / "alice").mkdir()
    shutil.copy(PUBLISHED / "alice" / "yes.wav", tmp_path / "alice")  # somebody's recording: no manifest tells of it
    drawn = spoken_call(service, PUBLISHED, waveforms=True)
    assert [wave.at_s for wave in drawn.waveforms] == [event.at_s for event in drawn.of(Answered)]
    assert spoken_call(service, PUBLISHED).waveforms == []
    assert spoken_call(service, tmp_path, waveforms=True).waveforms == []
    assert "peaks" not in json.dumps(drawn.as_json()) + repr(drawn)
    report.write(tmp_path / "page.html", [(drawn, [])], "Calls", now)
    assert (tmp_path / "page.html").read_text().count('class="wave" d=') == 1


# Checks.


def heard(*prompts: str, mismatch: str | None = None, errors: tuple[str, ...] = ()) -> CallRecord:
    events = [Heard(0.0, prompt, "") for prompt in prompts]
    return CallRecord("A call", "CA1", PHONE, [*events], list(errors), mismatch)


def test_prompts_mismatches_and_errors_are_checked_from_outside() -> None:
    expected = scenario(heard=["pay.done"], never=["refused"], dialled=False, payment="paid", debits=1)
    assert problems_of(expected, heard("pay.done")) == []
    assert problems_of(expected, heard("refused")) == ["pay.done was not heard", "refused was heard"]
    assert problems_of(
        expected, heard("pay.done", mismatch="turn 1 expects a, heard b", errors=("11200",))
    ) == [
        "turn 1 expects a, heard b",
        "11200",
    ]
    dialled = heard("pay.done")
    dialled.add(Dialled(1.0, "+15550100001"))
    assert problems_of(expected, dialled) == ["an agent was dialled"]
    assert unchecked(expected.end) == ["payment", "debits"]


class World:
    """A customer with one open bill, a bank whose books the test writes, and one call."""

    def __init__(self, database: Database, client: redis.Redis, now: datetime, logs: Path) -> None:
        self.books: dict[str, list[dict[str, Any]]] = {"captures": []}
        self.inside = Inside(database, client, lambda: self.books, {"alice": PAN}, logs)
        self.now = now
        self.record = CallRecord("A call", "CA1", PHONE)
        with database.transaction() as session:
            self.customer = add_customer(session, phones=[PHONE], test=True, now=now).id
            self.bill = create_bill(
                session, self.customer, merchant="Water", amount_minor=4210, currency="USD", now=now
            ).id
            card = Card(
                customer_id=self.customer,
                bank_token="tok_1",
                brand="visa",
                exp_year=2030,
                exp_month=1,
                last4="6467",
                pan_hash=b"\0" * 32,
                pan_key_id="k1",
                authorised_by="test",
                authorised_at=now,
                text_version="1",
            )
            session.add(card)
            session.flush()
            self.card = card.id
        self.before = look(self.inside)

    def pay(self, state: State = State.PAID, captures: int = 1) -> None:
        with self.inside.database.transaction() as session:
            payment = Payment(
                bill_id=self.bill,
                customer_id=self.customer,
                card_id=self.card,
                amount_minor=4210,
                currency="USD",
                state=state,
                idempotency_key="call:CA1",
                bank="sandbox",
                bank_idempotency_key="a",
                capture_key="c",
                void_key="v",
                call_sid="CA1",
                evidence={},
                created_at=self.now,
                updated_at=self.now,
            )
            session.add(payment)
            session.flush()
            if state is State.PAID:
                session.execute(update(Bill).values(status=BillStatus.PAID))
            for _ in range(captures):
                self.books["captures"].append(
                    {"id": len(self.books["captures"]) + 1, "reference": payment.id}
                )

    def problems(self, **end: Any) -> list[str]:
        return problems_of(scenario(**end), self.record, self.inside, self.before)


@pytest.fixture
def world(database: Database, redis_client: redis.Redis, now: datetime, tmp_path: Path) -> World:
    (tmp_path / "logs").mkdir()
    return World(database, redis_client, now, tmp_path / "logs")


def test_a_payment_its_bill_and_the_debit_are_checked_at_the_bank(world: World) -> None:
    world.pay()
    assert world.problems(payment="paid", bill="paid", debits=1) == []
    assert world.problems(payment="none", bill="open", debits=0) == [
        "payments of the call: paid, not none",
        "the bill was paid",
        "1 debits in the bank's books, not 0",
    ]


def test_a_bill_debited_twice_is_found(world: World) -> None:
    world.pay(captures=2)
    assert world.problems(payment="paid", debits=1) == ["2 debits in the bank's books, not 1"]


def test_a_debit_for_no_payment_of_ours_is_found(world: World) -> None:
    world.books["captures"].append({"id": 1, "reference": "somebody else's"})
    assert world.problems(debits=0) == ["1 debits in the bank's books, not 0"]


def test_nothing_paid_is_checked_too(world: World) -> None:
    assert world.problems(payment="none", bill="open", debits=0) == []
    assert world.problems(payment="paid", bill="paid", debits=1) == [
        "payments of the call: none, not paid",
        "0 bills were paid, not one",
        "0 debits in the bank's books, not 1",
    ]


def test_a_refused_payment_leaves_the_bill_open(world: World) -> None:
    world.pay(State.REFUSED, captures=0)
    assert world.problems(payment="refused", bill="open", debits=0) == []


def test_earlier_captures_do_not_count(world: World) -> None:
    world.pay()
    world.before = look(world.inside)
    assert world.problems(debits=0) == []


def test_what_the_service_decided_is_shown(world: World) -> None:
    decided = {"end": "complete", "voice": [["no match", -3.21]], "card": False}
    with world.inside.database.transaction() as session:
        session.add(
            Turn(call_sid="CA1", step=1, at=world.now, state="card", event="again", decisions=decided)
        )
    world.problems()
    assert world.record.decisions == {1: "again: voice no match -3.2, card wrong"}


@pytest.mark.parametrize(
    "kept",
    [
        PAN,
        "4539 1488 0343 6467",
        "4539-1488-0343-6467",
        "Four five three nine one four eight eight oh three four three six four six seven",
    ],
)
def test_a_card_number_is_found_wherever_it_stands(world: World, kept: str) -> None:
    assert list(leaks(world.inside)) == []
    with world.inside.database.transaction() as session:
        customer = session.scalars(select(Customer)).one()
        session.add(Audit(at=world.now, who="x", what="y", subject=customer.id, details={"note": [kept]}))
    world.inside.redis.hset("call:{CA1}", "answer:1", f"digits {kept}")
    world.inside.redis.set(kept, "1")
    assert world.inside.logs
    (world.inside.logs / "service.log").write_text(f'{{"event": "turn", "text": "{kept}"}}\n')
    places = [place for name, place in leaks(world.inside) if name == "alice"]
    assert places[0] == "the log service.log"
    assert {"the table audit", "the Redis key call:{CA1}"} <= set(places)
    assert len(places) == 4
    assert all(PAN not in place.replace(" ", "").replace("-", "") for place in places)


# The command.


def test_the_command_plays_scenarios_and_reports(service: Service, tmp_path: Path, monkeypatch: Any) -> None:
    from ivr.settings import settings

    monkeypatch.setenv("IVR_ACCOUNT_SID", SID)
    monkeypatch.setenv("IVR_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("IVR_DIGIT_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("IVR_VOICE_MODEL_DIR", str(tmp_path))
    settings.cache_clear()
    service.on("/voice/answer", "<Say>One moment, please.</Say>")
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('name = "good"\n[caller]\nfrom = "+1"\n[end]\nheard = ["pay.wait"]\npayment = "none"\n')
    bad.write_text('name = "bad"\n[caller]\nfrom = "+1"\n[end]\nheard = ["pay.done"]\n')
    common = ["--url", service.url, "--speed", "100"]
    try:
        passed = CliRunner().invoke(command, [str(good), *common])
        reports = ["--json", "r.json"], ["--junit", "r.xml"], ["--report", "r.html"]
        reports = [part for option, name in reports for part in (option, str(tmp_path / name))]
        failed = CliRunner().invoke(command, [str(good), str(bad), *common, *reports])
    finally:
        settings.cache_clear()
    assert passed.exit_code == 0, passed.output
    assert "not visible from outside, and not checked: payment" in passed.output
    assert failed.exit_code == 1
    assert "WRONG pay.done was not heard" in failed.output
    assert "1 of 2 calls as they should be" in failed.output
    assert [call["problems"] for call in json.loads((tmp_path / "r.json").read_text())] == [
        [],
        ["pay.done was not heard"],
    ]
    assert ElementTree.parse(tmp_path / "r.xml").getroot().get("failures") == "1"
    assert f"Calls to {service.url}" in (tmp_path / "r.html").read_text()


def test_the_command_names_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "call.toml"
    path.write_text('name = "x"\n[caller]\nfrom = "+1"\n[[turn]]\nsings = "la"\n')
    result = CliRunner().invoke(command, [str(path), "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert f"{path}: turn 1, sings: no such key" in result.output
