"""A merchant's apps, and which customers let them charge."""

from __future__ import annotations

from sqlalchemy import Select, select

from ivr.api.lists import page
from ivr.api.operations import Call, operation
from ivr.api.problems import NotFound
from ivr.api.shapes import App, Binding, BindingQuery, NewBinding, Page, PageQuery
from ivr.api.v1 import customers
from ivr.customers import apps
from ivr.customers.apps import App as AppRow
from ivr.customers.apps import AppBinding


@operation("GET", "/apps", "apps:read", sent=PageQuery, returns=Page[App])
def list_apps(call: Call, asked: PageQuery) -> Page[App]:
    """Your apps, the newest first."""
    query = select(AppRow).where(AppRow.merchant_id == call.merchant.id, AppRow.closed_at.is_(None))
    return page(call.session, query, (AppRow.created_at, AppRow.id), asked, _shown_app)


@operation(
    "POST", "/apps/{app_id}/bindings", "apps:write", sent=NewBinding, returns=Binding, status=201,
    problems=(NotFound,), links=("get_binding", "remove_binding"),
)  # fmt: skip
def create_binding(call: Call, given: NewBinding) -> Binding:
    """Ask a customer to let an app charge her: she is sent a link, if there is such a customer."""
    app = find_app(call, call.path["app_id"])
    return shown(apps.request_binding(call.session, app, customers.find(call, given.customer), call.now))


@operation("GET", "/bindings", "apps:read", sent=BindingQuery, returns=Page[Binding])
def list_bindings(call: Call, asked: BindingQuery) -> Page[Binding]:
    """Who lets which app charge, the newest request first."""
    query = _mine(call)
    if asked.customer is not None:
        query = query.where(AppBinding.merchant_customer_id == asked.customer)
    return page(call.session, query, (AppBinding.requested_at, AppBinding.id), asked, shown)


@operation("GET", "/bindings/{binding_id}", "apps:read", returns=Binding)
def get_binding(call: Call, _: None) -> Binding:
    """One binding."""
    return shown(_find(call))


@operation("DELETE", "/bindings/{binding_id}", "apps:write")
def remove_binding(call: Call, _: None) -> None:
    """Charge this customer no more, or withdraw the request."""
    apps.unbind(call.session, _find(call), who=call.who, now=call.now)


def find_app(call: Call, app_id: str) -> AppRow:
    """The merchant's own. Raises NotFound."""
    found = call.session.get(AppRow, app_id)
    if found is None or found.merchant_id != call.merchant.id or found.closed_at is not None:
        raise NotFound("you have no app with this id")
    return found


def _find(call: Call) -> AppBinding:
    found = call.session.scalar(_mine(call).where(AppBinding.id == call.path["binding_id"]))
    if found is None:
        raise NotFound("you have no binding with this id")
    return found


def _mine(call: Call) -> Select[AppBinding]:
    return select(AppBinding).join(AppRow, AppRow.id == AppBinding.app_id).where(AppRow.merchant_id == call.merchant.id)


def _shown_app(row: AppRow) -> App:
    return App(id=row.id, name=row.name, created_at=row.created_at)


def shown(row: AppBinding) -> Binding:
    return Binding(
        id=row.id,
        app=row.app_id,
        customer=row.merchant_customer_id,
        status="unbound" if row.unbound_at else "bound" if row.bound_at else "requested",
        currency=row.currency,
        limit_minor=row.limit_minor,
        day_limit_minor=row.day_limit_minor,
        requested_at=row.requested_at,
        bound_at=row.bound_at,
    )
