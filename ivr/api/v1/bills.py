"""Bills: what a merchant's customers owe."""

from __future__ import annotations

from sqlalchemy import Select, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound, NotNow
from ivr.api.shapes import Bill, BillQuery, NewBill, Page
from ivr.api.shapes import BillStatus as Status
from ivr.api.v1 import customers
from ivr.call import bill_calls
from ivr.customers import audit, bills, merchants
from ivr.customers.merchants import MerchantBill
from ivr.customers.models import Bill as OwedBill
from ivr.customers.models import BillStatus


@operation(
    "POST", "/bills", "bills:write", sent=NewBill, returns=Bill, status=201,
    problems=(NotFound,), links=("get_bill", "ring_bill", "cancel_bill"),
)  # fmt: skip
def create_bill(call: Call, given: NewBill) -> Bill:
    """Have somebody owe you."""
    made = merchants.issue_bill(
        call.session,
        customers.find(call, given.customer),
        now=call.now,
        **given.model_dump(exclude={"customer"}),
    )
    audit.record(call.session, call.who, "bill.created", made.id, call.now)
    return shown((made, None))


@operation("GET", "/bills", "bills:read", sent=BillQuery, returns=Page[Bill])
def list_bills(call: Call, asked: BillQuery) -> Page[Bill]:
    """Your bills, the newest first."""
    query = _mine(call)
    if asked.customer is not None:
        query = query.where(MerchantBill.merchant_customer_id == asked.customer)
    return page(call.session, query, (MerchantBill.created_at, MerchantBill.id), asked, shown)


@operation("GET", "/bills/{bill_id}", "bills:read", returns=Bill)
def get_bill(call: Call, _: None) -> Bill:
    """One of your bills."""
    return shown(find(call, call.path["bill_id"]))


@operation("POST", "/bills/{bill_id}/cancel", "bills:write", returns=Bill, problems=(NotNow,))
def cancel_bill(call: Call, _: None) -> Bill:
    """Withdraw an open bill."""
    bill = find(call, call.path["bill_id"])[0]
    try:
        merchants.cancel_bill(call.session, bill, call.now)
    except bills.InvalidBill as error:
        raise NotNow(str(error)) from None
    audit.record(call.session, call.who, "bill.cancelled", bill.id, call.now)
    return shown((bill, BillStatus.CANCELLED))


@operation("POST", "/bills/{bill_id}/ring", "bills:write", returns=Bill, problems=(NotNow,))
def ring_bill(call: Call, _: None) -> Bill:
    """Have us ring the customer about an open bill, within a day, if she wants to be rung up; this is not told."""
    found = shown(find(call, call.path["bill_id"]))
    if found.status != "open":
        raise NotNow("the bill is not open")
    bill_calls.plan(call.session, found.id, call.now)
    audit.record(call.session, call.who, "bill.ring_asked", found.id, call.now)
    return found


def find(call: Call, bill_id: str) -> tuple[MerchantBill, BillStatus | None]:
    """The merchant's own bill, and how it stands where somebody owes it. Raises NotFound."""
    found = call.session.execute(_mine(call).where(MerchantBill.id == bill_id)).first()
    if found is None:
        raise NotFound("you have no bill with this id")
    return found[0], found[1]


def _mine(call: Call) -> Select[MerchantBill, BillStatus]:
    query = select(MerchantBill, OwedBill.status).outerjoin(OwedBill, OwedBill.id == MerchantBill.id)
    return query.where(MerchantBill.merchant_id == call.merchant.id)


def shown(found: tuple[MerchantBill, BillStatus | None]) -> Bill:
    row, owed = found
    status: Status = "cancelled" if row.cancelled_at else (owed or BillStatus.OPEN).value
    return Bill(
        id=row.id,
        customer=row.merchant_customer_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        description=row.description,
        ship_to=row.ship_to,
        due_at=row.due_at,
        hold_only=row.hold_only,
        status=status,
        created_at=row.created_at,
    )
