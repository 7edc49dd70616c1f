"""What a guardian hears of her ward: limits, choices, and the change that she is about to make, in words."""

from __future__ import annotations

from ivr.call.flow import Call, State
from ivr.call.prompts import Line, render, spoken_addresses, spoken_amount

MONEY = ("small", "normal", "month")  # limits that are amounts


def guardian_values(call: Call) -> dict[str, str]:
    """The values that the prompts named ``guard.*`` ask for. The call is about a ward, or she chooses one."""
    values = {"menu": render(Line.of("guard.menu.keys"), call.locale), "choices": _choices(call)}
    if call.ward:
        values["limits"] = " ".join(_limits(call))
    if call.state is State.GUARD_CONFIRM:
        values["change"] = _change(call, *call.change)
    return values


def _choices(call: Call) -> str:
    """By number; of a merchant also whether it is blocked."""
    blocked = render(Line.of("guard.blocked"), call.locale)
    return spoken_addresses([name + blocked * (value == "allow") for name, value in call.options], call.locale)


def _limits(call: Call) -> list[str]:
    assert call.ward
    told = [kind for kind in MONEY if kind in call.ward]
    limits = [_change(call, kind, "", str(call.ward[kind])) for kind in told]
    book = Line.of("guard.addresses" if call.options else "guard.addresses.none", choices=_choices(call))
    return [*(limits or [render(Line.of("guard.limits.operators"), call.locale)]), render(book, call.locale)]


def _change(call: Call, kind: str, name: str, value: str) -> str:
    """How it will be, or is: "Small payments end at 10 US dollars."."""
    amount = ""
    if kind in MONEY:
        assert call.ward
        amount = spoken_amount(int(value), str(call.ward["currency"]), call.locale)
    return render(Line.of(f"guard.change.{kind}", name=name, amount=amount, payer=call.payer), call.locale)
