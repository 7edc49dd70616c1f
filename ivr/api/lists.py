"""Lists, page by page, the newest first: a cursor names the last row of the page before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from ivr.api.problems import Invalid
from ivr.api.shapes import Page, PageQuery

T = TypeVar("T")


def page(
    session: Session,
    query: Select[*tuple[Any, ...]],
    by: tuple[InstrumentedAttribute[datetime], InstrumentedAttribute[str]],
    asked: PageQuery,
    shown: Callable[[Any], T],
) -> Page[T]:
    """The part of ``query`` that was asked for; its first column is what ``shown`` makes an entry of. Raises Invalid.

    ``by``: the columns of the time and the id that rows are ordered by.
    """
    at, key = by
    if asked.cursor is not None:
        query = query.where(tuple_(at, key) < _read(asked.cursor))
    rows: Sequence[Any] = session.execute(query.order_by(at.desc(), key.desc()).limit(asked.limit + 1)).all()
    kept = rows[: asked.limit]
    more = len(rows) > len(kept)
    following = _cursor(getattr(kept[-1][0], at.key), getattr(kept[-1][0], key.key)) if more else None
    return Page(data=[shown(row if len(row) > 1 else row[0]) for row in kept], next=following)


def _cursor(at: datetime, key: str) -> str:
    return base64.urlsafe_b64encode(f"{at.isoformat()} {key}".encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, str]:
    try:
        at, key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not key.isprintable():
            raise ValueError
        return moment.astimezone(UTC), key
    except (ValueError, OverflowError, binascii.Error):
        raise Invalid("this is no cursor that we gave") from None
