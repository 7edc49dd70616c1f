from __future__ import annotations

import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ivr.ops.cli import main
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import settings as process_settings

pytest_plugins = ["payments_fixtures"]

PAN = "4242424242424242"
CARD = ["--expiry", "04/2045", "--authorised-by", "signed form"]


class Desk:
    """An operator at a terminal of a fresh installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, arguments, input=stdin, catch_exceptions=False)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        result = self.run(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    def customer(self, *options: str) -> str:
        return self.ok("customer", "add", "--phone", "+15035550123", *options).split()[1]

    def everything(self) -> str:
        """All rows of all tables."""
        with sqlite3.connect(self.folder / "ivr.sqlite3") as db:
            return "\n".join(db.iterdump())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("DATA_DIR", "DIGIT_MODEL_DIR", "VOICE_MODEL_DIR"):
        monkeypatch.setenv(f"IVR_{name}", str(tmp_path))
    monkeypatch.setenv("IVR_BANK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    process_settings.cache_clear()
    yield Desk(tmp_path)
    process_settings.cache_clear()


@pytest.fixture
def customer(desk: Desk) -> str:
    return desk.customer("--test")


@pytest.fixture
def token(desk: Desk, bank: SandboxBank, bank_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bank's token for the card; the desk reaches the bank."""
    monkeypatch.setenv("IVR_BANK_URL", bank_url)
    process_settings.cache_clear()
    return bank.open_account(PAN).token


def test_help_names_the_commands_without_loading_them() -> None:
    code = (
        "import sys; from ivr.ops.cli import main; main(['-h'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, loaded = done.stdout.splitlines()[:-1], done.stdout.splitlines()[-1].split()
    named = {line.split()[0] for line in shown if line.startswith("  ")}
    assert {"customer", "card", "bill", "code", "enrol"} <= named
    assert not {"torch", "vosk", "sqlalchemy", "alembic"} & set(loaded)


def test_a_customer_is_added_listed_and_shown(desk: Desk) -> None:
    number = desk.customer("--locale", "zh", "--test", "--email", "a@example.com", "--sms", "+15035550123")
    assert re.fullmatch(r"\d{7}", number)
    assert number in desk.ok("customer", "list")
    shown = desk.ok("customer", "show", number)
    for expected in ("+15035550123", "zh", "test", "email a@example.com", "voiceprint", "none"):
        assert expected in shown


def test_a_locked_customer_is_shown_so_until_the_operator_resets_the_budget(
    desk: Desk, customer: str
) -> None:
    with sqlite3.connect(desk.folder / "ivr.sqlite3") as db:
        db.execute("INSERT INTO failure_budgets SELECT id, 1, 9, 50, NULL FROM customers")
    assert "locked until reset by an operator" in desk.ok("customer", "show", customer)
    desk.ok("customer", "reset", customer)
    assert "locked" not in desk.ok("customer", "show", customer)


def test_a_card_number_from_standard_input_is_stored_as_last_four_and_hash(
    desk: Desk, customer: str, token: str
) -> None:
    typed = "4242 4242-4242 4242\n"
    added = desk.ok(
        "card", "add", customer, *CARD, "--token", token, "--limit", "500", "--stdin", stdin=typed
    )
    listed = desk.ok("card", "list", customer)
    for shown in (added, listed):
        assert "visa •••• 4242" in shown
        assert "42424242" not in shown.replace(" ", "")
    assert "50000" in listed
    assert "signed form" in listed
    assert "42424242" not in desk.everything()


def test_a_revoked_card_is_listed_as_revoked(desk: Desk, customer: str, token: str) -> None:
    added = desk.ok("card", "add", customer, *CARD, "--token", token, "--stdin", stdin=PAN)
    card_id = added.split()[1].rstrip(":")
    desk.ok("card", "revoke", card_id)
    assert "revoked" in desk.ok("card", "list", customer)
    assert "card.revoked" in desk.everything()


def test_the_prompt_for_a_card_number_does_not_echo(desk: Desk, customer: str, token: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable,
            [sys.executable, "-m", "ivr.ops.cli", "card", "add", customer, *CARD, "--token", token],
        )
    shown = b""
    while b"Card number" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, PAN.encode() + b"\n")
    try:
        while piece := os.read(terminal, 1024):
            shown += piece
    except OSError:  # Linux's end of file on a terminal whose other side closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert b"4242" in shown
    assert PAN[:8].encode() not in shown


def test_a_card_is_not_stored_when_the_bank_gives_no_token(desk: Desk, customer: str) -> None:
    before = desk.everything()
    result = desk.run("card", "add", customer, *CARD, "--stdin", stdin=PAN)
    assert result.exit_code == 1
    assert "bank" in result.output
    assert desk.everything() == before


def test_bills_are_added_in_each_currencys_own_decimals_listed_and_cancelled(
    desk: Desk, customer: str
) -> None:
    bill = ["bill", "add", customer, "--merchant", "Water[b]works", "--due", "2026-12-01"]
    added = desk.ok(*bill, "--amount", "42.10", "--currency", "USD")
    assert "USD 42.10" in added
    assert "JPY 1,500" in desk.ok(*bill, "--amount", "1500", "--currency", "JPY")
    assert "KWD 0.125" in desk.ok(*bill, "--amount", "0.125", "--currency", "KWD")
    listed = desk.ok("bill", "list", customer)
    assert "Water[b]works" in listed
    assert "2026-12-01" in listed
    desk.ok("bill", "cancel", added.split()[1].rstrip(":"))
    assert "cancelled" in desk.ok("bill", "list", customer)


def test_an_enrolment_code_is_printed_once_and_not_stored(desk: Desk, customer: str) -> None:
    code = desk.ok("code", customer).strip()
    assert re.fullmatch(r"\d{8}", code)
    assert code not in desk.everything()
    assert desk.ok("code", customer).strip() != code


BILL = ["bill", "add", "CUSTOMER", "--amount", "1", "--currency", "USD", "--merchant", "M"]
BAD: list[tuple[list[str], str, str]] = [
    (["customer", "add", "--phone", "12"], "", "no telephone number"),
    (["customer", "add", "--phone", "+15035550123", "--locale", "xx"], "", "locale"),
    (["customer", "add", "--phone", "+15035550123", "--email", "nobody"], "", "e-mail"),
    (["customer", "show", "1234567"], "", "no customer has the number"),
    (["customer", "reset", "x"], "", "no customer"),
    ([*BILL[:4], "42.101", *BILL[5:]], "", "decimals"),
    ([*BILL[:4], "1,50", *BILL[5:]], "", "no amount"),
    ([*BILL[:4], "-5", *BILL[5:]], "", "no amount"),
    ([*BILL[:4], "0", *BILL[5:]], "", "above zero"),
    ([*BILL[:6], "DOLLARS", *BILL[7:]], "", "ISO 4217"),
    ([*BILL, "--due", "tomorrow"], "", "tomorrow"),
    ([*BILL[:8], f"M {PAN}"], "", "card number"),
    (["bill", "add", "1234567", *BILL[3:]], "", "no customer"),
    (["bill", "cancel", "none"], "", "no bill"),
    (["card", "add", "CUSTOMER", *CARD, "--token", "t", "--stdin"], "4242424242424241", "check digit"),
    (["card", "add", "CUSTOMER", *CARD, "--token", "t", "--stdin"], "", "digits only"),
    (["card", "add", "CUSTOMER", *CARD, "--token", "t", "--stdin"], "4242", "does not have 4 digits"),
    (["card", "add", "CUSTOMER", *CARD, "--token", "t"], PAN, "--stdin"),
    (["card", "add", "CUSTOMER", "--expiry", "13/2030", *CARD[2:], "--token", "t", "--stdin"], PAN, "month"),
    (
        ["card", "add", "CUSTOMER", "--expiry", "01/2020", *CARD[2:], "--token", "t", "--stdin"],
        PAN,
        "expired",
    ),
    (["card", "add", "CUSTOMER", "--expiry", "2030", *CARD[2:], "--token", "t", "--stdin"], PAN, "04/2028"),
    (["card", "add", "CUSTOMER", *CARD, "--token", "t", "--limit", "x", "--stdin"], PAN, "no amount"),
    (["card", "add", "REAL", *CARD, "--token", "t", "--stdin"], PAN, "test"),
    (["card", "revoke", "none"], "", "no card"),
    (["code", "7654321"], "", "no customer"),
    (["enrol", "CUSTOMER", "nowhere.wav", "--consent", "signed form"], "", "nowhere.wav"),
    (["enrol", "CUSTOMER", "nowhere.wav", "--consent", ""], "", "consent"),
    (["enrol", "CUSTOMER", "nowhere.wav"], "", "--consent"),
]


def test_bad_input_is_said_clearly_and_changes_nothing(desk: Desk) -> None:
    stand_ins = {"CUSTOMER": desk.customer("--test"), "REAL": desk.customer()}
    before = desk.everything()
    for arguments, stdin, reason in BAD:
        result = desk.run(*(stand_ins.get(a, a) for a in arguments), stdin=stdin)
        assert result.exit_code == 2, (arguments, result.output)
        assert reason in result.output, (arguments, result.output)
        assert not stdin or len(stdin) < 12 or stdin not in result.output
        assert "Traceback" not in result.output
    assert desk.everything() == before


def test_a_card_number_where_another_thing_belongs_is_not_repeated(desk: Desk) -> None:
    customer = desk.customer("--test")
    for arguments in (
        ["card", "add", customer, PAN, *CARD],
        ["card", "add", PAN, *CARD],
        ["card", "add", customer, "--expiry", PAN],
        ["card", "revoke", PAN],
        ["customer", "show", PAN],
        ["bill", "add", customer, "--amount", PAN, *BILL[5:]],
        [PAN],
    ):
        result = desk.run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert PAN not in result.output


def test_the_banks_tokenise_call_gives_the_token(desk: Desk, customer: str, token: str) -> None:
    desk.ok("card", "add", customer, *CARD, "--stdin", stdin=PAN)
    with sqlite3.connect(desk.folder / "ivr.sqlite3") as db:
        assert db.execute("SELECT bank_token, brand, last4 FROM cards").fetchall() == [(token, "visa", "4242")]


def test_a_token_that_the_bank_does_not_know_or_that_is_another_cards_is_refused(
    desk: Desk, customer: str, token: str, bank: SandboxBank
) -> None:
    other = bank.open_account("4539148803436467").token
    before = desk.everything()
    for wrong, reason in (("tok_unknown", "knows no such token"), (other, "another card")):
        result = desk.run("card", "add", customer, *CARD, "--token", wrong, "--stdin", stdin=PAN)
        assert (result.exit_code, reason in result.output) == (2, True), result.output
    assert desk.everything() == before


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"BANK": "stripe"}, "IVR_STRIPE_API_KEY"),
        ({"BANK": "stripe", "STRIPE_API_KEY": "pk_live_public"}, "IVR_STRIPE_API_KEY"),
        ({"BANK": "stripe", "STRIPE_API_KEY": "sk_test_1", "STRIPE_WEBHOOK_SECRET": "x"}, "whsec_"),
        ({"BANK": "http", "BANK_API_KEY": ""}, "IVR_BANK_API_KEY"),
        ({"BANK": "http", "BANK_URL": "http://bank.example.com", "BANK_API_KEY": "k"}, "https://"),
    ],
)
def test_settings_that_name_no_bank_are_said_when_the_service_starts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in {"AUTH_TOKEN": "t", **environment}.items():
        monkeypatch.setenv(f"IVR_{name}", value)
    process_settings.cache_clear()
    for command in ("serve", "worker"):
        result = desk.run(command)
        assert (result.exit_code, said in result.output) == (2, True), result.output
        assert "pk_live_public" not in result.output


def test_a_customer_agrees_to_be_rung_up_and_withdraws_it(desk: Desk) -> None:
    number = desk.customer()
    assert desk.run("customer", "rung", number, "on").exit_code == 2
    assert "may be rung up" in desk.ok("customer", "rung", number, "on", "--channel", "on paper, 3 May")
    assert "about bills" in desk.ok("customer", "show", number)
    assert "on paper, 3 May" in desk.everything()
    assert "will not be rung up" in desk.ok("customer", "rung", number, "off")
    assert "about bills" not in desk.ok("customer", "show", number)
