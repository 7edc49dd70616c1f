"""The one place where money changes: every command passes here, once for its idempotency key.

Key, hash of the input, the command's changes and its answer share the caller's transaction. A second request with the
same key waits for the first transaction to end, at the key's row, and is then given its answer. A command that raises
leaves nothing, and its key is free again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol

from sqlalchemy import update
from sqlalchemy.orm import Session

from ivr.payments.models import PaymentCommand
from ivr.store.insert import insert_new


class PaymentError(Exception):
    """A command on a payment cannot be carried out. Nothing was changed."""


class IdempotencyConflict(PaymentError):
    """The idempotency key was used before for something else."""


class Command(Protocol):
    """A frozen dataclass. Fields with ``compare=False`` lie outside the hash: a repeat may differ in them."""

    name: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self, session: Session, who: str, now: datetime) -> dict[str, Any]:
        """Change what is to be changed and give the answer, as JSON. It may raise; then nothing happened."""


def execute(session: Session, command: Command, *, key: str, who: str, now: datetime) -> dict[str, Any]:
    """The command's answer, or the first one again. Raises IdempotencyConflict and what the command raises."""
    values = {"key": key, "name": command.name, "input_hash": _input_hash(command), "who": who, "at": now}
    with session.begin_nested():  # a command that raises leaves nothing, also when its caller goes on
        if insert_new(session, PaymentCommand, values | {"answer": None}):
            answer = command.run(session, who, now)
            session.flush()
            session.execute(update(PaymentCommand).where(PaymentCommand.key == key).values(answer=answer))
            return answer
    first = answered(session, command, key=key)
    assert first is not None, "a command that ended has its answer"
    return first


def answered(session: Session, command: Command, *, key: str) -> dict[str, Any] | None:
    """The first answer to this command under this key; None when there was none. Raises IdempotencyConflict."""
    first = session.get(PaymentCommand, key, populate_existing=True)
    if first is None:
        return None
    if (first.name, first.input_hash) != (command.name, _input_hash(command)):
        raise IdempotencyConflict("this idempotency key belongs to another command")
    return first.answer


def _input_hash(command: Command) -> str:
    asked = {field.name: _plain(getattr(command, field.name)) for field in fields(command) if field.compare}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
