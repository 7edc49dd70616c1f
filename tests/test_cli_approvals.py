"""The operator's commands of approvals, as he types them."""

from __future__ import annotations

import json
from pathlib import Path

from test_cli_operator import Desk, desk  # noqa: F401


def _customer(desk: Desk, phone: str, *options: str) -> str:  # noqa: F811
    return desk.ok("customer", "add", "--phone", phone, "--sms", phone, *options).split()[1]


def test_from_a_minor_without_a_guardian_to_an_appointment(desk: Desk) -> None:  # noqa: F811
    lea, ann = _customer(desk, "+15035550101", "--minor"), _customer(desk, "+15035550102")
    explained = desk.ok("policy", "explain", lea, "--amount", "3")
    assert "refused: a minor pays only under the eyes of a guardian" in explained
    assert "minor" in desk.ok("customer", "show", lea)
    said = desk.ok("approver", "add", lea, ann, "--label", "Lea", "--tell", "digest", "--until", "2040-01-01")
    assert "is proposed as guardian" in said
    listed = desk.ok("approver", "list", lea)
    assert all(word in listed for word in (lea, ann, "guardian", "proposed", "2040-01-01"))
    ended = desk.ok("approver", "end", said.split()[1].rstrip(":"))
    assert "ends" in ended
    assert "no guardians" in desk.ok("approver", "list")
    assert "ended" in desk.ok("approver", "list", "--ended")


def test_what_cannot_be_is_said_and_changes_nothing(desk: Desk) -> None:  # noqa: F811
    lea = _customer(desk, "+15035550101")
    sharing = _customer(desk, "+15035550101")
    silent = desk.ok("customer", "add", "--phone", "+15035550109").split()[1]
    for arguments, says in (
        (("approver", "add", lea, lea, "--label", "L"), "her own payments"),
        (("approver", "add", lea, sharing, "--label", "L"), "share a telephone number"),
        (("approver", "add", lea, silent, "--label", "L"), "told nothing by message"),
        (("approver", "add", lea, "1234566", "--label", "L"), "no customer has the number"),
        (("approver", "add", lea, silent, "--label", "L", "--above", "5.00"), "go together"),
        (("approver", "end", "nothing"), "there is no appointment"),
        (("policy", "explain", lea), "give --bill"),
        (("policy", "explain", lea, "--bill", "nothing"), "there is no bill"),
        (("address", "remove", lea, "3"), "no number 3"),
        (("address", "add", lea, "card", "4242 4242 4242 4242"), "looks like a card number"),
    ):
        result = desk.run(*arguments)
        assert result.exit_code == 2, result.output
        assert says in result.output
    assert "no guardians" in desk.ok("approver", "list")


def test_a_policy_from_a_file_and_back(desk: Desk, tmp_path: Path) -> None:  # noqa: F811
    lea = _customer(desk, "+15035550101")
    file = tmp_path / "policy.json"
    night = {"name": "no games at night", "when": {"kinds": ["games"], "hours": {"begins": "20:00", "ends": "07:00"}}}
    file.write_text(json.dumps({"name": "mine", "rules": [{**night, "refuse": True}]}))
    assert "version 1" in desk.ok("policy", "set", lea, str(file))
    shown = json.loads(desk.ok("policy", "show", lea))
    assert shown["rules"][0]["name"] == "no games at night"
    assert desk.ok("policy", "explain", lea, "--amount", "3").endswith("allowed\n")
    file.write_text('{"name": "mine", "rules": [{"name": "r", "refuse": true, "when": {"above_minor": 4}}]}')
    result = desk.run("policy", "set", lea, str(file))
    assert result.exit_code == 2
    assert "currency" in result.output
    desk.ok("policy", "reset", lea)
    assert json.loads(desk.ok("policy", "show", lea)) == {"name": "plain"}


def test_bills_that_ship_and_the_address_book(desk: Desk) -> None:  # noqa: F811
    lea, ann = _customer(desk, "+15035550101"), _customer(desk, "+15035550102")
    desk.ok("approver", "add", lea, ann, "--label", "Lea")
    bill = desk.ok(
        "bill", "add", lea, "--amount", "12.50", "--currency", "USD", "--merchant", "Corner Bookshop",
        "--kind", "Books", "--ship-to", "1 Main Street",
    ).split()[1].rstrip(":")  # fmt: skip
    assert "address 1" in desk.ok("address", "add", lea, "home", "1 Main Street")
    assert "home" in desk.ok("address", "list", lea)
    assert "allowed" in desk.ok("policy", "explain", lea, "--bill", bill)
    assert "removed" in desk.ok("address", "remove", lea, "1")
    assert "no addresses" in desk.ok("address", "list", lea)


def test_stopping_and_clearing(desk: Desk) -> None:  # noqa: F811
    lea = _customer(desk, "+15035550101")
    desk.ok("freeze", "set", lea)
    assert lea in desk.ok("freeze", "list")
    assert "stopped" in desk.ok("customer", "show", lea)
    assert "refused: payments of this customer are frozen" in desk.ok("policy", "explain", lea, "--amount", "3")
    assert "may pay again" in desk.ok("freeze", "clear", lea)
    assert "was not stopped" in desk.ok("freeze", "clear", lea)
    assert "nothing waits" in desk.ok("approval", "list", "--all")
