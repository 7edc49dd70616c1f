"""What a merchant's bills are called, proposed by the merchant and approved by the operator."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import func, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import Invalid, NotFound
from ivr.api.shapes import NewText, Page, PageQuery, Text
from ivr.customers import audit
from ivr.customers.merchants import MerchantText, spoken_text
from ivr.customers.models import new_id
from ivr.store.insert import insert_new

MOST_TEXTS = 200


@operation("POST", "/texts", "bills:write", sent=NewText, returns=Text, status=201, links=("get_text",))
def propose_text(call: Call, given: NewText) -> Text:
    """Propose a description for bills."""
    text = spoken_text(given.text, "the text")
    mine = select(MerchantText).where(MerchantText.merchant_id == call.merchant.id)
    if known := call.session.scalar(mine.where(MerchantText.text == text)):
        return shown(known)
    if (call.session.scalar(select(func.count()).select_from(mine.subquery())) or 0) >= MOST_TEXTS:
        raise Invalid(f"you have proposed {MOST_TEXTS} texts, which is the most")
    values = {"id": new_id(), "merchant_id": call.merchant.id, "text": text, "created_at": call.now}
    if insert_new(call.session, MerchantText, values):  # else another request did at this moment
        audit.record(call.session, call.who, "text.proposed", str(values["id"]), call.now)
    return shown(call.session.scalars(mine.where(MerchantText.text == text)).one())


@operation("GET", "/texts", "bills:read", sent=PageQuery, returns=Page[Text])
def list_texts(call: Call, asked: PageQuery) -> Page[Text]:
    """Your descriptions, the newest first."""
    query = select(MerchantText).where(MerchantText.merchant_id == call.merchant.id)
    return page(call.session, query, (MerchantText.created_at, MerchantText.id), asked, shown)


@operation("GET", "/texts/{text_id}", "bills:read", returns=Text)
def get_text(call: Call, _: None) -> Text:
    """One of your descriptions."""
    found = call.session.get(MerchantText, call.path["text_id"])
    if found is None or found.merchant_id != call.merchant.id:
        raise NotFound("you have no text with this id")
    return shown(found)


def shown(row: MerchantText) -> Text:
    status: Literal["proposed", "approved", "refused"] = "approved" if row.approved_at else "proposed"
    return Text(id=row.id, text=row.text, status="refused" if row.refused_at else status, created_at=row.created_at)
