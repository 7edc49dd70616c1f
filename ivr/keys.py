"""The keys that make stolen tables useless; they lie in a file outside the database.

The file is JSON: ``{purpose: {"active": key id, "keys": {key id: base64 of 32 bytes}}}``. ``IVR_KEYS_FILE``
names one that the operator keeps (a mounted secret); without it a one-machine installation has its own in
``data_dir``.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ivr.settings import Settings

PURPOSES = ("pan", "pin", "voiceprint", "session")
KEY_BYTES = 32


class KeysUnusable(Exception):
    """The keys file is missing, readable by others, not what it should be, or cannot be changed from here."""


@dataclass(frozen=True, repr=False)
class Keyring:
    """Named 32-byte keys, several a purpose; the active one makes, all of them check."""

    _active: Mapping[str, str]
    _keys: Mapping[str, Mapping[str, bytes]]

    @classmethod
    def load(cls, settings: Settings) -> Keyring:
        """The keys in force; a missing file in ``data_dir`` is made on first use. Raises KeysUnusable."""
        path = path_of(settings)
        if settings.keys_file is None and not path.exists():
            make(path)
        return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> Keyring:
        try:
            if path.stat().st_mode & 0o007:
                raise KeysUnusable(f"{path} is open to every user of this machine: chmod o-rwx {path}")
            document = json.loads(path.read_text())
            keys = {
                purpose: {key_id: base64.b64decode(key) for key_id, key in document[purpose]["keys"].items()}
                for purpose in PURPOSES
            }
            active = {purpose: document[purpose]["active"] for purpose in PURPOSES}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeysUnusable(f"{path} is no keys file ({type(error).__name__})") from None
        for purpose in PURPOSES:
            if active[purpose] not in keys[purpose] or any(len(k) != KEY_BYTES for k in keys[purpose].values()):
                raise KeysUnusable(f"{path}: {purpose} needs an active key, and every key {KEY_BYTES} bytes")
        return cls(active, keys)

    def active(self, purpose: str) -> tuple[str, bytes]:
        """The id and key that new hashes and seals are made with."""
        key_id = self._active[purpose]
        return key_id, self._keys[purpose][key_id]

    def key(self, purpose: str, key_id: str) -> bytes:
        """The key that an older hash was made with. Raises KeysUnusable when it is gone."""
        try:
            return self._keys[purpose][key_id]
        except KeyError:
            raise KeysUnusable(f"the keys file lacks the {purpose} key {key_id}, which stored rows need") from None

    def all(self, purpose: str) -> dict[str, bytes]:
        """Every key of a purpose by its id."""
        return dict(self._keys[purpose])

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self._active))})"


def make(path: Path) -> bool:
    """A file of new keys, if there is none there; whether it was made."""
    with _locked(path):
        if path.exists():
            return False
        _write(path, {purpose: _with_new_key({"keys": {}}) for purpose in PURPOSES})
        return True


def rotate(settings: Settings, purpose: str) -> str:
    """Add a new active key for ``purpose`` and return its id; older keys stay until no row needs them.

    Running processes use it after a restart.
    """
    path = path_of(settings)
    Keyring.load(settings)  # made on first use, and sound
    with _locked(path):
        document = json.loads(path.read_text())
        document[purpose] = _with_new_key(document[purpose])
        _write(path, document)
    return str(document[purpose]["active"])


def drop(settings: Settings, purpose: str, key_id: str) -> None:
    """Take an older key out of the file, for good. Raises KeysUnusable if it is none."""
    path = path_of(settings)
    with _locked(path):
        document = json.loads(path.read_text())
        if key_id not in document[purpose]["keys"] or key_id == document[purpose]["active"]:
            raise KeysUnusable(f"{key_id} is no older {purpose} key: `ivr keys list` shows them")
        del document[purpose]["keys"][key_id]
        _write(path, document)


def path_of(settings: Settings) -> Path:
    """Where the file of keys is."""
    return settings.keys_file or settings.data_dir / "keys.json"


def _with_new_key(purpose: dict[str, Any]) -> dict[str, Any]:
    key_id = secrets.token_hex(4)
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    return {"active": key_id, "keys": {**purpose["keys"], key_id: key}}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Write beside, then rename: no process ever reads half a file, and whoever could read the old one can still."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        if path.exists():
            old = path.stat()
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time changes the file. The folder is what is locked: a lock file would be its maker's alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        raise KeysUnusable(
            f"{path} cannot be changed from here ({error.strerror}): run this as root or as the file's owner, where "
            'its folder can be written; for containers see docs/deployment.md, "Rotating a key"'
        ) from None
