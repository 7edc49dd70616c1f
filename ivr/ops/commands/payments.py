"""``ivr payments``: holds, refunds, what needs a person, settlement, and the proof that books and bank agree."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from datetime import datetime

import click
from sqlalchemy import select

from ivr.clock import utc_now
from ivr.customers.models import Bill, new_id
from ivr.customers.money import format_amount
from ivr.customers.text import clean_text
from ivr.ledger.outbox import receipt_of
from ivr.ops import desk
from ivr.payments import holds, refunds, service
from ivr.payments import verify as checks
from ivr.payments.banks import connect
from ivr.payments.models import Payment, PaymentEvent
from ivr.payments.processor import PaymentError
from ivr.payments.states import Event, IllegalMove, State
from ivr.settings import settings

_OUTCOMES = {"paid": Event.CAPTURE, "refused": Event.DECLINE, "voided": Event.VOID}


def _line(what: str, most: int) -> Callable[[click.Context, click.Parameter, str], str]:
    """A check of an option: one line that can be stored, and no card number."""
    return lambda _context, _parameter, given: clean_text(given, what, least=1, most=most)


def _why(help_: str = "Kept in the payment's history.") -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--why", required=True, callback=_line("--why", 200), help=help_)


def _key(help_: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option("--key", default=new_id, callback=_line("--key", 100), help=help_)


@click.group()
def command() -> None:
    """Payments: holds, refunds, what needs a person, settlement, checks."""


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
@click.option("--amount-minor", type=click.IntRange(min=1), help="In minor units; all that is left when omitted.")
@_why()
@_key("Idempotency key: the same key never refunds twice.")
def refund(payment_id: str, amount_minor: int | None, why: str, key: str) -> None:
    """Give a payment back, whole or in part."""
    try:
        with desk.transaction() as session:
            asked = refunds.request_refund(
                session, payment_id, amount_minor, key=key, who=desk.who(), why=why, now=utc_now()
            )
    except PaymentError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"refund {asked.id} of {asked.amount_minor} minor units {asked.state}, key {key}")


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
@click.option("--amount-minor", type=click.IntRange(min=1), help="In minor units; all that is held when omitted.")
@_why()
@_key("Idempotency key: the same key never posts twice.")
def post(payment_id: str, amount_minor: int | None, why: str, key: str) -> None:
    """Debit what is held for a payment, whole or in part; the rest is released."""
    capabilities = connect(settings()).capabilities
    try:
        with desk.transaction() as session:
            amount = holds.post(
                session, payment_id, amount_minor, capabilities, key=key, who=desk.who(), why=why, now=utc_now()
            )
    except PaymentError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"payment {payment_id}: {amount} minor units to be debited, key {key}")


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
@_why()
@_key("Idempotency key: the same key is answered as the first time.")
def release(payment_id: str, why: str, key: str) -> None:
    """Give back what is held for a payment; nothing is debited."""
    try:
        with desk.transaction() as session:
            holds.release(session, payment_id, key=key, who=desk.who(), why=why, now=utc_now())
    except PaymentError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"payment {payment_id}: to be released, key {key}")


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
def show(payment_id: str) -> None:
    """A payment, its history, and where it is on the consortium ledger."""
    with desk.snapshot() as session:
        payment = session.get(Payment, payment_id)
        if payment is None:
            raise click.ClickException(f"there is no payment {payment_id!r}")
        query = select(PaymentEvent).where(PaymentEvent.payment_id == payment_id).order_by(PaymentEvent.id)
        rows = [(desk.minute(line.at), line.to_state, line.who, line.why) for line in session.scalars(query)]
        on_ledger = receipt_of(session, payment_id)
    click.echo(f"payment {payment.id}: {payment.state}, {format_amount(payment.debit_minor, payment.currency)}")
    desk.print_table(("at", "state", "by", "why"), rows, empty="no history")
    for receipt in on_ledger:
        place, header = receipt["proof"]["inclusion"], receipt["proof"]["inclusion"]["header"]
        click.echo(f"{receipt['kind']} on the ledger: block {header['height']}, root {header['root']},")
        click.echo(f"record {place['index'] + 1} of {header['count']}, proof of {len(place['path'])} hashes")
    if not on_ledger and settings().ledger_url:
        click.echo("not on the ledger (yet)")


@command.command(name="held")
def held_() -> None:
    """What is held and waits to be posted or released, the first to expire first."""
    with desk.transaction() as session:
        found = session.execute(
            select(Payment, Bill.merchant)
            .join(Bill, Bill.id == Payment.bill_id)
            .where(Payment.state == State.HELD)
            .order_by(Payment.hold_expires_at)
        )
        rows = [
            (p.id, merchant, format_amount(p.amount_minor, p.currency), desk.minute(p.hold_expires_at))
            for p, merchant in found
        ]
    desk.print_table(("payment", "merchant", "amount", "held until"), rows, empty="nothing is held")


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
@_why()
def cancel(payment_id: str, why: str) -> None:
    """Withdraw a payment of which the bank has not heard."""
    _move(payment_id, [Event.CANCEL], why)


@command.command()
@click.argument("payment_id", metavar="PAYMENT")
@click.argument("outcome", type=click.Choice(sorted(_OUTCOMES)))
@_why("How it is known, such as the line of the bank's statement.")
def resolve(payment_id: str, outcome: str, why: str) -> None:
    """Record the outcome of a stuck payment, as the bank told you."""
    with desk.transaction() as session:
        payment = session.get(Payment, payment_id)
        stuck_ids = {each.payment_id for each in checks.stuck(session, utc_now()) if each.refund_id is None}
    if payment is None or payment_id not in stuck_ids:
        raise click.ClickException(f"payment {payment_id!r} is not stuck; `ivr payments stuck` lists those that are")
    lost = [] if payment.state is State.UNKNOWN else [Event.LOSE]
    _move(payment_id, [*lost, _OUTCOMES[outcome]], why)


@command.command(name="resolve-refund")
@click.argument("refund_id", metavar="REFUND")
@click.argument("outcome", type=click.Choice(["done", "refused"]))
@_why("How it is known, such as the line of the bank's statement.")
def resolve_refund(refund_id: str, outcome: str, why: str) -> None:
    """Record what became of a stuck refund, as the bank told you; a refused amount can be refunded anew."""
    with desk.transaction() as session:
        now = utc_now()
        if refund_id not in {each.refund_id for each in checks.stuck(session, now)}:
            raise click.ClickException(f"refund {refund_id!r} is not stuck; `ivr payments stuck` lists those that are")
        state = refunds.resolve(session, refund_id, outcome == "done", who=desk.who(), why=why, now=now)
    click.echo(f"refund {refund_id} is {state}")


@command.command()
def stuck() -> None:
    """What needs a person. Exits 1 if there is anything."""
    with desk.transaction() as session:
        found = checks.stuck(session, utc_now())
    rows = [(each.payment_id, each.refund_id or "", each.state, each.why, desk.minute(each.since)) for each in found]
    desk.print_table(("payment", "refund", "state", "why", "since"), rows, empty="nothing needs a person")
    sys.exit(bool(rows))


@command.command()
@click.option("--without-bank", is_flag=True, help="Compare records and books only.")
def verify(without_bank: bool) -> None:
    """Prove that records, books and the bank's statement agree. Exits 1 if they do not."""
    bank, asked_at = connect(settings()), utc_now()
    statement = None if without_bank else bank.statement()
    with desk.snapshot() as session:
        found = list(checks.problems(session, bank.name, statement, asked_at))
    agreed = "records and books agree" if without_bank else "records, books and bank agree"
    click.echo("\n".join(found) or agreed)
    sys.exit(bool(found))


@command.command()
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
def settlement(day: datetime) -> None:
    """Print what was debited and given back on DAY (UTC), as CSV."""
    writer = csv.writer(sys.stdout)
    writer.writerow(checks.SETTLEMENT_COLUMNS)
    with desk.snapshot() as session:
        writer.writerows(checks.settlement(session, day.date()))


def _move(payment_id: str, events: list[Event], why: str) -> None:
    try:
        with desk.transaction() as session:
            if session.get(Payment, payment_id, with_for_update=True) is None:
                raise click.ClickException(f"there is no payment {payment_id!r}")
            for event in events:
                moved = service.record_move(
                    session, service.Move(payment_id, event, why), who=desk.who(), now=utc_now()
                )
    except (IllegalMove, PaymentError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"payment {payment_id} is {moved.state}")
