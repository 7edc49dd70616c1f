"""The proofs and lists of an operator: do records, books and bank agree, what needs a person, what was settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval.models import ApprovalRequest, RequestState
from ivr.customers.models import Bill
from ivr.jobs import Job
from ivr.payments import service
from ivr.payments.bank import StatementLine
from ivr.payments.books import balances
from ivr.payments.debit import LINK_LIFE
from ivr.payments.models import Payment, PaymentEvent, Refund, RefundState, Transfer
from ivr.payments.refunds import REFUND_JOB
from ivr.payments.states import DEBITED, FINAL, MOVES, State

PATIENCE = timedelta(minutes=15)
"""How long a payment may stay undecided before it is listed."""
SETTLEMENT_COLUMNS = ("at", "receipt_number", "payment", "merchant", "kind", "amount_minor", "currency")

_STEPS = {(before, after) for (before, _), after in MOVES.items()}


def problems(
    session: Session, bank: str, statement: Iterable[StatementLine] | None, asked_at: datetime | None = None
) -> Iterator[str]:
    """What does not agree, in words that name the payment; nothing when all does.

    ``session`` reads one moment: a snapshot. ``statement`` is the bank's, asked for at ``asked_at``, before that
    moment: what moved since is compared with it the next time.
    """
    for currency in {currency for _, currency in balances(session)}:
        if total := sum(amount for (_, c), amount in balances(session).items() if c == currency):
            yield f"books: the accounts in {currency} sum to {total}, not to zero"

    steps: dict[str, list[PaymentEvent]] = defaultdict(list)
    for step in session.scalars(select(PaymentEvent).order_by(PaymentEvent.id)):
        steps[step.payment_id].append(step)
    booked: dict[tuple[str, str], int] = defaultdict(int)
    for transfer in session.scalars(select(Transfer)):
        booked[transfer.payment_id, transfer.kind] += transfer.amount_minor
    given_back: dict[str, int] = defaultdict(int)
    under_way: dict[str, int] = defaultdict(int)  # refunds that the bank may have made, and we do not know yet
    for refund in session.scalars(select(Refund).where(Refund.state != RefundState.REFUSED)):
        sums = given_back if refund.state is RefundState.DONE else under_way
        sums[refund.payment_id] += refund.amount_minor
    at_bank: dict[tuple[str, str, str], int] = defaultdict(int)
    for line in statement or ():
        at_bank[line.reference, line.kind, line.currency] += line.amount_minor

    for payment in session.scalars(select(Payment)):
        path = [step.to_state for step in steps[payment.id]]
        came_from = [step.from_state for step in steps[payment.id]]
        if not path or came_from != [None, *path[:-1]] or not set(zip(came_from[1:], path[1:], strict=True)) <= _STEPS:
            yield f"{payment.id}: its history is broken"
        elif path[-1] is not payment.state:
            yield f"{payment.id}: is {payment.state}, and its history ends in {path[-1]}"

        debited = payment.debit_minor if payment.state in DEBITED else 0
        back = given_back[payment.id]
        if booked[payment.id, "post"] != debited:
            yield f"{payment.id}: is {payment.state}, and the books say debited {booked[payment.id, 'post']}"
        if booked[payment.id, "refund"] != back:
            yield f"{payment.id}: refunds of {back}, and the books say {booked[payment.id, 'refund']}"
        if payment.state in FINAL and booked[payment.id, "hold"] != booked[payment.id, "release"]:
            yield f"{payment.id}: is {payment.state}, and the books still hold an amount"
        if payment.state in DEBITED and payment.state is not _after_refunds(payment.debit_minor, back):
            yield f"{payment.id}: is {payment.state} with refunds of {back} of {payment.debit_minor}"

        if statement is not None and payment.bank == bank:
            moved_since = asked_at is not None and payment.updated_at >= asked_at
            for kind, least, most in (("debit", debited, debited), ("refund", back, back + under_way[payment.id])):
                theirs = at_bank.pop((payment.id, kind, payment.currency), 0)
                decided = kind == "refund" or payment.state in FINAL
                if decided and not moved_since and not least <= theirs <= most:
                    yield f"{payment.id}: {kind} of {least} here, of {theirs} at the bank"
    for (reference, kind, currency), amount in at_bank.items():
        yield f"{reference}: {kind} of {amount} {currency} at the bank, of no payment of ours"


class Stuck(NamedTuple):
    """What needs a person: a payment, or one of its refunds; the state it waits in, why, and since when."""

    payment_id: str
    refund_id: str | None
    state: str
    why: str
    since: datetime


def stuck(session: Session, now: datetime) -> list[Stuck]:
    """What needs a person, the oldest first."""
    found: list[tuple[str, str | None, str, datetime, Job | None]] = []
    # Of several jobs of a payment the one that is not done counts; when all are, the last.
    first = f"{service.DEBIT_JOB}:" + Payment.id
    its = Job.dedupe_key.in_([first, *(first + f":{why}" for why in service.DEBITED_AGAIN)])
    debits = select(Payment, Job).outerjoin(Job, its).order_by(Job.done_at.is_(None), Job.done_at)
    latest = {row[0].id: row for row in session.execute(debits.where(Payment.state.not_in(FINAL)))}
    open_until = {
        request.payment_id: request.expires_at
        for request in session.scalars(select(ApprovalRequest).where(ApprovalRequest.state == RequestState.OPEN))
    }
    for payment, job in latest.values():
        since = payment.updated_at
        if payment.state is State.AWAITING and now < open_until.get(payment.id, since) + PATIENCE:
            continue  # for people, who have until then
        if payment.state is State.HELD and payment.hold_expires_at:  # not before the bank lets go by itself
            since = max(since, payment.hold_expires_at)
        if payment.state is State.LINKED:  # not while the customer may still agree
            since += LINK_LIFE
        found.append((payment.id, None, payment.state.value, since, job))
    back = select(Refund, Job).outerjoin(Job, Job.dedupe_key == f"{REFUND_JOB}:" + Refund.id)
    for refund, job in session.execute(back.where(Refund.state == RefundState.REQUESTED)):
        found.append((refund.payment_id, refund.id, refund.state.value, refund.updated_at, job))
    return [
        Stuck(payment_id, refund_id, state, (job.last_error_type if job else "no job") or "waits", since)
        for payment_id, refund_id, state, since, job in sorted(found, key=lambda entry: entry[3])
        if job is None or job.done_at is not None or now - since > PATIENCE
    ]


def settlement(session: Session, day: date) -> Iterator[tuple[str | int | None, ...]]:
    """What was debited and given back on a day in UTC: a row of SETTLEMENT_COLUMNS a transfer, refunds negative."""
    start = datetime.combine(day, time(), UTC)
    query = (
        select(Transfer, Payment.receipt_number, Bill.merchant)
        .join(Payment, Payment.id == Transfer.payment_id)
        .join(Bill, Bill.id == Payment.bill_id)
        .where(Transfer.kind.in_(("post", "refund")), Transfer.at >= start, Transfer.at < start + timedelta(days=1))
        .order_by(Transfer.id)
    )
    for transfer, receipt, merchant in session.execute(query):
        kind, sign = ("debit", 1) if transfer.kind == "post" else ("refund", -1)
        amount = sign * transfer.amount_minor
        yield transfer.at.isoformat(), receipt, transfer.payment_id, merchant, kind, amount, transfer.currency


def _after_refunds(debited_minor: int, given_back_minor: int) -> State:
    if not given_back_minor:
        return State.PAID
    return State.REFUNDED if given_back_minor == debited_minor else State.PART_REFUNDED
