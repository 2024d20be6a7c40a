"""Sealing what is kept outside of the record's own columns: AES-256-GCM under one key, bound to what it belongs to."""

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_VERSION = b"\x01"  # of this layout: the version, a random nonce, the ciphertext with its tag
_NONCE_BYTES = 12


class Unreadable(Exception):
    """It was sealed under another key or for something else, or is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Seals and opens under one key of 32 bytes."""

    key: bytes = field(repr=False)

    def close(self, content: bytes, *, about: str) -> bytes:
        """Return `content` sealed; it opens only with the same `about`, so that one cannot be put in another's place.

        The nonce is random and no argument: two sealings of the same are not alike, and nothing rests on them being so.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + AESGCM(self.key).encrypt(nonce, content, about.encode())

    def open(self, sealed: bytes, *, about: str) -> bytes:
        """Return what was sealed; raises `Unreadable`."""
        nonce, content = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(nonce) < _NONCE_BYTES:
            raise Unreadable
        try:
            return AESGCM(self.key).decrypt(nonce, content, about.encode())
        except InvalidTag as exc:
            raise Unreadable from exc
