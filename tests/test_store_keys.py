from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ivr.keys import PURPOSES, Keyring, KeysUnusable, drop, rotate
from ivr.settings import Settings


def test_keys_are_made_once_and_only_their_owner_may_read_them(settings: Settings) -> None:
    first = Keyring.load(settings)
    assert {p: Keyring.load(settings).active(p) for p in PURPOSES} == {p: first.active(p) for p in PURPOSES}
    assert (settings.data_dir / "keys.json").stat().st_mode & 0o777 == 0o600


def test_each_purpose_has_a_key_of_its_own(keyring: Keyring) -> None:
    assert len({keyring.active(purpose)[1] for purpose in PURPOSES}) == len(PURPOSES)


def test_a_rotated_key_leaves_the_older_one_for_rows_made_with_it(settings: Settings, keyring: Keyring) -> None:
    old_id, old_key = keyring.active("pan")
    new_id = rotate(settings, "pan")
    after = Keyring.load(settings)
    assert after.active("pan")[0] == new_id != old_id
    assert after.key("pan", old_id) == old_key
    assert set(after.all("pan")) == {old_id, new_id}
    assert after.active("pin") == keyring.active("pin")


def test_whoever_could_read_the_keys_can_after_a_rotation(settings: Settings, keyring: Keyring) -> None:
    path = settings.data_dir / "keys.json"
    if os.geteuid() == 0:
        os.chown(path, 10001, 10002)
    path.chmod(0o440)
    before = path.stat()
    rotate(settings, "pan")
    drop(settings, "pan", keyring.active("pan")[0])
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]  # nothing that would be in another's way


def test_a_keyring_shows_no_key(keyring: Keyring) -> None:
    assert repr(keyring.active("pan")[1]) not in repr(keyring)
    assert keyring.active("pan")[0] not in repr(keyring)


def test_a_keys_file_named_by_the_operator_is_never_made_up(settings: Settings, tmp_path: Path) -> None:
    absent = tmp_path / "absent.json"
    with pytest.raises(KeysUnusable, match=r"absent\.json"):
        Keyring.load(settings.model_copy(update={"keys_file": absent}))
    assert not absent.exists()


def test_the_keys_file_may_be_named_in_a_dot_env_file(tmp_path: Path, keyring: Keyring) -> None:
    (tmp_path / ".env").write_text(f"IVR_KEYS_FILE={tmp_path / 'keys.json'}")
    elsewhere = Settings(
        data_dir=tmp_path / "data",
        digit_model_dir=tmp_path,
        voice_model_dir=tmp_path,
        _env_file=tmp_path / ".env",
    )
    assert Keyring.load(elsewhere).active("pan") == keyring.active("pan")


def test_settings_show_no_password(settings: Settings) -> None:
    secrets = {"database_url": "postgresql://u:hunter2@h/d", "redis_url": "redis://:hunter2@h/0"}
    shown = settings.model_copy(update=secrets)
    assert "hunter2" not in repr(shown) + str(shown)


@pytest.mark.parametrize(
    "damage", [lambda d: d.pop("pan"), lambda d: d["pan"].update(active="none"), lambda d: d.clear()]
)
def test_a_damaged_keys_file_is_named_and_not_replaced(settings: Settings, keyring: Keyring, damage) -> None:  # type: ignore[no-untyped-def]
    path = settings.data_dir / "keys.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(KeysUnusable, match=r"keys\.json"):
        Keyring.load(settings)
    assert json.loads(path.read_text()) == document


def test_keys_that_every_user_can_read_are_refused(settings: Settings, keyring: Keyring) -> None:
    (settings.data_dir / "keys.json").chmod(0o644)
    with pytest.raises(KeysUnusable, match="chmod"):
        Keyring.load(settings)
