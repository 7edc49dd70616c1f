"""A merchant's references to customers."""

from __future__ import annotations

from sqlalchemy import select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound, NotNow
from ivr.api.shapes import Customer, NewCustomer, Page, PageQuery
from ivr.customers import merchants
from ivr.customers.merchants import MerchantCustomer


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
