"""A backup is a folder: the database, the prompts of apps, and a manifest with checksums and the schema's revision.

The keys are not in it, by design: whoever finds a backup can use nothing that they protect. Redis is not in it either:
calls in progress end with the machine, and the index of pending debits is made anew from the database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.engine import URL

from ivr.api.voice import prompts_folder
from ivr.customers.errors import InvalidInput
from ivr.keys import Keyring, path_of
from ivr.settings import Settings
from ivr.store.db import Database
from ivr.store.migrations import current, known

MANIFEST = "manifest.json"
PROMPTS = "app-prompts"
DATABASE = {"sqlite": "database.sqlite3", "postgresql": "database.dump"}
FORMAT = 1


class NoBackup(InvalidInput):
    """This folder is no backup that can be used: damaged, incomplete, or of another kind."""


def make(settings: Settings, database: Database, keys: Mapping[str, Iterable[str]], out: Path, now: datetime) -> int:
    """Write a backup to the new folder ``out``; its bytes. ``keys``: the ids of those that its rows need, by purpose.

    The manifest comes last: a folder without one is no backup. Raises InvalidInput.
    """
    kind = database.engine.dialect.name
    with database.snapshot() as session:
        schema = current(session.connection())
    try:
        out.mkdir(mode=0o700)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be made as a new folder: {error.strerror}") from None
    {"sqlite": _dump_sqlite, "postgresql": _dump_postgresql}[kind](database.engine.url, out / DATABASE[kind])
    prompts = prompts_folder(settings.data_dir)
    if prompts.is_dir():
        shutil.copytree(prompts, out / PROMPTS)
    files = {path.relative_to(out).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()}
    manifest = {
        "format": FORMAT,
        "made_at": now.isoformat(),
        "service": version("pay-by-voice"),
        "database": kind,
        "schema": schema,
        "keys": {purpose: sorted(ids) for purpose, ids in keys.items()},
        "files": {name: _sha256(path) for name, path in files.items()},
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return sum(path.stat().st_size for path in files.values())


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a backup that is whole, and of a schema that this version knows. Raises NoBackup."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files, kind, schema = manifest["files"], manifest["database"], manifest["schema"]
        whole = manifest["format"] == FORMAT and DATABASE[kind] in files and isinstance(manifest["keys"], dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoBackup(f"{folder} is no backup ({type(error).__name__} in its {MANIFEST})") from None
    if not whole:
        raise NoBackup(f"{folder} is no backup of a kind that this version knows")
    for name, checksum in files.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not (folder / name).is_file():
            raise NoBackup(f"{folder} lacks {name}")
        if _sha256(folder / name) != checksum:
            raise NoBackup(f"{folder / name} is damaged: its checksum is another")
    if not known(schema):
        raise NoBackup(f"{folder} has the schema {schema}, which a newer version made: restore it with that")
    return manifest


def restore(settings: Settings, database: Database, folder: Path) -> dict[str, Any]:
    """Put a backup into the database and data folder of the settings; its manifest.

    Everything is checked before anything is written. Raises InvalidInput.
    """
    manifest = check(folder)
    url, kind = database.engine.url, manifest["database"]
    if database.engine.dialect.name != kind:
        raise InvalidInput(f"the backup is of {kind}, and IVR_DATABASE_URL names {database.engine.dialect.name}")
    _check_keys(settings, manifest["keys"])
    _check_empty(database)
    prompts = prompts_folder(settings.data_dir)
    if prompts.exists() and any(prompts.iterdir()):
        raise InvalidInput(f"{prompts} has content: nothing is overwritten")
    {"sqlite": _load_sqlite, "postgresql": _load_postgresql}[kind](url, folder / DATABASE[kind])
    if (folder / PROMPTS).is_dir():
        shutil.copytree(folder / PROMPTS, prompts, dirs_exist_ok=True)
    return manifest


def _check_keys(settings: Settings, needed: Mapping[str, Iterable[str]]) -> None:
    where = path_of(settings)
    if not where.exists():
        raise InvalidInput(f"{where} is not there: put the keys file back first; no backup contains it")
    keyring = Keyring.load(settings)
    missing = [f"{purpose} {key_id}" for purpose, ids in needed.items() for key_id in {*ids} - {*keyring.all(purpose)}]
    if missing:
        raise InvalidInput(f"{where} lacks keys that the backup needs: {', '.join(sorted(missing))}")


def _check_empty(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        path = _path(database.engine.url)
        # What is left of another database beside the file would be taken for changes of this one.
        taken = [there for end in ("", "-wal", "-shm", "-journal") if (there := Path(f"{path}{end}")).exists()]
        if taken:
            raise InvalidInput(f"{taken[0]} is there: nothing is overwritten; move it away, or name another database")
    elif tables := inspect(database.engine).get_table_names():
        raise InvalidInput(f"the database has {len(tables)} tables: nothing is overwritten; name an empty one")


def _dump_sqlite(url: URL, out: Path) -> None:
    out.touch(mode=0o600)
    with closing(sqlite3.connect(_path(url))) as source, closing(sqlite3.connect(out)) as copy:
        source.backup(copy)  # in one step: as it was at one moment, while others go on writing
        copy.execute("PRAGMA journal_mode=DELETE")  # one file


def _load_sqlite(url: URL, dump: Path) -> None:
    path = _path(url)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".restoring")
    shutil.copyfile(dump, new)
    new.chmod(0o600)
    new.replace(path)


def _dump_postgresql(url: URL, out: Path) -> None:
    out.touch(mode=0o600)
    _run(url, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={out}")


def _load_postgresql(url: URL, dump: Path) -> None:
    _run(url, "pg_restore", "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", str(dump))


def _run(url: URL, program: str, *arguments: str) -> None:
    """One of PostgreSQL's own programs; the password goes by the environment, where nobody else sees it."""
    plain = url._replace(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    command = [program, *arguments, f"--dbname={plain}"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InvalidInput(f"{program} is not installed: it comes with PostgreSQL's client; docs/security.md") from None
    if done.returncode:
        raise InvalidInput(f"{program} failed: {done.stderr.strip()[-500:]}")


def _path(url: URL) -> Path:
    if not url.database:
        raise InvalidInput("a database in memory has no backup")
    return Path(url.database)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
