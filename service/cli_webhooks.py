"""`webhooks`: the account's webhook at the provider."""

import asyncio
from typing import TYPE_CHECKING, Any

import click

from service.cli_frame import load, plain_trouble, print_json
from service.delivery import DeliveryFailure, UnconfirmedFailure

if TYPE_CHECKING:
    from service.delivery import Subscription
    from service.subscription import Ensured


@click.group()
def webhooks() -> None:
    """Have Dintero tell us of transactions by an account webhook."""


@webhooks.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def ensure(as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Create the account's webhook subscription, unless it is there.

    It calls PUBLIC_URL/webhooks/dintero, signed with the first of WEBHOOK_SECRETS. Where one is there that lacks an
    event or is inactive, another is created beside it for what is missing.
    """
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.SERVE)
        from service.app import ensure_webhooks  # noqa: PLC0415

        try:
            ensured = asyncio.run(ensure_webhooks(settings))
        except UnconfirmedFailure as failure:
            again = "It is NOT KNOWN whether it was created. Run it again: it creates none where one is"
            click.echo(f"{failure.reason.rstrip('.')}. {again}.", err=True)
            raise click.exceptions.Exit(1) from None
        except DeliveryFailure as failure:
            click.echo(f"{failure.reason.rstrip('.')}. Nothing was created.", err=True)
            raise click.exceptions.Exit(1) from None
    if as_json:
        print_json(_json(ensured))
    else:
        _show(ensured)


def _show(ensured: "Ensured") -> None:
    for subscription in ensured.before.active:
        click.echo(f"There: {_words(subscription)}")
    for subscription in ensured.before.inactive:
        click.echo(f"Inactive: {_words(subscription)}. Delete it in Dintero's Backoffice, under Settings, Webhooks.")
    if ensured.created is not None:
        click.echo(f"Created: {_words(ensured.created)}")
        click.echo("Dintero pings it at once: look in the log for callback.received with the result ping.", err=True)


def _words(subscription: "Subscription") -> str:
    return f"{subscription.id} at {subscription.url}, for {', '.join(subscription.events) or 'no events'}"


def _json(ensured: "Ensured") -> dict[str, Any]:
    there = [*ensured.before.active, *ensured.before.inactive]
    created = [ensured.created] if ensured.created is not None else []
    return {
        "created": ensured.created is not None,
        "subscriptions": [
            {
                "id": subscription.id,
                "url": subscription.url,
                "events": list(subscription.events),
                "active": subscription.active,
                "created": subscription in created,
            }
            for subscription in (*there, *created)
        ],
    }
