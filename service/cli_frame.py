"""What all commands share: settings, the record, who asks and when, plain words for trouble, JSON."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from service.delivery import Delivery, Request, Store
    from service.settings import Need, Settings

T = TypeVar("T")

PROGRAM = "merchant-delivery"


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


def say(line: str, *, err: bool = False) -> None:
    """Tell how an act goes. Whoever has stopped listening, or has no room for it, does not stop the act."""
    with suppress(OSError):
        click.echo(line, err=err)


def is_terminal(stream: IO[str] | None) -> bool:
    """Tell whether a stream is a terminal; one that was closed before we began is None."""
    return stream is not None and stream.isatty()


def print_json(document: Any) -> None:
    """Print one JSON document on standard output, in ASCII, so that any terminal can carry it."""
    import json  # noqa: PLC0415

    click.echo(json.dumps(document, indent=2))


def in_record(work: "Callable[[Store], Awaitable[T]]", settings: "Settings | None" = None) -> T:
    """Open the record (with its own setting alone, unless others were loaded), do the work, close it."""
    import asyncio  # noqa: PLC0415

    from service.settings import Need  # noqa: PLC0415

    settings = settings or load(Need.STORE)
    from service.record import open_record  # noqa: PLC0415

    async def run() -> T:
        async with open_record(settings) as store:
            return await work(store)

    return asyncio.run(run())


async def one(store: "Store", reference: str) -> "Delivery":
    """Return the one delivery that is meant, or end the command with what there is instead."""
    found = await store.find(reference)
    # A grouped purchase's id is also that of the transaction which its invoice is read from: here it names itself.
    found = tuple(delivery for delivery in found if delivery.id == reference) or found
    if len(found) == 1:
        return found[0]
    if not found:
        click.echo(f"No delivery is known by {reference}.", err=True)
    else:
        from service.terminal import listing  # noqa: PLC0415

        click.echo(f"{len(found)} deliveries are known by {reference}; name one by its transaction id:", err=True)
        click.echo(listing(found, width=width()), err=True)
    raise click.exceptions.Exit(1)


def request(reason: str | None) -> "Request":
    """Return what the system user asks at this moment."""
    from service.delivery import Request  # noqa: PLC0415
    from service.privacy import scrub  # noqa: PLC0415

    return Request(by=the_user(), at=now(), reason=scrub(reason) if reason else None)


def now() -> datetime:
    """Return this moment: an operator's command is of it."""
    return datetime.now(UTC)


def program_version() -> str:
    """Return the program's name and version."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        found = version(PROGRAM)
    except PackageNotFoundError:
        found = "(not installed: run from its folder)"
    return f"{PROGRAM} {found}"


def the_user() -> str:
    """Return the name of the system user; a container may run as a number that has none."""
    import getpass  # noqa: PLC0415
    import os  # noqa: PLC0415

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = ""
    return name if name and name.isprintable() else f"uid {os.getuid()}"


def width() -> int | None:
    """Return the terminal's width; what is piped on is not cut."""
    import shutil  # noqa: PLC0415

    return shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
