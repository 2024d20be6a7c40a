"""A merchant's file as the commands read it, whichever of them is given it: its text, and what is in it."""

import json
import tomllib
from pathlib import Path

from service.ordering import Mistaken

_LARGEST = 64 * 1024 * 1024  # bytes of a file that is read


def document_in(file: Path) -> object:
    """Return what is in a JSON or TOML file; raises `Mistaken` as `text_in` does, and when it is neither."""
    text = text_in(file)
    form = "TOML" if file.suffix.lower() == ".toml" else "JSON"
    try:
        document: object = tomllib.loads(text) if form == "TOML" else json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise Mistaken((f"{file}: is no {form}: {exc}",)) from exc
    return document


def text_in(file: Path) -> str:
    """Return the text of a file; raises `Mistaken` when it cannot be read, is too large or is not UTF-8."""
    try:
        if file.stat().st_size > _LARGEST:
            raise Mistaken((f"{file}: is larger than {_LARGEST} bytes",))
        return file.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise Mistaken((f"{file}: cannot be read ({exc.strerror})",)) from exc
    except ValueError as exc:
        raise Mistaken((f"{file}: is not UTF-8; save it as that",)) from exc
