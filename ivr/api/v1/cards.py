"""Cards: asked for by you, added by your customer on our page; you never see a number."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import Select, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import Invalid, NotFound
from ivr.api.shapes import Card, CardQuery, NewCard, Page
from ivr.api.v1 import customers
from ivr.customers import audit, card_requests
from ivr.customers.card_requests import CardRequest
from ivr.customers.cards import check_expiry
from ivr.customers.models import Card as Authorised
from ivr.customers.text import clean_text


@operation(
    "POST", "/cards", "cards:write", sent=NewCard, returns=Card, status=201,
    problems=(NotFound,), links=("get_card",),
)  # fmt: skip
def request_card(call: Call, given: NewCard) -> Card:
    """Ask a customer to add a card."""
    if given.exp is not None:
        if given.token is None:
            raise Invalid("exp goes with a token")
        check_expiry(given.exp.year, given.exp.month, call.now.date())
    made = card_requests.request_card(
        call.session,
        customers.find(call, given.customer),
        bank_token=None if given.token is None else clean_text(given.token, "the token", least=4, most=128),
        exp_month=given.exp.month if given.exp else None,
        exp_year=given.exp.year if given.exp else None,
        now=call.now,
    )
    audit.record(call.session, call.who, "card.requested", made.id, call.now)
    return shown((made, None), call.now)


@operation("GET", "/cards", "cards:read", sent=CardQuery, returns=Page[Card])
def list_cards(call: Call, asked: CardQuery) -> Page[Card]:
    """The cards that you asked for, the newest first."""
    query = _mine(call)
    if asked.customer is not None:
        query = query.where(CardRequest.merchant_customer_id == asked.customer)
    by = (CardRequest.created_at, CardRequest.id)
    return page(call.session, query, by, asked, lambda found: shown(found, call.now))


@operation("GET", "/cards/{card_id}", "cards:read", returns=Card)
def get_card(call: Call, _: None) -> Card:
    """One card that you asked for."""
    found = call.session.execute(_mine(call).where(CardRequest.id == call.path["card_id"])).first()
    if found is None:
        raise NotFound("you have asked for no card with this id")
    return shown((found[0], found[1]), call.now)


def _mine(call: Call) -> Select[CardRequest, Authorised]:
    query = select(CardRequest, Authorised).outerjoin(Authorised, Authorised.id == CardRequest.card_id)
    return query.where(CardRequest.merchant_id == call.merchant.id)


def shown(found: tuple[CardRequest, Authorised | None], now: datetime) -> Card:
    row, card = found
    over: Literal["requested", "expired"] = "expired" if now > row.expires_at else "requested"
    return Card(
        id=row.id,
        customer=row.merchant_customer_id,
        status="added" if card else over,
        brand=card.brand if card else None,
        last4=card.last4 if card else None,
        created_at=row.created_at,
    )
