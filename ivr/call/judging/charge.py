"""What was said to an app's charge: whether it confirms, whether it is her voice, and the payment if it does.

As in a call, a wrong factor and an answer that was not understood sound alike, and both use up a try. An app's word
for whose device it is counts as a caller id that nobody vouches for: failures are those of unattested calls.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from sqlalchemy.orm import Session

from ivr.approval import gate, telling
from ivr.approval.policy import Factor
from ivr.call.flow import Call
from ivr.call.judging import liveness
from ivr.call.judging.confirm import was_said
from ivr.call.judging.desk import Desk
from ivr.call.judging.liveness import Replay
from ivr.call.models import Turn
from ivr.customers import apps, budget, merchants
from ivr.customers.apps import App, AppBinding, AppCharge, ChargeStatus
from ivr.customers.lookup import lock_customer
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.voiceprints import PROVISIONAL_LIMIT_MINOR, is_provisional, note_use
from ivr.payments.bank import Bank
from ivr.payments.models import Payment
from ivr.payments.service import PaymentError
from ivr.payments.states import State
from voiceprint import Outcome

#: Fewer digits than this were no attempt at the challenge.
ATTEMPT_DIGITS = apps.CHALLENGE_DIGITS // 2
CHANNEL = "app"


class Said(StrEnum):
    """What came of an answer."""

    AGAIN = "again"
    DECLINED = "declined"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


_OVER = {
    ChargeStatus.CONFIRMED: Said.CONFIRMED,
    ChargeStatus.DECLINED: Said.DECLINED,
    ChargeStatus.REFUSED: Said.REFUSED,
    ChargeStatus.EXPIRED: Said.REFUSED,
}


def sid(charge_id: str) -> str:
    """What stands for the call in the records of failures, of what was said and of the payment."""
    return f"app:{charge_id}"


def hold(session: Session, charge_id: str) -> AppCharge:
    """The charge, locked: two answers to it come one after the other, and the second finds what the first did."""
    return session.get_one(AppCharge, charge_id, with_for_update=True)


def conclude(desk: Desk, charge: AppCharge, bank: Bank) -> Said:
    """What ``desk.heard``, said to the try ``desk.step`` of a charge that is held, comes to."""
    if over := _OVER.get(charge.status_at(desk.now)):
        return over
    if charge.tries != desk.step:  # it answers what was asked before
        return Said.AGAIN
    binding = desk.session.get_one(AppBinding, charge.binding_id)
    assert binding.customer_id
    call = Call(sid(charge.id), locale="", customer_id=binding.customer_id, customer_ids=(binding.customer_id,))
    budget.hold(desk.session, [binding.customer_id])
    replay = liveness.replay(desk, call, binding.customer_id)
    record: dict[str, object] = {"replay": [replay.record], **liveness.times(desk)}
    if desk.heard.answer == "no":
        said = Said.DECLINED
    else:
        challenge = apps.challenge(desk.keyring, charge)
        call = replace(call, digits=challenge)
        factors = (_challenged if challenge else _agreed)(desk, call, replay, record)
        said = _pay(desk, charge, call, factors, bank) if factors else Said.AGAIN
    charge.tries += 1
    if said is Said.AGAIN and charge.tries >= apps.MOST_TRIES:
        said = Said.REFUSED
    if said is not Said.AGAIN:
        charge.status = ChargeStatus(said)
    desk.session.merge(
        Turn(call_sid=call.sid, step=desk.step, at=desk.now, state="app.charge", event=said, decisions=record)
    )
    desk.session.flush()
    return said


def _challenged(desk: Desk, call: Call, replay: Replay, record: dict[str, object]) -> tuple[Factor, ...]:
    """What the fresh digits, said by the customer's own voice, prove; nothing where something was not right."""
    assert call.customer_id
    longest = max((len(h.digits) for h in desk.heard.hypotheses), default=0)
    print_ = desk.voiceprint(call.customer_id)
    if desk.utterance is None or print_ is None or longest < ATTEMPT_DIGITS:
        return ()
    said = was_said(call.digits, desk.heard.hypotheses)
    voice = desk.verify(call, {call.customer_id: print_}, [desk.utterance])[call.customer_id]
    record |= {
        "said": said,
        "confidence": desk.heard.confidence,
        "voice": [(voice.outcome.value, round(voice.llr, 2))],
    }
    if voice.outcome is Outcome.INCONCLUSIVE and not replay.refuses:
        return ()
    hers = voice.outcome is Outcome.MATCH and not replay.refuses
    if said and hers and desk.may_use_voice(call, call.customer_id):
        liveness.remember(desk, call, call.customer_id, channel=CHANNEL)
        budget.record_success(desk.session, call.customer_id, call.sid, attested=call.attested)
        note_use(desk.session, call.customer_id, desk.now)
        return Factor.VOICE, Factor.CHALLENGE, Factor.SPOKEN_YES
    desk.fail(call, [call.customer_id])
    return ()


def _agreed(desk: Desk, call: Call, replay: Replay, record: dict[str, object]) -> tuple[Factor, ...]:
    """A yes, which is too short to tell whose it is, and so is not remembered as hers.

    Where it happens to tell, another's voice is a failure, and so is a yes cut out of what is remembered.
    """
    assert call.customer_id
    print_ = desk.voiceprint(call.customer_id)
    if desk.heard.answer != "yes" or desk.utterance is None or print_ is None:
        return ()
    voice = desk.verify(call, {call.customer_id: print_}, [desk.utterance])[call.customer_id]
    record["voice"] = [(voice.outcome.value, round(voice.llr, 2))]
    if replay.refuses or voice.outcome is Outcome.NO_MATCH:
        desk.fail(call, [call.customer_id])
        return ()
    return () if desk.is_locked(call, call.customer_id) else (Factor.SPOKEN_YES,)


def _pay(desk: Desk, charge: AppCharge, call: Call, factors: tuple[Factor, ...], bank: Bank) -> Said:
    """The bill and its payment, with the card and within the limits of the binding as it is now."""
    session = desk.session
    assert call.customer_id
    lock_customer(session, call.customer_id)  # first, as who binds the app anew does
    binding = session.get_one(AppBinding, charge.binding_id, with_for_update=True)
    app = session.get_one(App, charge.app_id)
    merchant = session.get_one(Merchant, app.merchant_id)
    referred = session.get_one(MerchantCustomer, binding.merchant_customer_id)
    closed = app.closed_at or merchant.closed_at
    if not binding.is_bound or closed or referred.customer_id != call.customer_id:
        return Said.REFUSED
    assert binding.customer_id
    assert binding.card_id
    limit_minor = binding.limit_minor
    if limit_minor is not None and is_provisional(session, binding.customer_id, desk.now):
        limit_minor = min(limit_minor, PROVISIONAL_LIMIT_MINOR)
    try:
        with session.begin_nested():  # a bill that is not paid here is not owed
            apps.check_limits(session, binding, charge.amount_minor, charge.currency, desk.now)
            bill = merchants.issue_bill(
                session,
                referred,
                amount_minor=charge.amount_minor,
                currency=charge.currency,
                description=charge.description,
                one_payment=True,
                now=desk.now,
            )
            payment = gate.start(
                session,
                bill_id=bill.id,
                customer_id=binding.customer_id,
                card_id=binding.card_id,
                idempotency_key=f"app-charge:{charge.id}",
                call_sid=call.sid,
                factors=factors,
                attestation=None,
                attested=call.attested,
                now=desk.now,
                limit_minor=limit_minor,
                bank=bank.name,
                test_bank=bank.test_only,
            )
    except gate.NotAllowed:
        about = telling.about_amount(merchant.name, charge.amount_minor, charge.currency)
        telling.tell_approvers(session, binding.customer_id, "ward.attempted", about, desk.now)
        return Said.REFUSED
    except (PaymentError, apps.AboveLimit, merchants.TextNotApproved):
        return Said.REFUSED
    charge.payment_id = payment.id
    return Said.CONFIRMED


def awaits_others(session: Session, charge: AppCharge) -> bool:
    """Whether a confirmed charge is debited only when somebody else has agreed."""
    payment = session.get(Payment, charge.payment_id) if charge.payment_id else None
    return payment is not None and payment.state is State.AWAITING
