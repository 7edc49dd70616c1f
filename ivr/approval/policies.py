"""Which policy is in force for whom: a customer's own, or one that ships with the service; kept by version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ivr.approval.models import Appointment, PolicyVersion
from ivr.approval.policy import Factor, Policy, Role, Rule, When
from ivr.approval.wards import WardSettings, policy_of
from ivr.customers import audit
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import lock_customer
from ivr.customers.models import Customer
from ivr.log import scrub

PLAIN = Policy(name="plain")
"""Of customers whom nobody looks after: the call's own verification is enough."""

WARD = policy_of(WardSettings())
"""Of wards whose guardians have set nothing else."""


class InvalidPolicy(InvalidInput):
    """The document is no policy; the message says where it is wrong."""


def parse(document: str | dict[str, Any]) -> Policy:
    """A policy from JSON. Raises InvalidPolicy."""
    try:
        return Policy.model_validate_json(document) if isinstance(document, str) else Policy.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidPolicy(f"{where or 'the policy'}: {first['msg']}") from None


def dump(policy: Policy) -> dict[str, Any]:
    """What is stored, and what ``parse`` reads: only what differs from the defaults."""
    plain: dict[str, Any] = _ordered(policy.model_dump(mode="json", exclude_defaults=True))
    return plain


def _ordered(value: Any) -> Any:
    """Sets have no order, and a stored document shall have one."""
    if isinstance(value, dict):
        return {key: _ordered(one) for key, one in value.items()}
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return sorted(value)
    return [_ordered(one) for one in value] if isinstance(value, list) else value


def own(session: Session, customer_id: str) -> tuple[int, Policy | None]:
    """The newest version of the customer's own policy, 0 when there never was one, and the policy, if she has one."""
    newest = session.scalar(
        select(PolicyVersion)
        .where(PolicyVersion.customer_id == customer_id)
        .order_by(PolicyVersion.version.desc())
        .limit(1)
    )
    if newest is None:
        return 0, None
    return newest.version, Policy.model_validate(newest.document) if newest.document else None


def put(session: Session, customer_id: str, policy: Policy | None, *, who: str, now: datetime) -> int:
    """A new version of the customer's policy, in force at once; None: the shipped one again. Its number."""
    if policy is not None and scrub(policy.model_dump_json()) != policy.model_dump_json():
        raise InvalidPolicy("the policy holds what looks like a card number, which may not be stored")
    lock_customer(session, customer_id)
    newest = session.scalar(select(func.max(PolicyVersion.version)).where(PolicyVersion.customer_id == customer_id))
    version = (newest or 0) + 1
    document = dump(policy) if policy is not None else None
    session.add(PolicyVersion(customer_id=customer_id, version=version, document=document, at=now, who=who))
    session.flush()
    audit.record(session, who, "policy.changed", customer_id, now, version=version)
    return version


def in_force(session: Session, customer: Customer, appointed: Sequence[Appointment]) -> Policy:
    """The customer's policy, with what her age and those who look after her now, ``appointed``, add to it."""
    guarded = customer.minor or any(a.role is Role.GUARDIAN for a in appointed)
    policy = own(session, customer.id)[1] or (WARD if guarded else PLAIN)
    rules = [rule for a in appointed if a.role is Role.SUPERVISOR for rule in _of_supervisor(a)]
    if customer.minor and not any(a.role is Role.GUARDIAN for a in appointed):
        rules.append(Rule(name="a minor pays only under the eyes of a guardian", refuse=True))
    return policy.model_copy(update={"rules": (*policy.rules, *rules)}) if rules else policy


def _of_supervisor(appointment: Appointment) -> list[Rule]:
    """While a supervisor stands, payments wait for one, and need the payment password."""
    if appointment.above_minor is None:
        return [_supervised("a supervisor agrees", When())]
    limit = When(currency=appointment.currency, above_minor=appointment.above_minor)
    return [
        _supervised("a supervisor agrees above a limit", limit),
        _supervised("a supervisor agrees in other currencies", When(other_currency_than=appointment.currency)),
    ]


def _supervised(name: str, when: When) -> Rule:
    return Rule(name=name, when=when, factors=frozenset({Factor.PIN}), approvals={Role.SUPERVISOR: "any"})
