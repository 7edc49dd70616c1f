from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from payments_support import new_pan

from ivr.customers.models import new_id
from ivr.payments.bank import (
    Authorised,
    BankUnavailable,
    Captured,
    Declined,
    DeclineReason,
    InvalidCard,
    KeyReused,
    Voided,
)
from ivr.payments.sandbox_client import SandboxBank

pytest_plugins = ["payments_fixtures"]


def authorise(
    bank: SandboxBank, token: str, amount_minor: int = 100, key: str | None = None
) -> Authorised | Declined:
    return bank.authorise(token, amount_minor, "USD", key=key or new_id(), reference="ref")


def test_a_card_has_one_token_and_its_number_is_kept_nowhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ivr.payments.sandbox", "--port", "0", "--data", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    bank = SandboxBank(process.stdout.readline().split()[-1], "sandbox")
    pan = new_pan()
    first = bank.tokenise(pan, 2099, 1)
    assert bank.tokenise(pan, 2099, 1) == first
    assert (first.brand, first.last4) == ("visa", pan[-4:])
    assert pan not in json.dumps(bank.books())
    process.terminate()
    assert pan not in "".join(process.communicate())
    assert not [path for path in tmp_path.iterdir() if pan.encode() in path.read_bytes()]
    assert os.stat(tmp_path / "pan.key").st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "pan", ["4242424242424241", "42", "", "4242 4242 4242 4242", "４２４２４２４２４２４２４２４２"]
)
def test_what_is_no_card_number_is_refused_without_being_quoted(bank: SandboxBank, pan: str) -> None:
    with pytest.raises(InvalidCard) as caught:
        bank.tokenise(pan, 2099, 1)
    assert not pan or pan not in str(caught.value)


def test_an_expired_card_gets_no_token(bank: SandboxBank) -> None:
    with pytest.raises(InvalidCard, match="expired"):
        bank.tokenise(new_pan(), 2020, 1)


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("400001", DeclineReason.INSUFFICIENT_FUNDS),
        ("400002", DeclineReason.EXPIRED),
        ("400003", DeclineReason.BLOCKED),
        ("400004", DeclineReason.UNAVAILABLE),
    ],
)
def test_the_number_decides_the_decline(bank: SandboxBank, prefix: str, reason: DeclineReason) -> None:
    assert authorise(bank, bank.tokenise(new_pan(prefix), 2099, 1).token) == Declined(reason)


def test_what_is_held_cannot_be_held_again_until_it_is_given_back(bank: SandboxBank) -> None:
    token = bank.open_account(new_pan(), "Ada", 100).token
    held = authorise(bank, token)
    assert isinstance(held, Authorised)
    assert authorise(bank, token) == Declined(DeclineReason.INSUFFICIENT_FUNDS)
    assert bank.void(held.reference, key=new_id()) == Voided()
    assert isinstance(authorise(bank, token), Authorised)


def test_an_authorisation_is_resolved_once(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    captured, voided = authorise(bank, token), authorise(bank, token)
    assert isinstance(captured, Authorised)
    assert isinstance(voided, Authorised)
    assert bank.capture(captured.reference, 100, key=new_id()) == Captured()
    assert bank.void(captured.reference, key=new_id()) == Captured()
    assert bank.void(voided.reference, key=new_id()) == Voided()
    assert bank.capture(voided.reference, 100, key=new_id()) == Voided()
    assert [row["authorisation"] for row in bank.books()["captures"]].count(captured.reference) == 1


def test_the_same_key_gives_the_first_answer_and_another_request_under_it_an_error(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    first = authorise(bank, token, key="same-key")
    assert authorise(bank, token, key="same-key") == first
    with pytest.raises(KeyReused):
        authorise(bank, token, 101, key="same-key")


def test_a_decline_stays_the_answer_of_its_key(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    bank.control(decline={"authorise": "blocked"})
    assert authorise(bank, token, key="declined-key") == Declined(DeclineReason.BLOCKED)
    bank.control()
    assert authorise(bank, token, key="declined-key") == Declined(DeclineReason.BLOCKED)


def test_eight_at_once_with_one_key_are_one_authorisation(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    bank.control(latency_ms=20)
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(lambda _: authorise(bank, token, key="eight-key"), range(8)))
    assert len(answers) == 1
    assert len([row for row in bank.books()["authorisations"] if row["token"] == token]) == 1


def test_look_up_tells_what_became_of_a_key(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    key = new_id()
    assert bank.look_up(key) is None
    held = authorise(bank, token, key=key)
    assert bank.look_up(key) == held
    assert isinstance(held, Authorised)
    bank.capture(held.reference, 100, key=new_id())
    assert bank.look_up(key) == Captured()


def test_a_failure_books_nothing_and_a_lost_answer_books_first(bank: SandboxBank) -> None:
    token = bank.tokenise(new_pan(), 2099, 1).token
    bank.control(fail={"authorise": 1})
    with pytest.raises(BankUnavailable):
        authorise(bank, token, key="failed-key")
    assert bank.look_up("failed-key") is None
    bank.control(lose={"authorise": 1})
    with pytest.raises(BankUnavailable):
        authorise(bank, token, key="lost-key")
    assert bank.look_up("lost-key") == authorise(bank, token, key="lost-key")


def test_a_capture_is_taken_from_the_balance(bank: SandboxBank) -> None:
    account = bank.open_account(new_pan(), "Ada", 5000)
    held = authorise(bank, account.token, 1200)
    assert isinstance(held, Authorised)
    bank.capture(held.reference, 1200, key=new_id())
    [found] = [row for row in bank.books()["accounts"] if row["token"] == account.token]
    assert (found["name"], found["balance_minor"]) == ("Ada", {"USD": 3800})


def test_a_wrong_key_or_a_bad_request_is_a_clean_json_error(bank: SandboxBank, bank_url: str) -> None:
    assert requests.get(f"{bank_url}/_books").status_code == 401
    header = {"X-Api-Key": "sandbox"}
    for path, body in [
        ("/tokens", '{"pan": "4242424242424242", "exp_year": "x", "exp_month": 13}'),
        ("/tokens", "4242424242424242"),
        ("/authorisations", '{"amount_minor": -1}'),
        ("/tokens", "{"),
    ]:
        response = requests.post(bank_url + path, data=body, headers=header)
        assert 400 <= response.status_code < 500
        assert response.json()["error"]["code"]
        assert "4242" not in response.text
    assert requests.get(f"{bank_url}/nothing", headers=header).json()["error"]["code"] == "not_found"
    assert requests.post(f"{bank_url}/authorisations/x/capture", headers=header).status_code == 400


def test_a_bank_that_is_away_is_unavailable() -> None:
    with pytest.raises(BankUnavailable):
        SandboxBank("http://127.0.0.1:9", "sandbox").look_up("key")
