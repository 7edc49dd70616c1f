"""Which page a purchase is confirmed on, by the merchant and the kind of product."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.customers.errors import InvalidInput
from ivr.customers.merchants import Merchant
from ivr.customers.text import clean_text
from ivr.purchases.models import MerchantPage
from ivr.webhooks.register import check_origin

HOSTED = ("goods", "service")


def kind_of(text: str) -> str:
    """A kind of product as it is compared. Raises InvalidInput."""
    return clean_text(text, "a kind of product", least=1, most=40).casefold()


def set_page(session: Session, merchant: Merchant, kind: str, page: str) -> MerchantPage:
    """Confirm this kind on a hosted page, or on a page of the merchant's that leads there. Raises InvalidInput."""
    kind = kind_of(kind)
    if page not in HOSTED:
        if "://" not in page:
            raise InvalidInput(f"a page is {', '.join(HOSTED)} or a URL")
        page = check_origin(session, merchant, page)
    found = session.get(MerchantPage, (merchant.id, kind)) or MerchantPage(merchant_id=merchant.id, kind=kind)
    found.page = page
    session.add(found)
    session.flush()
    return found


def pages_of(session: Session, merchant: Merchant) -> list[MerchantPage]:
    query = select(MerchantPage).where(MerchantPage.merchant_id == merchant.id)
    return list(session.scalars(query.order_by(MerchantPage.kind)))


def page_for(
    session: Session, merchant: Merchant, kind: str, ship_to: str | None
) -> tuple[Literal["goods", "service"], str | None]:
    """The hosted page, and the URL of the merchant's own that comes before it. Raises InvalidInput.

    That its origin is still registered is checked each time: an operator may have taken it back.
    """
    default: Literal["goods", "service"] = "service" if ship_to is None else "goods"
    found = session.get(MerchantPage, (merchant.id, kind))
    if found is None:
        return default, None
    if found.page in HOSTED:
        return ("goods" if found.page == "goods" else "service"), None
    return default, check_origin(session, merchant, found.page)


def with_query(url: str, **more: str) -> str:
    """The URL with more in its query."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(more)}"
