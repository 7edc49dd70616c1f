"""Charges by an app: what the customer is asked, and what became of it. What she says comes by ``ivr.api.voice``."""

from __future__ import annotations

from typing import Any

from flask import request
from sqlalchemy import Select, select

from ivr.api.asking import addresses, asking
from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound, NotNow, TooMany
from ivr.api.shapes import AppCharge, AppChargeQuery, AskedAppCharge, NewAppCharge, Page
from ivr.api.v1 import customers
from ivr.api.v1.apps import find_app
from ivr.customers import apps
from ivr.customers.apps import App as AppRow
from ivr.customers.apps import AppBinding, ChargeStatus
from ivr.customers.apps import AppCharge as ChargeRow

CHARGES_AN_HOUR = 20  # of one merchant to one customer: she is not to be pressed until she says yes


def _asked(call: Call, document: dict[str, Any]) -> dict[str, Any]:
    charge = call.session.get_one(ChargeRow, document["id"])
    if charge.status_at(call.now) is not ChargeStatus.ASKING:
        return document | dict.fromkeys(("prompt", "challenge", "upload_url", "stream_url"))
    services, keyring = call.desk.services, call.desk.keyring
    asked = asking(call.session, services, keyring, charge)
    where = addresses(services, keyring, asked, request.host_url)
    prompt = {"text": asked.say("again" if charge.tries else "ask"), "audio_url": where.pop("audio_url")}
    return document | where | {"prompt": prompt, "challenge": asked.challenge or None}


@operation(
    "POST", "/app-charges", "apps:write", sent=NewAppCharge, returns=AskedAppCharge, status=201,
    problems=(NotFound, NotNow), links=("get_app_charge",), reveal=_asked,
)  # fmt: skip
def create_app_charge(call: Call, given: NewAppCharge) -> AppCharge:
    """Ask a customer in an app whether she pays: she has two minutes to say so."""
    app, referred = find_app(call, given.app), customers.find(call, given.customer)
    try:
        binding = apps.active_binding(call.session, app.id, referred.id)
        charge = apps.open_charge(
            call.session, app, binding, now=call.now, **given.model_dump(exclude={"app", "customer"})
        )
    except (apps.NotBound, apps.AboveLimit) as error:
        raise NotNow(str(error)) from None
    if not call.desk.services.calls.within(f"charges:{referred.id}", CHARGES_AN_HOUR, 3600):
        raise TooMany("this customer was asked too often; wait an hour", {"Retry-After": "3600"})
    return shown((charge, referred.id), call)


@operation("GET", "/app-charges", "apps:read", sent=AppChargeQuery, returns=Page[AppCharge])
def list_app_charges(call: Call, asked: AppChargeQuery) -> Page[AppCharge]:
    """Charges by your apps, the newest first."""
    query = _mine(call)
    if asked.app is not None:
        query = query.where(ChargeRow.app_id == asked.app)
    if asked.customer is not None:
        query = query.where(AppBinding.merchant_customer_id == asked.customer)
    return page(call.session, query, (ChargeRow.created_at, ChargeRow.id), asked, lambda row: shown(row, call))


@operation("GET", "/app-charges/{charge_id}", "apps:read", returns=AskedAppCharge, reveal=_asked)
def get_app_charge(call: Call, _: None) -> AppCharge:
    """One charge; while it is ``asking``, with what to ask now."""
    found = call.session.execute(_mine(call).where(ChargeRow.id == call.path["charge_id"])).first()
    if found is None:
        raise NotFound("you have no charge with this id")
    return shown((found[0], found[1]), call)


def _mine(call: Call) -> Select[ChargeRow, str]:
    query = select(ChargeRow, AppBinding.merchant_customer_id).join(AppBinding, AppBinding.id == ChargeRow.binding_id)
    return query.join(AppRow, AppRow.id == ChargeRow.app_id).where(AppRow.merchant_id == call.merchant.id)


def shown(found: tuple[ChargeRow, str], call: Call) -> AppCharge:
    row, customer = found
    return AppCharge(
        id=row.id,
        app=row.app_id,
        customer=customer,
        amount_minor=row.amount_minor,
        currency=row.currency,
        description=row.description,
        status=row.status_at(call.now).value,
        payment=row.payment_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
