"""`links`: a person ends the link to an invoice page, and what `deliveries show` says of a delivery's links."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from service.cli_choice import text
from service.cli_frame import in_record, is_terminal, one, plain_trouble, request
from service.delivery import KeptLink, Store


@click.group()
def links() -> None:
    """Look after the links to invoice pages."""


@links.command()
@click.argument("reference", metavar="ID", callback=text)
@click.option("--reason", callback=text, help="Why; it is recorded.")
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
def revoke(reference: str, reason: str | None, sure: bool) -> None:  # noqa: FBT001  # click's shape
    """End the links to a delivery's invoice page at once. Its document is deleted within an hour or so.

    Whoever opens one sees what anybody sees who has none. A `deliveries resend` makes a new one.
    """
    if not sure and not is_terminal(sys.stdin):
        raise click.UsageError("Without a terminal, say --yes.")

    async def end(store: Store) -> str:
        delivery = await one(store, reference)
        if not sure:
            click.confirm(f"End the links to the invoice page of {delivery.transaction_id}?", abort=True, err=True)
        ended = await store.revoke_links(delivery.id, request(reason))
        if not ended:
            click.echo(f"{delivery.transaction_id} has no link that works.", err=True)
            raise click.exceptions.Exit(1)
        return f"{delivery.transaction_id}: {ended} link{'s' if ended > 1 else ''} ended."

    with plain_trouble():
        click.echo(in_record(end))


def links_json(found: Sequence[KeptLink]) -> dict[str, Any]:
    """Return what the JSON of a delivery says of its links; nothing of one that never had any."""
    from service.record_json import time_text  # noqa: PLC0415

    if not found:
        return {}
    names = ("created_at", "expires_at", "opened_at", "renewed_at", "revoked_at")
    return {"links": [{name: time_text(getattr(link, name)) for name in names} for link in found]}


def links_in_words(found: Sequence[KeptLink]) -> str:
    """Return the table that `deliveries show` has of them; the links themselves are nowhere in clear."""
    from service.record_json import time_text  # noqa: PLC0415
    from service.terminal import table  # noqa: PLC0415

    rows = [
        [time_text(at) or "-" for at in (x.created_at, x.expires_at, x.opened_at, x.renewed_at, x.revoked_at)]
        for x in found
    ]
    return "Links\n" + table(("MADE", "UNTIL", "OPENED", "ASKED AGAIN", "REVOKED"), rows, width=None)
