"""What judging a turn needs at hand, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from ivr.call.flow import Call, Event
from ivr.call.session import CallStore
from ivr.customers import budget
from ivr.customers.bills import open_bills
from ivr.customers.cards import authorised_cards, pan_hash, rehash
from ivr.customers.models import Bill, Card, Customer
from ivr.customers.voiceprints import PROVISIONAL_LIMIT_MINOR, is_provisional, load_voiceprint
from ivr.keys import Keyring
from ivr.speech.cards import CardHash, which_card
from ivr.speech.expect import Heard
from voiceprint import Encoder, Scorer, Utterance, Voiceprint


@dataclass(frozen=True)
class Verdict:
    """The event for the flow, the call with what was learnt, and what the record keeps but the caller is not told."""

    event: Event
    call: Call
    decisions: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Desk:
    """One turn being judged: the database transaction it is judged in, and the tools."""

    session: Session
    store: CallStore
    keyring: Keyring
    encoder: Encoder
    scorer: Scorer
    now: datetime
    step: int
    heard: Heard
    utterance: Utterance | None  # the voice of this turn; None where only keys came

    def fail(self, call: Call, customer_ids: Sequence[str], **decisions: object) -> Verdict:
        """A factor was wrong: one failure more for everyone the caller may have been, and the same words as ever."""
        budget.record_failure(self.session, customer_ids, call.sid, str(self.step), self.now)
        return Verdict(Event.AGAIN, call, decisions)

    def is_locked(self, customer_id: str) -> bool:
        return budget.is_locked(self.session, customer_id, self.now)

    def voiceprint(self, customer_id: str) -> Voiceprint | None:
        """The customer's voiceprint by the encoder in force."""
        blob = load_voiceprint(self.session, customer_id, self.encoder.model_id, self.keyring)
        return Voiceprint.from_bytes(blob) if blob else None

    def card_of(self, customer_id: str, candidates: Sequence[str]) -> str | None:
        """The id of the customer's authorised card that is among the candidates."""
        cards = {card.id: card for card in authorised_cards(self.session, customer_id, self.now.date())}
        hashes = [CardHash(card.id, card.pan_key_id, card.pan_hash) for card in cards.values()]
        found = which_card(candidates, customer_id, hashes, self.keyring.all("pan"))
        if found and cards[found].pan_key_id != self.keyring.active("pan")[0]:
            self._rehash(cards[found], candidates)
        return found

    def _rehash(self, card: Card, candidates: Sequence[str]) -> None:
        """Only now is the number at hand under which a rotated key can be put."""
        for pan in candidates:
            if pan_hash(self.keyring.key("pan", card.pan_key_id), card.customer_id, pan) == card.pan_hash:
                return rehash(self.session, card, pan, self.keyring)

    def accept(self, call: Call, customer_id: str, card_id: str, factors: Sequence[str]) -> Verdict:
        """The caller has proved who she is: from here on the call is about her, and her bills."""
        customer = self.session.get_one(Customer, customer_id)
        last4 = next(c.last4 for c in authorised_cards(self.session, customer_id, self.now.date()) if c.id == card_id)
        bills = tuple(_facts(bill) for bill in open_bills(self.session, customer_id)[:9])
        call = replace(
            call,
            customer_ids=(customer_id,),
            customer_id=customer_id,
            card_id=card_id,
            last4=last4,
            locale=customer.locale,
            evidence=tuple(factors),
            bills=bills,
        )
        if not bills:
            return Verdict(Event.NO_BILL, call)
        if len(bills) > 1:
            return Verdict(Event.SEVERAL_BILLS, call)
        return self.choose(call, 0, Event.ONE_BILL)

    def choose(self, call: Call, index: int, event: Event) -> Verdict:
        """One of her bills is to be paid, if it is not above what a new voiceprint may pay."""
        assert call.customer_id
        bill = call.bills[index]
        if int(bill["amount_minor"]) > PROVISIONAL_LIMIT_MINOR and is_provisional(
            self.session, call.customer_id, self.now
        ):
            return Verdict(Event.TOO_LARGE, call, {"limit": "provisional"})
        return Verdict(event, replace(call, bill=bill))


def _facts(bill: Bill) -> dict[str, str | int]:
    return {
        "id": bill.id,
        "merchant": bill.merchant,
        "amount_minor": bill.amount_minor,
        "currency": bill.currency,
    }
