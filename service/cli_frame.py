"""What all commands share: settings, a log that stays out of the way, plain words for trouble, JSON."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.settings import Need, Settings


def load(need: "Need") -> "Settings":
    """Return the settings, with warnings on standard error; what goes wrong later is logged there too."""
    from service.settings import load_settings  # noqa: PLC0415

    settings = load_settings(need=need)
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    quiet_log(settings.secret_texts)
    return settings


def quiet_log(secrets: tuple[str, ...] = ()) -> None:
    """Log to standard error, and only what goes wrong: standard output is for what was asked for."""
    from service import log  # noqa: PLC0415

    log.configure("console", "warning", stream=sys.stderr, secrets=secrets)


@contextmanager
def plain_trouble() -> Iterator[None]:
    """Turn the trouble that is to be expected into lines on standard error and an exit status, without a traceback."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):  # said already, or click says it
        raise
    except Exception as exc:
        status, lines = _words_for(exc)
        if status is None:
            raise
        for line in lines:
            click.echo(line, err=True)
        sys.exit(status)


def _words_for(exc: Exception) -> tuple[int | None, tuple[str, ...]]:
    from service.delivery import StoreUnavailable  # noqa: PLC0415
    from service.privacy import scrub  # noqa: PLC0415
    from service.settings import SettingsError  # noqa: PLC0415

    if isinstance(exc, SettingsError):
        return 2, (*(f"Warning: {warning}" for warning in exc.warnings), *exc.mistakes)
    if isinstance(exc, StoreUnavailable):
        return 1, (f"The record cannot be used: {scrub(str(exc)) or 'the store does not answer'}",)
    from service.app import CannotStart  # noqa: PLC0415

    return (1, (str(exc),)) if isinstance(exc, CannotStart) else (None, ())


def print_json(document: Any) -> None:
    """Print one JSON document on standard output, in ASCII, so that any terminal can carry it."""
    import json  # noqa: PLC0415

    click.echo(json.dumps(document, indent=2))
