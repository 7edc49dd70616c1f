"""The page of a purchase: what is bought from whom, who she is, where it goes, yes or no, and how it ended."""

from __future__ import annotations

from datetime import datetime

from flask import Response, abort, request
from sqlalchemy.orm import Session

from ivr.console.pay.desk import back, bank, page
from ivr.console.pay.kinds import OneTimePage
from ivr.console.people.desk import now, writing
from ivr.customers import merchants
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import Customer
from ivr.purchases import buy
from ivr.purchases.models import Purchase
from ivr.purchases.pages import with_query
from ivr.purchases.results import Result, Status

LOOK_AGAIN_S = {Status.CONFIRMED: 2, Status.AWAITING_APPROVAL: 15}
BACK_TO_MERCHANT_S = 10


class PurchasePage(OneTimePage[Purchase]):
    """Anybody may have its link, for the merchant sends it: so it asks for number and PIN."""

    name, asks_number, model = "purchase", True, Purchase

    def meant(self, database: Session, row: Purchase) -> Customer | None:
        return merchants.meant(database, database.get_one(MerchantCustomer, row.merchant_customer_id))

    def is_open(self, database: Session, row: Purchase, moment: datetime) -> bool:
        return buy.state_of(database, row, moment)[0] is Status.OPEN

    def signed(self, database: Session, row: Purchase, customer: Customer) -> None:
        database.get_one(MerchantCustomer, row.merchant_customer_id).customer_id = customer.id  # from now on
        row.customer_id = customer.id

    def failed(self, database: Session, row: Purchase) -> None:
        """The same whether we know who is meant or not, so that no merchant finds that out here."""
        buy.end(database, row, Result.UNKNOWN_USER, who="page", now=now())

    def show(self, database: Session, row: Purchase, customer_id: str | None) -> Response:
        status, result = buy.state_of(database, row, now())
        merchant = database.get_one(Merchant, row.merchant_id).name
        if status is not Status.OPEN:
            return _ended(row, merchant, status, result)
        if customer_id is None or customer_id != row.customer_id:
            return page("purchase", purchase=row, merchant=merchant, offer=None, now=now())
        offer = buy.offer(database, row, customer_id, now())
        return page("purchase", purchase=row, merchant=merchant, offer=offer, given=buy.GIVEN, now=now())

    def answer(self, row_id: str, customer_id: str | None) -> Response:
        asked = request.form.get("do")
        if asked not in ("confirm", "cancel"):
            abort(400)
        with writing() as database:
            row = database.get(Purchase, row_id, with_for_update=True)
            if row is None:
                abort(404)
            if asked == "cancel":
                if self.is_open(database, row, now()):
                    buy.end(database, row, Result.CANCELLED, who="page", now=now())
            elif customer_id is None or customer_id != row.customer_id:
                return back(error="" if not self.is_open(database, row, now()) else "error.sign_again")
            else:
                return _confirm(database, row)
        return back()


def _confirm(database: Session, row: Purchase) -> Response:
    card_id, address_id = request.form.get("card", ""), request.form.get("address", "")
    try:
        buy.confirm(database, row, card_id=card_id, address_id=address_id, bank=bank(), now=now())
    except buy.ChoiceUnusable:
        return back(error="error.choice")
    return back()


def _ended(row: Purchase, merchant: str, status: Status, result: Result | None) -> Response:
    """What became of it. The page looks again by itself, then leads back; by a header, which needs no script."""
    told = {"purchase": row.id, "status": status.value} | ({"result": result.value} if result else {})
    url = with_query(row.result_url, **told) if row.result_url else None
    response = page("result", purchase=row, merchant=merchant, standing=status, result=result, url=url)
    if status in LOOK_AGAIN_S:
        response.headers["Refresh"] = str(LOOK_AGAIN_S[status])
    elif url:
        response.headers["Refresh"] = f"{BACK_TO_MERCHANT_S}; url={url}"
    return response
