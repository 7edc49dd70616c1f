"""The service itself: its models with their figures, the ledger, health, and who may sign in here."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from flask import Response, abort, request, send_from_directory, url_for
from sqlalchemy import func, select

from ivr.console.operators import accounts
from ivr.console.operators.desk import back, blueprint, desk, now, operator, page, reading, who, writing
from ivr.console.operators.markdown import to_html
from ivr.console.operators.models import Operator
from ivr.customers.models import Audit
from ivr.jobs import Job
from ivr.ledger.models import LedgerEntry
from ivr.ops.twilio import checks

LATE = timedelta(minutes=1)
MOST_SHOWN = 50
_PLOT = re.compile(r"[A-Za-z0-9_-]+\.png", re.ASCII)


@blueprint.get("/models")
def models() -> Response:
    shown = []
    for name, folder in _folders().items():
        card = folder / "MODEL_CARD.md"
        plots = {path.name: url_for("desk.plot", model=name, file=path.name) for path in _plots(folder)}
        shown.append((name, folder.name, to_html(card.read_text(), plots) if card.is_file() else None, plots))
    return page("models", shown=shown)


@blueprint.get("/models/<model>/<file>")
def plot(model: str, file: str) -> Response:
    folder = _folders().get(model)
    if folder is None or file not in {path.name for path in _plots(folder)}:
        abort(404)
    return send_from_directory(folder.resolve(), file)


@blueprint.get("/ledger")
def ledger() -> Response:
    final, refused = LedgerEntry.height.is_not(None), LedgerEntry.refused.is_not(None)
    with reading() as session:
        counts = session.execute(
            select(
                func.count().filter(final), func.count().filter(refused), func.count().filter(~final & ~refused),
                func.max(LedgerEntry.height), func.min(LedgerEntry.created_at).filter(~final & ~refused),
            ).select_from(LedgerEntry)
        ).one()  # fmt: skip
        entries = session.scalars(select(LedgerEntry).order_by(LedgerEntry.id.desc()).limit(MOST_SHOWN)).all()
    return page("ledger", counts=counts, entries=entries, node=desk().services.settings.ledger_url)


@blueprint.get("/health")
def health() -> Response:
    """What the service stands on; when asked, also whether it is reached from outside."""
    services, late_since = desk().services, now() - LATE
    asked = (*checks.INSIDE, *(checks.WAY_IN if "outside" in request.args else ()))
    late = select(Job.kind, func.count(), func.min(Job.run_at)).where(Job.done_at.is_(None), Job.run_at <= late_since)
    given_up = select(Job.kind, func.count(), func.max(Job.done_at)).where(
        Job.last_error_type.is_not(None), Job.done_at >= now() - timedelta(days=1)
    )
    with reading() as session:
        jobs = session.execute(late.group_by(Job.kind).order_by(Job.kind)).all()
        lost = session.execute(given_up.group_by(Job.kind).order_by(Job.kind)).all()
    found = list(checks.run(services.settings, None, None, asked))
    return page("health", found=found, jobs=jobs, lost=lost, outside="outside" in request.args)


@blueprint.get("/operators")
def operators() -> Response:
    with reading() as session:
        everybody = session.scalars(select(Operator).order_by(Operator.name)).all()
        query = select(Audit).where(Audit.who.like("operator %") | Audit.what.like("console.%"))
        trail = session.scalars(query.order_by(Audit.at.desc()).limit(MOST_SHOWN)).all()
    return page("operators", everybody=everybody, trail=trail, now=now())


@blueprint.post("/operators/<name>/disable")
def disable(name: str) -> Response:
    if name == operator().name:
        return back("operators", error="error.yourself")
    with writing() as session:
        if accounts.find(session, name) is None:
            abort(404)
        accounts.disable(session, name, who=who(operator().name), now=now())
    return back("operators", said="said.disabled")


def _folders() -> dict[str, Path]:
    given = desk().services.settings
    folders = {"voice": given.voice_model_dir, "digits": given.digit_model_dir, "digits-zh": given.digit_model_zh_dir}
    return {name: folder for name, folder in folders.items() if folder is not None}


def _plots(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _PLOT.fullmatch(path.name) and path.is_file()]
