"""Where the documents behind links are kept, sealed: in the record's database, or in a folder."""

import asyncio
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from service.delivery import Store, TransientFailure

AT_ONCE = 500
"""Names in one page of a listing."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseVault:
    """Keeps them in the record's own database, which all replicas share anyway."""

    store: Store

    async def put(self, name: str, sealed: bytes) -> None:
        """As `Vault.put`."""
        await self.store.put_document(name, sealed)

    async def get(self, name: str) -> bytes | None:
        """As `Vault.get`."""
        return await self.store.document(name)

    async def delete(self, name: str) -> None:
        """As `Vault.delete`."""
        await self.store.delete_document(name)

    async def names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """As `Vault.names`."""
        return await self.store.document_names(account_id, after=after)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderVault:
    """Keeps each as a file, readable by this user alone; replicas need a volume that they share."""

    folder: Path

    async def put(self, name: str, sealed: bytes) -> None:
        """As `Vault.put`."""
        await _tried(lambda: _write(self._path(name), sealed))

    async def get(self, name: str) -> bytes | None:
        """As `Vault.get`."""
        return await _tried(lambda: _read(self._path(name)))

    async def delete(self, name: str) -> None:
        """As `Vault.delete`."""
        await _tried(lambda: self._path(name).unlink(missing_ok=True))

    async def names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """As `Vault.names`; what a crash left of a file half written is among them."""
        return await _tried(lambda: _listed(self._path(account_id), after))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_relative_to(self.folder) or ".." in path.parts:
            raise ValueError("the name leads out of the folder")
        return path


async def _tried(act: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(act)
    except OSError as exc:
        raise TransientFailure(f"the folder of LINK_STORE: {exc.strerror or type(exc).__name__}") from exc


def _write(path: Path, sealed: bytes) -> None:
    """Write a file whole or not at all: beside its place first, and the folder's own entry is made to last, too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _listed(folder: Path, after: str | None) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    names = sorted(f"{folder.name}/{name}" for name in os.listdir(folder))  # noqa: PTH208 - names, not paths
    return tuple(name for name in names if after is None or name > after)[:AT_ONCE]
