"""A merchant's references to customers."""

from __future__ import annotations

from pydantic import AwareDatetime, Field
from sqlalchemy import select

from ivr.api.lists import Page, PageQuery, page
from ivr.api.operations import Call, Data, operation
from ivr.api.problems import NotFound, NotNow
from ivr.customers import merchants
from ivr.customers.merchants import MerchantCustomer


class NewCustomer(Data):
    """Somebody, by telephone or customer number. The answer does not tell whether we know her."""

    reference: str = Field(min_length=1, max_length=64, description="Yours; what you like, but no card number.")
    phone: str | None = Field(None, max_length=20, description="E.164, as +15035550123.")
    number: str | None = Field(None, pattern="^[0-9]{7}$", description="Her customer number, if she told you.")


class Customer(Data):
    """Your reference to somebody."""

    id: str
    reference: str
    created_at: AwareDatetime


@operation(
    "POST", "/customers", "customers:write", sent=NewCustomer, returns=Customer, status=201,
    problems=(NotNow,), links=("get_customer",),
)  # fmt: skip
def create_customer(call: Call, given: NewCustomer) -> Customer:
    """Refer to somebody who may have a bill."""
    try:
        made = merchants.refer(
            call.session, call.merchant.id, given.reference, phone=given.phone, number=given.number, now=call.now
        )
    except merchants.ReferenceDiffers as error:
        raise NotNow(str(error)) from None
    return shown(made)


@operation("GET", "/customers", "customers:read", sent=PageQuery, returns=Page[Customer])
def list_customers(call: Call, asked: PageQuery) -> Page[Customer]:
    """Your references, the newest first."""
    query = select(MerchantCustomer).where(MerchantCustomer.merchant_id == call.merchant.id)
    return page(call.session, query, (MerchantCustomer.created_at, MerchantCustomer.id), asked, shown)


@operation("GET", "/customers/{customer_id}", "customers:read", returns=Customer)
def get_customer(call: Call, _: None) -> Customer:
    """One of your references."""
    return shown(find(call, call.path["customer_id"]))


def find(call: Call, customer_id: str) -> MerchantCustomer:
    """The merchant's own. Raises NotFound."""
    found = call.session.get(MerchantCustomer, customer_id)
    if found is None or found.merchant_id != call.merchant.id:
        raise NotFound("you have no customer with this id")
    return found


def shown(row: MerchantCustomer) -> Customer:
    return Customer(id=row.id, reference=row.reference, created_at=row.created_at)
