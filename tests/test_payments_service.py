from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from payments_support import Payer, add_payer, confirm
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from ivr.customers.bills import InvalidBill, cancel_bill, open_bills
from ivr.customers.models import Bill, BillStatus, Card, new_id
from ivr.jobs import Job
from ivr.payments import service
from ivr.payments.models import AppendOnly, Payment, PaymentEvent
from ivr.payments.receipts import new_receipt_number
from ivr.payments.states import Event, IllegalMove, State
from ivr.speech.pan import luhn_valid
from ivr.store.db import Database


@pytest.fixture
def payer(database: Database) -> Payer:
    with database.transaction() as session:
        return add_payer(session)


def test_a_payment_its_history_and_its_job_begin_together(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        payment = confirm(session, payer)
    with database.transaction() as session:
        assert service.payment_by_key(session, "key").id == payment.id  # type: ignore[union-attr]
        assert (payment.amount_minor, payment.currency, payment.state) == (4210, "USD", State.CREATED)
        keys = {payment.bank_idempotency_key, payment.capture_key, payment.void_key}
        assert len(keys) == 3
        assert all(keys)
        assert session.scalar(select(PaymentEvent.who)) == "call:CA1"
        assert session.scalar(select(Job.payload)) == {"payment_id": payment.id}


def test_the_same_key_from_eight_threads_is_one_payment(database: Database, payer: Payer) -> None:
    together = threading.Barrier(8)

    def pay(_: int) -> str:
        together.wait()
        with database.transaction() as session:
            return confirm(session, payer).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(pay, range(8)))) == 1
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Payment)) == 1
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_other_keys_from_eight_threads_are_one_payment_and_seven_errors(
    database: Database, payer: Payer
) -> None:
    together = threading.Barrier(8)

    def pay(i: int) -> bool:
        together.wait()
        try:
            with database.transaction() as session:
                confirm(session, payer, f"key-{i}")
                return True
        except service.BillNotOpen:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(pay, range(8))) == [False] * 7 + [True]


def test_the_database_itself_allows_one_live_payment_a_bill(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        first = confirm(session, payer)
        columns = {column.key: getattr(first, column.key) for column in Payment.__table__.columns}
    other = {"id": new_id(), "idempotency_key": "other", "receipt_number": None}
    other |= {name: new_id() for name in ("bank_idempotency_key", "capture_key", "void_key")}
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.add(Payment(**columns | other))
    with database.transaction() as session:
        session.get_one(Payment, first.id).state = State.REFUSED
    with database.transaction() as session:
        session.add(Payment(**columns | other))


def test_the_same_key_for_something_else_is_an_error(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        confirm(session, payer)
        other = add_payer(session)
        with pytest.raises(service.IdempotencyConflict):
            confirm(session, other)


@pytest.mark.parametrize("bill_status", [BillStatus.PAID, BillStatus.CANCELLED])
def test_only_an_open_bill_is_paid(database: Database, payer: Payer, bill_status: BillStatus) -> None:
    with database.transaction() as session:
        session.get_one(Bill, payer.bill_id).status = bill_status
        with pytest.raises(service.BillNotOpen):
            confirm(session, payer)


LIVE = [State.CREATED, State.DEBITING, State.AUTHORISED, State.UNKNOWN]


@pytest.mark.parametrize("state", LIVE)
def test_a_bill_whose_payment_is_under_way_is_neither_offered_nor_paid_twice_nor_cancelled(
    database: Database, payer: Payer, state: State
) -> None:
    with database.transaction() as session:
        payment = confirm(session, payer)
        payment.state = state
        session.flush()
        assert open_bills(session, payer.customer_id) == []
        with pytest.raises(service.BillNotOpen):
            confirm(session, payer, key="another")
        with pytest.raises(InvalidBill, match="under way"):
            cancel_bill(session, payer.bill_id)


@pytest.mark.parametrize("state", [State.REFUSED, State.VOIDED])
def test_a_bill_whose_payment_failed_is_offered_again(database: Database, payer: Payer, state: State) -> None:
    with database.transaction() as session:
        confirm(session, payer).state = state
        session.flush()
        assert [bill.id for bill in open_bills(session, payer.customer_id)] == [payer.bill_id]
        assert confirm(session, payer, key="another").state is State.CREATED


def test_only_ones_own_bill_is_paid_with_ones_own_card(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        other = add_payer(session)
        with pytest.raises(service.BillNotOpen):
            confirm(session, replace(payer, bill_id=other.bill_id))
        with pytest.raises(service.CardNotAuthorised):
            confirm(session, replace(payer, card_id=other.card_id))
        with pytest.raises(service.BillNotOpen):
            confirm(session, replace(payer, bill_id="none"))


@pytest.mark.parametrize("change", [{"revoked_at": datetime.now(UTC)}, {"exp_year": 2020}])
def test_a_revoked_or_expired_card_does_not_pay(
    database: Database, payer: Payer, change: dict[str, object]
) -> None:
    with database.transaction() as session:
        session.execute(update(Card).values(**change))
        with pytest.raises(service.CardNotAuthorised):
            confirm(session, payer)


def test_the_limits_of_the_call_and_of_the_card_hold(database: Database) -> None:
    with database.transaction() as session:
        payer = add_payer(session, amount_minor=5000, limit_minor=5000)
        with pytest.raises(service.AmountAboveLimit):
            confirm(session, payer, limit_minor=4999)
        session.get_one(Card, payer.card_id).limit_minor = 4999
        with pytest.raises(service.AmountAboveLimit):
            confirm(session, payer)
        session.get_one(Card, payer.card_id).limit_minor = 5000
        assert confirm(session, payer, limit_minor=5000).state is State.CREATED


def test_play_money_is_for_test_customers_only(database: Database) -> None:
    with database.transaction() as session:
        payer = add_payer(session, test=False)
        with pytest.raises(service.WrongBank):
            confirm(session, payer)


def test_evidence_with_a_card_number_is_refused(database: Database, payer: Payer) -> None:
    with database.transaction() as session, pytest.raises(ValueError, match="evidence") as caught:
        service.start_payment(
            session,
            bill_id=payer.bill_id,
            customer_id=payer.customer_id,
            card_id=payer.card_id,
            idempotency_key="key",
            call_sid="CA1",
            evidence={"heard": "4242 4242 4242 4242"},
            now=datetime.now(UTC),
        )
    assert "4242" not in str(caught.value)


def test_an_illegal_move_changes_nothing(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        payment = confirm(session, payer)
        with pytest.raises(IllegalMove):
            service.apply(session, payment, Event.CAPTURE, who="test", why="test", now=datetime.now(UTC))
        assert payment.state is State.CREATED


def test_the_history_cannot_be_changed(database: Database, payer: Payer) -> None:
    with database.transaction() as session:
        confirm(session, payer)
    with pytest.raises(AppendOnly), database.transaction() as session:
        session.scalars(select(PaymentEvent)).one().why = "something else"
    with pytest.raises(AppendOnly), database.transaction() as session:
        session.delete(session.scalars(select(PaymentEvent)).one())


def test_a_receipt_number_is_seven_digits_with_a_check_digit(database: Database) -> None:
    with database.transaction() as session:
        numbers = {new_receipt_number(session) for _ in range(20)}
    assert len(numbers) == 20
    assert all(len(number) == 7 and luhn_valid(number) for number in numbers)


def test_a_receipt_number_gets_an_eighth_digit_when_those_of_seven_are_used_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ivr.payments.receipts.secrets.randbelow", lambda _: 5)
    with database.transaction() as session:
        payment = confirm(session, add_payer(session))
        payment.receipt_number = first = new_receipt_number(session)
        session.flush()
        second = new_receipt_number(session)
    assert (len(first), len(second)) == (7, 8)
    assert luhn_valid(second)


def test_a_bill_cancelled_since_the_call_read_it_is_not_paid(postgresql: Database) -> None:
    with postgresql.transaction() as session:
        payer = add_payer(session)
    with postgresql.transaction() as session:
        bill = session.get_one(Bill, payer.bill_id)
        assert bill.status is BillStatus.OPEN
        with postgresql.transaction() as operator:
            cancel_bill(operator, payer.bill_id)
        with pytest.raises(service.BillNotOpen):
            confirm(session, payer, f"after {payer.bill_id}")
