"""What judging a turn needs at hand, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from ivr.approval import addresses, gate
from ivr.approval.policy import Factor
from ivr.call.flow import Call, Event, State
from ivr.call.session import CallStore
from ivr.customers import budget, pins, watchlist
from ivr.customers.bills import open_bills
from ivr.customers.cards import authorised_cards, rehash
from ivr.customers.models import Bill, Card, Customer
from ivr.customers.voiceprints import PROVISIONAL_LIMIT_MINOR, is_provisional, load_voiceprint
from ivr.keys import Keyring
from ivr.speech.cards import CardHash, guesses, which_card
from ivr.speech.expect import Heard
from ivr.speech.pan import pan_hash
from voiceprint import Decision, Encoder, Outcome, Scorer, Utterance, Voiceprint
from voiceprint.replay import Sound

CHALLENGES_PER_CUSTOMER = 10  # an hour


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
    sound: Sound | None  # the same, to be compared with what was said before

    def fail(self, call: Call, customer_ids: Sequence[str], **decisions: object) -> Verdict:
        """A factor was wrong: one failure more for everyone the caller may have been, and the same words as ever."""
        self.charge(call, customer_ids)
        return Verdict(Event.AGAIN, call, decisions)

    def charge(self, call: Call, customer_ids: Sequence[str]) -> None:
        """One failure more for each, in this turn."""
        budget.record_failure(self.session, customer_ids, call.sid, str(self.step), self.now, attested=call.attested)

    def is_locked(self, call: Call, customer_id: str) -> bool:
        """Whether too many failures went before: of calls like this one, where attestation tells them apart."""
        return budget.is_locked(self.session, customer_id, self.now, attested=call.attested)

    def right_pin(self, call: Call, customer_id: str) -> bool:
        """Whether what was keyed is her PIN, and she is not locked; it takes as long for nobody, whose id is ""."""
        right = pins.check_pin(self.session, customer_id, self.heard.keys, self.keyring)
        return right and not self.is_locked(call, customer_id)

    def may_use_voice(self, call: Call, customer_id: str) -> bool:
        """Whether a voice may be accepted: not after many failures, until a card and its PIN were keyed once."""
        if self.is_locked(call, customer_id):
            return False
        failures = budget.failures_in_a_row(self.session, customer_id, attested=call.attested)
        return failures < budget.FREE_IN_A_ROW or not pins.has_pin(self.session, customer_id)

    def may_challenge(self, customer_id: str) -> bool:
        """Challenges are not to be had without end: whoever has a recording would wait for its digits."""
        return self.store.within(f"challenge:{customer_id}", CHALLENGES_PER_CUSTOMER, 3600)

    def voiceprint(self, customer_id: str) -> Voiceprint | None:
        """The customer's voiceprint by the encoder in force."""
        blob = load_voiceprint(self.session, customer_id, self.encoder.model_id, self.keyring)
        return Voiceprint.from_bytes(blob) if blob else None

    def verify(
        self, call: Call, claimed: Mapping[str, Voiceprint], utterances: Sequence[Utterance]
    ) -> dict[str, Decision]:
        """Whether the caller is each of these customers. Whom a known impostor's voice fits better, nobody is."""
        decisions = {who: self.scorer.score(print_, utterances) for who, print_ in claimed.items()}
        if not decisions:
            return {}
        watched = self.watched(call, utterances, above=min(d.llr for d in decisions.values()))
        return {
            who: replace(d, outcome=Outcome.NO_MATCH, reason="watch list") if watched and d.llr < watched.llr else d
            for who, d in decisions.items()
        }

    def watched(self, call: Call, utterances: Sequence[Utterance], above: float = -math.inf) -> Decision | None:
        """The match of a known impostor, which is recorded; None for none, or where it is no surer than ``above``."""
        watched = watchlist.watched_voices(self.session, self.encoder.model_id, self.keyring)
        found = self.scorer.best_match(watched, utterances)
        if found is None or found[1].llr <= above:
            return None
        watchlist.record_match(self.session, found[0], call.sid, self.step, self.now)
        return found[1]

    def card_of(self, call: Call, customer_id: str, candidates: Sequence[str]) -> str | None:
        """The id of the customer's authorised card that is among the candidates, as many as may be guessed."""
        failures = budget.failures_in_a_row(self.session, customer_id, attested=call.attested)
        candidates = candidates[: guesses(failures)]
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
        last4 = self.session.get_one(Card, card_id).last4
        # Who goes on by speaking stays in a language in which she is heard.
        stays = call.state is State.CARD and customer.locale not in call.heard
        bills = tuple(facts_of(bill) for bill in open_bills(self.session, customer_id)[:9])
        call = replace(
            call,
            customer_ids=(customer_id,),
            customer_id=customer_id,
            card_id=card_id,
            last4=last4,
            locale=call.locale if stays else customer.locale,
            evidence=tuple(factors),
            bills=bills,
        )
        if not bills:
            return Verdict(Event.NO_BILL, call)
        if len(bills) > 1:
            return Verdict(Event.SEVERAL_BILLS, call)
        return self.choose(call, 0, Event.ONE_BILL)

    def choose(self, call: Call, index: int, event: Event) -> Verdict:
        """One of her bills is to be paid, if it is not above what a new enrolment, or the card, may pay."""
        assert call.customer_id
        limits = [PROVISIONAL_LIMIT_MINOR] if is_provisional(self.session, call.customer_id, self.now) else []
        card = self.session.get(Card, call.card_id)
        limits += [card.limit_minor] if card and card.limit_minor is not None else []
        limit_minor = min(limits, default=None)
        bill = call.bills[index]
        if limit_minor is not None and int(bill["amount_minor"]) > limit_minor:
            return Verdict(Event.TOO_LARGE, call, {"limit": True})
        call = replace(call, bill=bill, limit_minor=limit_minor)
        row = self.session.get_one(Bill, str(bill["id"]))
        choices = addresses.choices(self.session, row)
        if len(choices) > 1:
            return Verdict(Event.ADDRESSES, replace(call, addresses=tuple(choices)))
        return self.allow(replace(call, address_id=choices[0][1] if choices else ""), event)

    def allow(self, call: Call, event: Event) -> Verdict:
        """``event``, unless her policy allows this payment in no call like this one, whoever agrees."""
        assert call.bill
        assert call.customer_id
        spoken = Factor.VOICE in call.evidence
        could = {*call.evidence, Factor.CHALLENGE if spoken else Factor.KEY}
        if spoken and pins.has_pin(self.session, call.customer_id):
            could.add(Factor.PIN)
        allowed = gate.may_be_paid(
            self.session, str(call.bill["id"]), call.address_id, factors=could, attested=call.attested, now=self.now
        )
        return Verdict(event, call) if allowed else Verdict(Event.TOO_LARGE, call, {"policy": "refused"})

    def missing(self, call: Call) -> frozenset[Factor]:
        """What her policy wants of her besides what she gave."""
        assert call.bill
        return gate.missing_factors(
            self.session,
            str(call.bill["id"]),
            call.address_id,
            factors=call.evidence,
            attested=call.attested,
            now=self.now,
        )


def facts_of(bill: Bill) -> dict[str, str | int]:
    """What a call may know, and say, of a bill."""
    return {
        "id": bill.id,
        "merchant": bill.merchant,
        "amount_minor": bill.amount_minor,
        "currency": bill.currency,
    }
