"""What a mail server pipes in: `receipts ingest`. Its exit status tells the server whether to try again."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli_frame import in_record, load, plain_trouble, say

if TYPE_CHECKING:
    from service.delivery import Report, Reported, Store
    from service.settings import Settings


@click.group()
def receipts() -> None:
    """Tell the record what became of messages."""


@receipts.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
def ingest(file: Path) -> None:
    """Read a bounce: a mail in FILE, or piped in by a mail server (-).

    Only a delivery status notification about a mail of ours counts. Exit status 0: it is in the record; 1: nothing of
    ours is in it; 75: the record does not answer, and the mail server is to try again.
    """
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.RECEIPTS)
        from service.receipts import EMAIL  # noqa: PLC0415
        from service.receipts.dsn import reports_in  # noqa: PLC0415

        copies = [settings.mail_bcc.address] if settings.mail_bcc else []
        reports = reports_in(_content(file), EMAIL, ignored=copies)
        if not reports:
            say("Nothing in this mail is about a mail of ours.", err=True)
            sys.exit(1)
        for report, result in zip(reports, _recorded(settings, reports), strict=True):
            say(f"{report.detail}: {_SAID[result]}")


_SAID = {
    "recorded": "recorded",
    "bounced": "recorded, and the delivery is open again",
    "duplicate": "was in the record already",
    "unmatched": "kept, for no such mail is known yet",
}


def _content(file: Path) -> bytes:
    """Return a mail, its beginning if it is large."""
    from service.receipts.dsn import LARGEST  # noqa: PLC0415

    if str(file) == "-":
        return sys.stdin.buffer.read(LARGEST)
    try:
        with file.open("rb") as opened:
            return opened.read(LARGEST)
    except OSError as exc:
        raise click.ClickException(f"{file}: cannot be read ({exc.strerror})") from exc


def _recorded(settings: "Settings", reports: "tuple[Report, ...]") -> "tuple[Reported, ...]":
    """Write the reports and return what they did; ends the command with 75 (EX_TEMPFAIL) when that cannot be."""
    from service.delivery import StoreUnavailable  # noqa: PLC0415
    from service.metrics import Metrics  # noqa: PLC0415
    from service.privacy import scrub  # noqa: PLC0415
    from service.reporting import Reporter  # noqa: PLC0415

    async def work(store: "Store") -> "tuple[Reported, ...]":
        return await Reporter(store=store, metrics=Metrics(), account_id=settings.account_id).take(reports)

    try:
        return in_record(work, settings)
    except StoreUnavailable as exc:
        say(f"The record cannot be used: {scrub(str(exc)) or 'the store does not answer'}", err=True)
        sys.exit(os.EX_TEMPFAIL)
