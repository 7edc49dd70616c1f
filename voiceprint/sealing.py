"""Voiceprints at rest: AES-256-GCM under a named key that lies outside the database.

Layout: ``VPS1``, length of the key id (one byte), key id, nonce (12 bytes), ciphertext with tag. The
context (say, customer and model) is authenticated, not stored, so a row cannot be moved to another customer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from voiceprint.errors import SealError

_MAGIC = b"VPS1"
_NONCE_BYTES = 12
_KEY_BYTES = 32


def seal(key: bytes, key_id: str, plaintext: bytes, context: bytes) -> bytes:
    """Encrypts ``plaintext`` under ``key`` (32 bytes). Raises SealError if the key or its id does not fit."""
    name = key_id.encode()
    if not 0 < len(name) < 256:
        raise SealError("a key id has 1 to 255 bytes")
    header = _MAGIC + bytes([len(name)]) + name
    nonce = os.urandom(_NONCE_BYTES)
    return header + nonce + _cipher(key).encrypt(nonce, plaintext, header + context)


def open_sealed(keys: Mapping[str, bytes], sealed: bytes, context: bytes) -> bytes:
    """The plaintext, by the key that the header names. Raises SealError if it cannot be had."""
    key_id, body = _split(sealed)
    if key_id not in keys:
        raise SealError(f"no key {key_id!r}: keep old keys until everything is sealed anew")
    header = sealed[: len(sealed) - len(body)]
    try:
        return _cipher(keys[key_id]).decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], header + context)
    except InvalidTag:
        raise SealError("sealed bytes were altered, or belong to another context") from None


def key_id_of(sealed: bytes) -> str:
    """Which key sealed these bytes, for rotation. Raises SealError if they are no sealed bytes."""
    return _split(sealed)[0]


def _split(sealed: bytes) -> tuple[str, bytes]:
    start = len(_MAGIC) + 1
    if sealed[: len(_MAGIC)] != _MAGIC or len(sealed) < start:
        raise SealError("these are no sealed bytes")
    end = start + sealed[start - 1]
    if len(sealed) < end + _NONCE_BYTES + 16:
        raise SealError("sealed bytes are cut short")
    try:
        return sealed[start:end].decode(), sealed[end:]
    except UnicodeDecodeError:
        raise SealError("sealed bytes were altered") from None


def _cipher(key: bytes) -> AESGCM:
    if len(key) != _KEY_BYTES:
        raise SealError(f"a sealing key has {_KEY_BYTES} bytes, not {len(key)}")
    return AESGCM(key)
