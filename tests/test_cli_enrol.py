from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner, Result

from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.resources import shipped
from ivr.settings import settings
from voiceprint import Voiceprint, open_sealed

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """``ivr`` with its database and keys in a folder of the test."""
    monkeypatch.setenv("IVR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("IVR_DIGIT_MODEL_DIR", str(tmp_path))
    settings.cache_clear()
    yield lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)
    settings.cache_clear()


def customer(run: Run) -> str:
    added = run("customer", "add", "--phone", "+15035550123", "--email", "a@example.com")
    return str(added.output.split()[1])


def audio(voice: str, name: str) -> Path:
    return shipped(f"fixtures/audio/{voice}/{name}.wav")


def enrolment(voice: str) -> list[Path]:
    return [audio(voice, f"enrol_{n}") for n in (1, 2, 3)]


def stored(tmp_path: Path) -> dict[str, Voiceprint]:
    """Every voiceprint by customer id, opened."""
    keys = Keyring.load(settings()).all("voiceprint")
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        rows = db.execute("SELECT customer_id, model_id, sealed FROM voiceprints").fetchall()
    opened = {who: open_sealed(keys, sealed, f"{who}:{model}".encode()) for who, model, sealed in rows}
    return {who: Voiceprint.from_bytes(blob) for who, blob in opened.items()}


def test_an_operator_enrols_a_voice_from_recordings(run: Run, tmp_path: Path) -> None:
    number = customer(run)
    too_few = run("enrol", number, *enrolment("alice")[:2], "--consent", "signed form")
    assert too_few.exit_code == 2
    assert "more_recordings" in too_few.output
    done = run("enrol", number, *enrolment("alice"), "--consent", "signed form")
    assert done.exit_code == 0, done.output
    assert "provisional" in run("customer", "show", number).output
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        assert db.execute("SELECT kind, channel FROM consents").fetchall() == [
            ("voiceprint", "operator: signed form")
        ]
        assert db.execute("SELECT template FROM notices").fetchall() == [("enrolled",)]
        whats = db.execute("SELECT what, details FROM audit ORDER BY at").fetchall()
    assert [what for what, _ in whats] == ["customer.added", "voiceprint.enrolled"]
    assert json.loads(whats[1][1]) == {"recordings": 3}
    (voiceprint,) = stored(tmp_path).values()
    assert voiceprint.utterances == 3


def test_later_recordings_join_the_voiceprint_if_they_are_of_the_same_voice(run: Run, tmp_path: Path) -> None:
    number = customer(run)
    early = run("enrol", number, audio("alice", "card"), "--add", "--consent", "signed form")
    assert early.exit_code == 2
    assert "but none: enrol without --add" in early.output
    run("enrol", number, *enrolment("alice"), "--consent", "signed form")
    assert run("enrol", number, audio("alice", "card"), "--add", "--consent", "signed form").exit_code == 0
    for voice, recording in (("bob", "card"), ("carol", "enrol_1")):  # carol's cosine to alice is that of one person
        other = run("enrol", number, audio(voice, recording), "--add", "--consent", "signed form")
        assert other.exit_code == 2
        assert "one_person" in other.output
    (voiceprint,) = stored(tmp_path).values()
    assert voiceprint.utterances == 4
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        db.execute("UPDATE voiceprints SET model_id = 'old-model'")
    outdated = run("enrol", number, audio("alice", "card"), "--add", "--consent", "signed form")
    assert outdated.exit_code == 2
    assert "one of another model: enrol without --add" in outdated.output
    assert "enrol again" in run("customer", "show", number).output
    run("enrol", number, *enrolment("alice"), "--consent", "signed form")
    assert "enrol again" not in run("customer", "show", number).output


def manifest(tmp_path: Path, *rows: tuple[object, ...], header: str = "customer\tfile\tconsent") -> Path:
    path = tmp_path / "manifest.tsv"
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def test_many_are_enrolled_from_a_manifest_once(run: Run, tmp_path: Path) -> None:
    alice, bob, nobody = customer(run), customer(run), "1234567"
    wideband = tmp_path / "wide.wav"
    soundfile.write(wideband, soundfile.read(audio("gus", "enrol_1"))[0], 16000)
    third = customer(run)
    rows = [
        *((alice, path, "form 17") for path in enrolment("alice")),
        *((bob, path, "form 18") for path in enrolment("bob")[:2]),
        *((nobody, path, "form 19") for path in enrolment("gus")),
        (third, wideband, "form 20"),
    ]
    listed = manifest(tmp_path, *rows)
    rehearsed = run("enrol", "--manifest", listed, "--dry-run")
    assert rehearsed.exit_code == 1
    assert not stored(tmp_path)
    done = run("enrol", "--manifest", listed)
    assert [line.split("\t")[:2] for line in done.stdout.splitlines()] == [
        [alice, "enrolled"], [bob, "refused"], [nobody, "refused"], [third, "refused"],
    ]  # fmt: skip
    assert done.stdout == rehearsed.stdout
    for reason in ("more_recordings", "no customer", "16000 Hz"):
        assert reason in done.stdout
    assert done.exit_code == 1
    assert len(stored(tmp_path)) == 1
    again = run("enrol", "--manifest", listed)
    assert f"{alice}\tunchanged" in again.stdout
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        assert db.execute("SELECT channel FROM consents").fetchall() == [("operator: form 17",)]
        db.execute("DELETE FROM voiceprints")
        db.execute("UPDATE consents SET withdrawn_at = given_at")
    assert "this consent was withdrawn" in run("enrol", "--manifest", listed).stdout
    assert not stored(tmp_path)


@pytest.mark.parametrize(
    ("rows", "header", "reason"),
    [
        ([("1", "a.wav")], "customer\tfile", "consent is missing"),
        ([("1", "a.wav", "")], "customer\tfile\tconsent", ":2: customer, file and consent are all needed"),
        ([("1", "a.wav", "form 1"), ("1", "b.wav", "form 2")], "customer\tfile\tconsent", "two different consents"),
        ([("1", "a.wav", "form 1"), ("1", "a.wav", "form 1")], "customer\tfile\tconsent", "named twice"),
        ([("1", "a.wav", "card 4539148803436467")], "customer\tfile\tconsent", "looks like a card number"),
    ],
)
def test_a_manifest_that_cannot_be_used_changes_nothing(
    run: Run, tmp_path: Path, rows: list[tuple[str, ...]], header: str, reason: str
) -> None:
    refused = run("enrol", "--manifest", manifest(tmp_path, *rows, header=header))
    assert refused.exit_code == 2
    assert reason in refused.output
    assert not (tmp_path / "data" / "ivr.sqlite3").exists()


def test_a_watched_voice_is_not_enrolled(run: Run, tmp_path: Path) -> None:
    number = customer(run)
    run("watchlist", "add", "case 7", *enrolment("bob"), "--legal-basis", "court order 7 of 2026")
    files = [audio("bob", name) for name in ("card", "alice_card", "enrol_1")]
    refused = run("enrol", number, *files, "--consent", "signed form")
    assert refused.exit_code == 2
    assert "watch list" in refused.output
    assert stored(tmp_path) == {}
    assert run("enrol", number, *enrolment("alice"), "--consent", "signed form").exit_code == 0


def test_the_watch_list_is_sealed_small_and_has_a_legal_basis(run: Run, tmp_path: Path) -> None:
    assert run("watchlist", "add", "case 7", *enrolment("bob")).exit_code == 2
    assert "legal basis" in run("watchlist", "add", "case 7", *enrolment("bob"), "--legal-basis", "-").output
    added = run("watchlist", "add", "case 7", *enrolment("bob"), "--legal-basis", "court order 7 of 2026")
    assert added.exit_code == 0, added.output
    entry = added.output.split()[1]
    twice = run("watchlist", "add", "case 7", *enrolment("bob"), "--legal-basis", "court order 7 of 2026")
    assert "already" in twice.output
    listed = run("watchlist", "list").output
    assert "case 7" in listed
    assert "court order" in listed
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        ((model_id, sealed),) = db.execute("SELECT model_id, sealed FROM watchlist")
        voice = Voiceprint.from_bytes(
            open_sealed(Keyring.load(settings()).all("voiceprint"), sealed, f"watchlist:{entry}:{model_id}".encode())
        )
        assert voice.vectors.tobytes()[:64] not in sealed
        db.execute("UPDATE watchlist SET model_id = 'old-model'")
    assert "add it again" in " ".join(run("watchlist", "list").output.split())
    assert run("watchlist", "remove", entry).exit_code == 0
    assert run("watchlist", "remove", entry).exit_code == 2
    assert "empty" in run("watchlist", "list").output
    with sqlite3.connect(tmp_path / "data" / "ivr.sqlite3") as db:
        whats = [what for (what,) in db.execute("SELECT what FROM audit ORDER BY at")]
    assert whats == ["watchlist.added", "watchlist.removed"]
