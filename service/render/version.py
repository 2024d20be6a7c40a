"""A digest of all that messages are rendered from but the invoice itself: the record tells by it what a mail said."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from service.delivery import Brand


def version_of(folders: Sequence[Path], brand: Brand, settings: str) -> str:
    """Return 32 hex digits over the files in force, the brand and `settings`.

    A file of an earlier folder takes the place of a later one's. All but hidden ones count, for a template may include
    any.
    """
    digest = hashlib.sha256()
    for part in (*_files(folders), *_brand(brand), settings.encode()):
        digest.update(f"{len(part)}:".encode() + part)
    return digest.hexdigest()[:32]


def _files(folders: Sequence[Path]) -> Iterator[bytes]:
    paths = {name: path for folder in reversed(folders) for name, path in _below(folder)}
    for name, path in sorted(paths.items()):
        yield name.encode()
        yield path.read_bytes()


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            yield name, path


def _brand(brand: Brand) -> Iterator[bytes]:
    for field in fields(Brand):
        value = getattr(brand, field.name)
        yield field.name.encode()
        yield value if isinstance(value, bytes) else repr(value).encode()
