"""One-time pages: each of one row, found by its token, and of the one customer who is meant by the row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from flask import Response, session
from sqlalchemy.orm import Session

from ivr.console.people.desk import now
from ivr.customers.models import Customer

MOST_TRIES = 5
PROOF_LIFE = timedelta(minutes=10)
_PROVED = "proved"


class Row(Protocol):
    """What every such row has."""

    id: Any
    tries: Any


R = TypeVar("R", bound=Row)


class OneTimePage(ABC, Generic[R]):
    """A kind of page. Whoever opens it is a stranger until she has signed: she is told nothing about anybody."""

    name: ClassVar[str]
    """Its part of the address."""
    asks_number: ClassVar[bool]
    """Whether she gives her customer number besides her PIN; not where only she was sent the link."""
    model: type[R]

    @abstractmethod
    def meant(self, database: Session, row: R) -> Customer | None:
        """Who may sign, where we know her."""

    @abstractmethod
    def is_open(self, database: Session, row: R, moment: datetime) -> bool:
        """Whether it can still be signed and answered."""

    @abstractmethod
    def show(self, database: Session, row: R, customer_id: str | None) -> Response:
        """The page: to the customer who has signed, or to a stranger."""

    @abstractmethod
    def answer(self, row_id: str, customer_id: str | None) -> Response:
        """What a form of the page asks for."""

    def signed(self, database: Session, row: R, customer: Customer) -> None:
        """She has just proved who she is."""

    def failed(self, database: Session, row: R) -> None:
        """It was tried as often as it may be."""


def prove(kind: OneTimePage[Any], row: Row, customer_id: str) -> None:
    """Remember in this browser, for a while and for this page alone, who has signed."""
    session[_PROVED] = [kind.name, row.id, customer_id, (now() + PROOF_LIFE).timestamp()]


def proved(kind: OneTimePage[Any], row_id: str) -> str | None:
    """The customer who has signed this page in this browser."""
    name, signed_id, customer_id, until = session.get(_PROVED) or ("", "", None, 0.0)
    return customer_id if (name, signed_id) == (kind.name, row_id) and now().timestamp() < until else None
