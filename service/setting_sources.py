"""Where the text of settings comes from: the environment, `.env`, and the files that `X_FILE` names."""

import difflib
import os
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

PREFIX = "DELIVERY_"
_FILE = "_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The text of each setting by its lower-case name, and what was wrong on the way to it."""

    values: Mapping[str, str]
    mistakes: Mapping[str, str]  # by the full name that a person would look for
    others: tuple[tuple[str, str], ...]  # full names that no setting has, with their text
    warnings: tuple[str, ...]  # about those names
    typos: tuple[str, ...]  # those of the warnings whose name is hardly another than one of ours


def gather(
    env: Mapping[str, str] | None, *, names: Collection[str], secrets: Collection[str], endings: tuple[str, ...]
) -> Given:
    """Return what is given of `names`, of `secrets` also through a file; `env` stands in for environment and `.env`.

    Empty values count as not given. Of two places the environment wins. Where a channel is somebody's own, names that
    have one of these `endings` are secrets of it.
    """
    mistakes: dict[str, str] = {}
    if env is None:
        env = {**_dotenv(mistakes), **_filled(os.environ)}
    known = {PREFIX + name.upper(): name for name in names}
    files = {PREFIX + name.upper() + _FILE: name for name in secrets if name in names}
    values: dict[str, str] = {}
    for full, text in _filled(env).items():
        if full in files:
            _take_file(full, text, files[full], values, mistakes)
    for full, text in _filled(env).items():
        if full in known:
            _take(full, text, known[full], values, mistakes, is_secret=known[full] in secrets)
    unknown = {full: text for full, text in sorted(_filled(env).items()) if full not in {*known, *files}}
    others = _others(unknown, endings if ":" in values.get("channels", "") else (), mistakes)
    strangers = _strangers(env, {*known, *files})
    typos = tuple(line for full, line in strangers.items() if _is_typo(full, {*known, *files}))
    return Given(values=values, mistakes=mistakes, others=others, warnings=tuple(strangers.values()), typos=typos)


def _filled(env: Mapping[str, str]) -> dict[str, str]:
    return {full: text for full, text in env.items() if full.startswith(PREFIX) and text.strip()}


def _dotenv(mistakes: dict[str, str]) -> dict[str, str]:
    """Read `.env` as it stands: a `$` in a password is a dollar sign."""
    try:
        found = dotenv_values(".env", interpolate=False, encoding="utf-8-sig")
    except (OSError, ValueError) as exc:
        mistakes[".env"] = f"cannot be read ({type(exc).__name__})"
        return {}
    return _filled({full: text for full, text in found.items() if text is not None})


def _take_file(full: str, path: str, name: str, values: dict[str, str], mistakes: dict[str, str]) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        mistakes[full] = f"names a file that cannot be read ({type(exc).__name__})"
        return
    text = text.removesuffix("\n").removesuffix("\r")
    if text.strip():
        _take(full, text, name, values, mistakes, is_secret=True)


def _take(
    full: str, text: str, name: str, values: dict[str, str], mistakes: dict[str, str], *, is_secret: bool
) -> None:
    other = full + _FILE
    if name in values or other in mistakes:
        mistakes[full] = f"is given twice: by its own name and by {other}"
    elif any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in text.strip()):
        mistakes[full] = "holds a line break, another control character, or what is not UTF-8"
    else:
        values[name] = text if is_secret else text.strip()


def _others(
    unknown: Mapping[str, str], endings: tuple[str, ...], mistakes: dict[str, str]
) -> tuple[tuple[str, str], ...]:
    """Return the settings of somebody's own channels, of its secrets also what is in files."""
    files = {full: full.removesuffix(_FILE) for full in unknown if full.endswith(tuple(end + _FILE for end in endings))}
    values: dict[str, str] = {}
    for full, name in files.items():
        _take_file(full, unknown[full], name, values, mistakes)
    for full, text in unknown.items():
        if full in files.values():
            _take(full, text, full, values, mistakes, is_secret=True)
        elif full not in files:
            values[full] = text
    return tuple(sorted(values.items()))


def _strangers(env: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return a warning for each name that is not `known`."""

    def line(full: str) -> str:
        near = difflib.get_close_matches(full, known, n=1, cutoff=0.8)
        return f"{full}: no setting has this name" + (f"; is it {near[0]} that is meant?" if near else "")

    return {full: line(full) for full in sorted(env) if full.startswith(PREFIX) and full not in known}


def _is_typo(full: str, known: Collection[str]) -> bool:
    """Tell whether a letter or two make the difference; what all names share at their ends does not count."""

    def own(name: str) -> str:
        return name.removeprefix(PREFIX).removesuffix(_FILE)

    return bool(difflib.get_close_matches(own(full), map(own, known), n=1, cutoff=0.85))
