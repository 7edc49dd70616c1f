"""What is sent to version 1 of the API and answered by it. Imported by the service and by the client, so nothing of
the service's own is imported here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from ivr.customers.money import MOST_MINOR
from ivr.customers.text import LONGEST_SPOKEN
from ivr.purchases.results import Result, Status
from ivr.webhooks.address import LONGEST_URL

PREFIX = "/v1"
MOST = 200  # entries of a page
T = TypeVar("T")
_ID = "^[0-9a-f]{16}$"


def _in_utc_too(value: datetime) -> datetime:
    """The first and the last hours of the calendar are in another year, which there is not."""
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError("there is no such time in UTC") from None
    return value


class Data(BaseModel):
    """What is sent to us and by us. Errors do not repeat what was sent: a card number may have got in."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


class Page(BaseModel, Generic[T]):
    """A part of a list. ``next`` is the cursor of the part after it, null at the end."""

    data: list[T]
    next: str | None


class PageQuery(BaseModel):
    """Which part of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=MOST)
    cursor: str | None = Field(default=None, max_length=200, description="`next` of the page before.")


# --- customers


class NewCustomer(Data):
    """Somebody, by telephone or customer number. The answer does not tell whether we know her."""

    reference: str = Field(min_length=1, max_length=64, description="Yours; what you like, but no card number.")
    phone: str | None = Field(default=None, max_length=20, description="E.164, as +15035550123.")
    number: str | None = Field(default=None, pattern="^[0-9]{7}$", description="Her customer number, if she told you.")


class Customer(Data):
    """Your reference to somebody."""

    id: str
    reference: str
    created_at: AwareDatetime


# --- cards


class Expiry(Data):
    """The last month in which a card is valid."""

    month: int = Field(ge=1, le=12)
    year: int = Field(ge=2000, le=2100)


class NewCard(Data):
    """A card that a customer is to add. She gets a link, if she is a customer here; you are not told which."""

    customer: str = Field(pattern=_ID, description="The id of your reference to her.")
    token: str | None = Field(
        default=None,
        repr=False,
        pattern="^[!-~]{4,128}$",
        description="The bank's token of the card, where you have one; no card number.",
    )
    exp: Expiry | None = Field(default=None, description="Of the card behind the token, so that she need not enter it.")


class Card(Data):
    """A card that you asked for. Brand and last four are there once she has added it."""

    id: str
    customer: str
    status: Literal["requested", "added", "expired"]
    brand: str | None
    last4: str | None
    created_at: AwareDatetime


class CardQuery(PageQuery):
    """Which cards."""

    customer: str | None = Field(default=None, pattern=_ID)


# --- texts


class NewText(Data):
    """A description that bills are to have."""

    text: str = Field(min_length=1, max_length=LONGEST_SPOKEN, description="Spoken: no numbers, no links.")


class Text(Data):
    """A description, and whether bills may have it."""

    id: str
    text: str
    status: Literal["proposed", "approved", "refused"]
    created_at: AwareDatetime


# --- bills

BillStatus = Literal["open", "paid", "cancelled"]


class NewBill(Data):
    """What somebody is to pay you."""

    customer: str = Field(pattern=_ID, description="The id of your reference to her.")
    amount_minor: int = Field(gt=0, le=MOST_MINOR, description="In the currency's smallest unit.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217.")
    description: str = Field(
        default="", max_length=LONGEST_SPOKEN, description="One of your approved texts, or nothing."
    )
    ship_to: str | None = Field(default=None, min_length=1, max_length=200, description="Where goods go, on one line.")
    due_at: Annotated[AwareDatetime, AfterValidator(_in_utc_too)] | None = Field(default=None, strict=False)
    hold_only: bool = Field(default=False, description="Hold the amount when it is paid, and debit it later.")


class Bill(Data):
    """A bill of yours. ``open`` it is also while nobody has the telephone number that it is for."""

    id: str
    customer: str
    amount_minor: int
    currency: str
    description: str
    ship_to: str | None
    due_at: AwareDatetime | None
    hold_only: bool
    status: BillStatus
    created_at: AwareDatetime


class BillQuery(PageQuery):
    """Which bills."""

    customer: str | None = Field(default=None, pattern=_ID)


# --- payments

PaymentStatus = Literal["under_way", "held", "paid", "part_refunded", "refunded", "failed"]


class Payment(Data):
    """A payment of one of your bills."""

    id: str
    bill: str
    amount_minor: int = Field(description="What was, or is to be, debited.")
    currency: str
    status: PaymentStatus
    ship_to: str | None = Field(description="Where the goods go, as the payer chose.")
    receipt_number: str | None
    created_at: AwareDatetime


class PaymentQuery(PageQuery):
    """Which payments."""

    bill: str | None = Field(default=None, pattern=_ID)


class Amount(Data):
    """How much of what is held is to be debited."""

    amount_minor: int | None = Field(default=None, gt=0, le=MOST_MINOR, description="The whole when null.")


# --- refunds


class NewRefund(Data):
    """What is to be given back of a payment."""

    payment: str = Field(pattern=_ID)
    amount_minor: int | None = Field(default=None, gt=0, le=MOST_MINOR, description="All that is left of it when null.")


class Refund(Data):
    """An amount that goes back to the card."""

    id: str
    payment: str
    amount_minor: int
    status: Literal["requested", "done", "refused"]
    created_at: AwareDatetime


class RefundQuery(PageQuery):
    """Which refunds."""

    payment: str | None = Field(default=None, pattern=_ID)


# --- purchases

MOST_ITEMS = 200  # of a batch


class NewPurchase(Data):
    """What a customer of yours wants to buy."""

    customer: str = Field(pattern=_ID, description="The id of your reference to her.")
    amount_minor: int = Field(gt=0, le=MOST_MINOR, description="In the currency's smallest unit.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217.")
    product_kind: str = Field(min_length=1, max_length=40, description="Chooses the page that she confirms it on.")
    description: str = Field(
        default="", max_length=LONGEST_SPOKEN, description="One of your approved texts, or nothing."
    )
    ship_to: str | None = Field(default=None, min_length=1, max_length=200, description="Where goods go, on one line.")
    result_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_URL,
        description="Where she goes afterwards: https, a registered origin.",
    )


class Purchase(Data):
    """A purchase request. ``result`` says how it ended, once it has; it is told to you as late as to the customer."""

    id: str
    customer: str
    amount_minor: int
    currency: str
    product_kind: str
    description: str
    status: Status
    result: Result | None
    page_url: str = Field(repr=False, description="Where to send her.")
    payment: str | None = Field(description="Once she has confirmed it.")
    bill: str | None = Field(description="Its bill, which payment webhooks name.")
    created_at: AwareDatetime
    expires_at: AwareDatetime


class PurchaseQuery(PageQuery):
    """Which purchases."""

    customer: str | None = Field(default=None, pattern=_ID)


class BatchItem(NewPurchase):
    """One of many."""

    idempotency_key: str = Field(pattern="^[!-~]{8,64}$", description="Its own, as in Idempotency-Key.")


class Batch(Data):
    """Many purchases."""

    items: list[BatchItem] = Field(min_length=1, max_length=MOST_ITEMS)


class Refusal(Data):
    """Why an item was not carried out: a problem, as a request by itself would be answered."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class BatchAnswer(Data):
    """What became of one item: a purchase, or a problem."""

    idempotency_key: str
    status: Literal[201, 404, 409, 422]
    purchase: Purchase | None
    problem: Refusal | None


class BatchAnswers(Data):
    """What became of each item, in the order they came in."""

    items: list[BatchAnswer]


# --- webhooks


class NewWebhook(Data):
    """Where you want to be told what becomes of payments."""

    url: str = Field(min_length=1, max_length=LONGEST_URL, description="https, at an origin registered for you.")


class Webhook(Data):
    """An endpoint of yours."""

    id: str
    url: str
    created_at: AwareDatetime


class MadeWebhook(Webhook):
    """A new endpoint, with what its signatures are checked with (Standard Webhooks)."""

    secret: str | None = Field(default=None, repr=False)


class AboutPayment(Data):
    """What a message tells of a payment. Why one was refused is between the customer and her bank."""

    payment: str
    sequence: int = Field(description="The order of the messages about one payment.")
    bill: str
    amount_minor: int = Field(description="What was debited, or is held.")
    currency: str
    receipt_number: str | None = None
    ship_to: str | None = Field(default=None, description="Where the goods go, as the payer chose.")
    refunded_minor: int | None = Field(default=None, description="What was given back this time.")


class PaymentMessage(Data):
    """A message about a payment of one of your bills."""

    type: Literal["payment.held", "payment.paid", "payment.refused", "payment.refunded"]
    timestamp: AwareDatetime
    data: AboutPayment


class AboutPurchase(Data):
    """What a message tells of a purchase that ended without a payment."""

    purchase: str
    customer: str
    amount_minor: int
    currency: str
    result: Result


class PurchaseMessage(Data):
    """A message about a purchase that ended without a payment. Of one that has a payment, its messages tell."""

    type: Literal["purchase.cancelled", "purchase.expired", "purchase.refused"]
    timestamp: AwareDatetime
    data: AboutPurchase


# --- apps


class App(Data):
    """An app of yours. The operator adds it, for its name is spoken."""

    id: str
    name: str
    created_at: AwareDatetime


class NewBinding(Data):
    """Ask a customer whether an app may charge her."""

    customer: str = Field(pattern=_ID, description="The id of your reference to her.")


class Binding(Data):
    """That a customer lets an app charge her. ``requested`` it is until she signs, and for ever if nobody does."""

    id: str
    app: str
    customer: str
    status: Literal["requested", "bound", "unbound"]
    currency: str | None = Field(description="Of the limits; null until she signs.")
    limit_minor: int | None = Field(description="What one charge may be at most.")
    day_limit_minor: int | None = Field(description="What all charges of 24 hours may be at most.")
    requested_at: AwareDatetime
    bound_at: AwareDatetime | None


class BindingQuery(PageQuery):
    """Which bindings."""

    customer: str | None = Field(default=None, pattern=_ID)


# --- app charges


class NewAppCharge(Data):
    """A charge that a running app incurs."""

    app: str = Field(pattern=_ID)
    customer: str = Field(pattern=_ID, description="The id of your reference to her, which bound the app.")
    amount_minor: int = Field(gt=0, le=MOST_MINOR, description="In the currency's smallest unit.")
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217; that of the binding.")
    description: str = Field(
        default="", max_length=LONGEST_SPOKEN, description="One of your approved texts, or nothing."
    )


class AppCharge(Data):
    """A charge by an app."""

    id: str
    app: str
    customer: str
    amount_minor: int
    currency: str
    description: str
    status: Literal["asking", "confirmed", "declined", "refused", "expired"]
    payment: str | None = Field(description="The payment that a confirmed charge started.")
    created_at: AwareDatetime
    expires_at: AwareDatetime


class Prompt(Data):
    """What the app shows and says."""

    text: str = Field(repr=False, description="With the digits to be said, if there are any.")
    audio_url: str | None = Field(repr=False, description="Your own recording, to be played first.")


class AskedAppCharge(AppCharge):
    """A charge, with what to ask as long as it is ``asking``. The addresses need no key: keep them in the app."""

    prompt: Prompt | None = None
    challenge: str | None = Field(
        default=None, repr=False, description="The digits to be said; null where a yes is enough."
    )
    upload_url: str | None = Field(default=None, repr=False, description="POST a recording here.")
    stream_url: str | None = Field(default=None, repr=False, description="Or send frames here, over a websocket.")


class AppChargeAnswer(Data):
    """What her answer to a charge came to. The fields that are null are there where she is asked ``again``."""

    status: Literal["again", "declined", "confirmed", "refused"]
    say: str = Field(repr=False, description="To be shown, or said.")
    challenge: str | None = Field(default=None, repr=False, description="The digits to be said now, if there are any.")
    upload_url: str | None = Field(default=None, repr=False)
    stream_url: str | None = Field(default=None, repr=False)


class AppChargeQuery(PageQuery):
    """Which charges."""

    app: str | None = Field(default=None, pattern=_ID)
    customer: str | None = Field(default=None, pattern=_ID)
