"""Naming, accepting, telling and ending; the address book; who is told how."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from approval_support import Family
from sqlalchemy import select, update

from ivr.approval import addresses, appointments, links, minors, telling
from ivr.approval.appointments import REMOVAL_WAIT, SETTLED_AFTER, NotAppointed
from ivr.approval.models import Appointment, DigestEntry, Standing, Tell
from ivr.approval.policy import Destination, Role
from ivr.customers.models import Bill, Consent, ContactKind, Customer, Notice, Pin
from ivr.customers.register import add_contact, add_customer
from ivr.customers.voiceprints import GuardianConsentMissing, may_have_voiceprint, store_voiceprint
from ivr.jobs import Job
from ivr.keys import Keyring
from ivr.notifications.texts import compose
from ivr.payments import worker
from ivr.settings import Settings
from ivr.store.db import Database

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def family(database: Database, keyring: Keyring) -> Family:
    return Family(database, keyring, NOW)


def test_an_approver_is_asked_by_a_link_and_counts_only_when_she_has_accepted(family: Family) -> None:
    guardian = family.approver(accepted=False)
    assert family.notices(guardian) == ["appointment.ask"]
    with family.database.transaction() as session:
        assert appointments.active(session, family.ward_id, NOW) == []
        appointment = session.scalars(select(Appointment)).one()
        accepted = appointments.accept(session, appointment.id, guardian, channel="page", now=NOW)
        assert appointments.accept(session, appointment.id, guardian, channel="page", now=NOW) is accepted
        consent = session.get_one(Consent, accepted.consent_id)
        assert (consent.customer_id, consent.kind, consent.channel) == (guardian, "guardian", "page")
    assert "guardian.accepted" in family.notices(family.ward_id)


@pytest.mark.parametrize("why", ["herself", "telephone", "e-mail", "no way", "too new", "limit", "past"])
def test_who_cannot_be_named(family: Family, why: str) -> None:
    long_ago, more, phone = NOW - timedelta(days=30), {}, "+14155552999"
    with family.database.transaction() as session:
        ward = family.ward_id
        for kind, address in ((ContactKind.EMAIL, "lea@example.com"), (ContactKind.SMS, "+14155551111")):
            add_contact(session, ward, kind, address, long_ago)
        sms, emails = [phone], []
        if why == "telephone":
            sms = ["+14155551111"]
        if why == "e-mail":
            emails = ["LEA@example.com"]
        if why in ("no way", "too new"):
            sms = []
        approver = add_customer(session, phones=[phone], sms=sms, emails=emails, now=long_ago)
        if why == "too new":
            add_contact(session, approver.id, ContactKind.SMS, phone, NOW - SETTLED_AFTER + timedelta(hours=1))
        if why == "limit":
            more = {"above_minor": 1, "currency": "USD"}
        if why == "past":
            more = {"ends_at": NOW}
        with pytest.raises(NotAppointed):
            appointments.propose(
                session, Role.GUARDIAN, ward_id=ward, approver_id=ward if why == "herself" else approver.id,
                label="Lea", who="test", now=NOW, **more,
            )  # fmt: skip


def test_a_proposal_is_accepted_by_whom_it_was_made_to_with_a_pin_of_her_own_and_in_time(family: Family) -> None:
    guardian, other = family.approver(accepted=False), family.approver(phone="+14155552888")
    mine = family.appointment_of(guardian).id

    def accept(who: str, now: datetime = NOW) -> None:
        with family.database.transaction() as session:
            appointments.accept(session, mine, who, channel="page", now=now)

    with pytest.raises(NotAppointed, match="no such"):
        accept(other)
    with pytest.raises(NotAppointed, match="too long ago"):
        accept(guardian, NOW + appointments.PROPOSAL_LIFE + timedelta(seconds=1))
    with family.database.transaction() as session:
        session.delete(session.get_one(Pin, guardian))
    with pytest.raises(NotAppointed, match="PIN"):
        accept(guardian)


def test_removing_a_supervisor_takes_a_week_and_she_is_told_and_she_may_go_at_once(family: Family) -> None:
    removed, resigned = family.approver(Role.SUPERVISOR), family.approver(Role.SUPERVISOR)
    with family.database.transaction() as session:
        ids = {a.approver_id: a.id for a in session.scalars(select(Appointment))}
        for _ in range(2):  # asking again changes and tells nothing
            ended = appointments.end(session, ids[removed], by_approver=False, who="operator", now=NOW)
        assert ended.ends_at == NOW + REMOVAL_WAIT
        assert ended.standing is Standing.ACTIVE
        appointments.end(session, ids[resigned], by_approver=True, who="her", now=NOW)
        assert [a.approver_id for a in appointments.active(session, family.ward_id, NOW)] == [removed]
        almost, then = NOW + REMOVAL_WAIT - timedelta(seconds=1), NOW + REMOVAL_WAIT
        assert len(appointments.active(session, family.ward_id, almost)) == 1
        assert appointments.active(session, family.ward_id, then) == []
    assert family.notices(removed).count("ward.ending") == 1
    assert family.notices(family.ward_id).count("supervisor.ending") == 2


def test_an_appointment_ends_on_its_day(family: Family) -> None:
    family.approver(ends_at=NOW + timedelta(days=1))
    with family.database.transaction() as session:
        assert len(appointments.active(session, family.ward_id, NOW)) == 1
        assert appointments.active(session, family.ward_id, NOW + timedelta(days=1)) == []


def test_the_address_book(family: Family) -> None:
    with family.database.transaction() as session:
        home = addresses.add(session, family.ward_id, "home", "1 Main Street,  Springfield", who="t", now=NOW)
        assert addresses.add(session, family.ward_id, "again", "1 MAIN STREET SPRINGFIELD", who="t", now=NOW) is home
        school = addresses.add(session, family.ward_id, "school", "2 School Lane", who="t", now=NOW)
        assert (home.number, school.number) == (1, 2)
        known = addresses.destination(session, family.ward_id, "1 main street; springfield")
        assert (known, addresses.destination(session, family.ward_id, "9 New Road")) == (
            Destination.KNOWN, Destination.UNKNOWN,
        )  # fmt: skip
        addresses.remove(session, family.ward_id, 1, who="t", now=NOW)
        assert addresses.destination(session, family.ward_id, home.text) is Destination.UNKNOWN
        assert addresses.add(session, family.ward_id, "work", "3 Office Park", who="t", now=NOW).number == 1
        for i in range(addresses.MOST - 2):
            addresses.add(session, family.ward_id, "x", f"{i} Long Road", who="t", now=NOW)
        with pytest.raises(addresses.InvalidAddress, match="remove one"):
            addresses.add(session, family.ward_id, "x", "One Too Many", who="t", now=NOW)
        with pytest.raises(addresses.InvalidAddress, match="no number 42"):
            addresses.remove(session, family.ward_id, 42, who="t", now=NOW)
        stranger = add_customer(session, phones=[], now=NOW)
        bill = Bill(customer_id=stranger.id, ship_to="9 New Road")
        with pytest.raises(addresses.InvalidAddress, match="no such address"):
            addresses.chosen(session, bill, school.id)


@pytest.mark.parametrize(
    ("tell", "kinds"),
    [
        (Tell.SMS, ["sms"]),
        (Tell.EMAIL, ["email"]),
        (Tell.BOTH, ["email", "sms"]),
        (Tell.NOTHING, []),
        (Tell.DIGEST, []),
    ],
)
def test_approvers_are_told_as_they_chose(family: Family, tell: Tell, kinds: list[str]) -> None:
    guardian = family.approver(tell=tell)
    with family.database.transaction() as session:
        add_contact(session, guardian, ContactKind.EMAIL, "guardian@example.com", NOW - timedelta(days=30))
        values = {"merchant": "Bookshop", "amount_minor": 4_210, "currency": "USD"}
        telling.tell_approvers(session, family.ward_id, "ward.made", values, NOW)
        found = session.scalars(select(Notice).where(Notice.template == "ward.made")).all()
        from ivr.customers.models import Contact

        assert sorted(session.get_one(Contact, n.contact_id).kind for n in found) == kinds
        if found:
            assert compose("ward.made", found[0].values, "en")[1] == "Lea paid USD 42.10 to Bookshop."
        assert len(session.scalars(select(DigestEntry)).all()) == (tell is Tell.DIGEST)


def test_a_digest_is_one_mail_with_everything_since_the_last(family: Family, settings: Settings) -> None:
    guardian = family.approver(tell=Tell.DIGEST)
    with family.database.transaction() as session:
        add_contact(session, guardian, ContactKind.EMAIL, "guardian@example.com", NOW - timedelta(days=30))
        for i, template in enumerate(("ward.made", "ward.refused")):
            values = {"merchant": "Bookshop", "amount_minor": 4_210, "currency": "USD"}
            telling.tell_approvers(session, family.ward_id, template, values, NOW + timedelta(milliseconds=i))
        (job,) = session.scalars(select(Job).where(Job.kind == telling.DIGEST_JOB)).all()
        assert NOW < job.run_at <= NOW + timedelta(days=1)
        session.execute(update(Job).where(Job.id == job.id).values(run_at=NOW - timedelta(seconds=1)))
    for _ in range(2):
        worker.run(settings, threading.Event(), once=True, channels={})
    with family.database.transaction() as session:
        (notice,) = session.scalars(select(Notice).where(Notice.template == "digest")).all()
        assert compose("digest", notice.values, "en")[1] == (
            "Since the last summary:\n"
            "- Lea paid USD 42.10 to Bookshop.\n"
            "- Lea's payment of USD 42.10 to Bookshop was not made, and nothing was taken."
        )


def test_links_and_codes_are_in_no_row_and_reach_their_contact(family: Family, settings: Settings) -> None:
    guardian = family.approver()
    sent: list[tuple[str, str]] = []

    class Channel:
        def send(self, address: str, subject: str, text: str) -> None:
            sent.append((address, text))

    payment = family.pay(family.bill(10_000))
    with family.database.transaction() as session:
        links.new_code(session, guardian, appointments.settled_contacts(session, guardian, NOW), NOW)
    worker.run(settings, threading.Event(), once=True, channels={ContactKind.SMS: Channel()})
    texts = [text for address, text in sent if address == "+14155552000"]
    token = next(t.split("/my/l/")[1].split(" ")[0] for t in texts if t.startswith("A payment waits"))
    code = next(t.split(" ")[0] for t in texts if "is your code" in t)
    with family.database.transaction() as session:
        rows = str([dict(n.values) for n in session.scalars(select(Notice))])
        assert token not in rows
        assert code not in rows
        found = links.open_link(session, token, family.keyring, datetime.now(UTC))
        assert found
        assert (found.approver_id, found.request_id) == (guardian, family.request_of_in(session, payment))
        changed = token[:-1] + ("0" if token[-1] != "0" else "1")
        for wrong in ("", "x", token[:16], changed, token.upper(), token + "0"):
            assert links.open_link(session, wrong, family.keyring, NOW) is None
        assert links.open_link(session, token, family.keyring, found.expires_at + timedelta(seconds=1)) is None
        assert not links.use_code(session, guardian, "", family.keyring, NOW)
        assert links.use_code(session, guardian, code, family.keyring, NOW)
        assert not links.use_code(session, guardian, code, family.keyring, NOW)  # once


def test_a_code_is_dead_after_a_few_guesses(family: Family) -> None:
    guardian = family.approver()
    with family.database.transaction() as session:
        links.new_code(session, guardian, [], NOW)
        from ivr.approval.models import SignInCode

        right = links._code(family.keyring.active("session")[1], session.get_one(SignInCode, guardian).id)
        wrong = f"{(int(right) + 1) % 10**6:06d}"
        for _ in range(links.MOST_TRIES):
            assert not links.use_code(session, guardian, wrong, family.keyring, NOW)
        assert not links.use_code(session, guardian, right, family.keyring, NOW)


def test_a_minors_voiceprint_needs_her_guardian_and_goes_with_the_consent(family: Family) -> None:
    guardian, supervisor = family.approver(), family.approver(Role.SUPERVISOR)
    with family.database.transaction() as session:
        session.get_one(Customer, family.ward_id).minor = True
        session.flush()
        store = (session, family.ward_id, b"x", "m", 8000, "telephone")
        with pytest.raises(GuardianConsentMissing):
            store_voiceprint(*store, "c", family.keyring, NOW)
        with pytest.raises(NotAppointed):
            minors.consent(session, family.ward_id, supervisor, channel="page", now=NOW)
        consent = minors.consent(session, family.ward_id, guardian, channel="page", now=NOW)
        assert minors.consent(session, family.ward_id, guardian, channel="page", now=NOW) is consent
        store_voiceprint(*store, consent.id, family.keyring, NOW)
        minors.withdraw(session, family.ward_id, guardian, now=NOW)
        assert not may_have_voiceprint(session, family.ward_id)
        from ivr.customers.voiceprints import voiceprint_of

        assert voiceprint_of(session, family.ward_id) is None
