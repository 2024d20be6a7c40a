"""What an operator's word does to deliveries: retry, resend, cancel and resolve, one or many at a time."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import click

from service.cli_choice import Target, targeted, text
from service.cli_frame import in_record, is_terminal, load, plain_trouble, request, say
from service.delivery import Delivery, Kind, Members, Outcome, Request, Store

_AT_ONCE = 100
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What is done to each delivery: how it is called, the outcome that shows that it was done, and what comes next."""

    verb: str
    wanted: Outcome
    words: str
    do: Callable[[Store, str, Request], Awaitable[Delivery]]


_CANCEL = Deed(
    verb="cancel",
    wanted=Outcome.CANCELLED,
    words="is stopped here. The invoice still exists at Dintero; void it there if nobody is to pay it.",
    do=lambda store, id_, asked: store.cancel(id_, asked),
)
_RETRY = Deed(
    verb="retry",
    wanted=Outcome.OPEN,
    words="is tried again now.",
    do=lambda store, id_, asked: store.retry(id_, asked),
)
_RESEND = Deed(
    verb="resend",
    wanted=Outcome.OPEN,
    words="will be delivered once more, if it is ours to deliver.",
    do=lambda store, id_, asked: store.resend(id_, asked),
)
_DELIVERED = Deed(
    verb="resolve as delivered",
    wanted=Outcome.OPEN,
    words="counts as delivered, by your word. Its capture is next, unless it is captured already.",
    do=lambda store, id_, asked: store.resolve(id_, asked, delivered=True),
)
_NOT_DELIVERED = Deed(
    verb="resolve as not delivered",
    wanted=Outcome.OPEN,
    words="counts as not delivered, by your word. It is sent now.",
    do=lambda store, id_, asked: store.resolve(id_, asked, delivered=False),
)


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from service.addresses import mail_address  # noqa: PLC0415  # slow to import

    try:
        return mail_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


_because = click.option("--reason", callback=text, help="Why; it is recorded.")


@click.command(short_help="Take the next due step now; reopens what is closed.")
@targeted
@_because
def retry(target: Target, reason: str | None) -> None:
    """Take the next due step now, with a new give-up clock; reopens what is closed."""
    _act(target, _RETRY, request(reason))


@click.command()
@targeted
@click.option("--to", metavar="ADDRESS", callback=_address, help="To another address, for this delivery only.")
@click.option("--even-late", is_flag=True, help="However near the due date is, or past.")
@_because
def resend(target: Target, to: str | None, even_late: bool, reason: str | None) -> None:  # noqa: FBT001  # click's shape
    """Deliver once more on purpose; reopens what is closed."""
    if to is not None and len(target.references) != 1:
        raise click.UsageError("--to is for one delivery.")
    _act(target, _RESEND, replace(request(reason), to=to, even_late=even_late))


@click.command()
@targeted
@click.option("--void", is_flag=True, help="Void it at Dintero, too; needs all settings.")
@_because
def cancel(target: Target, void: bool, reason: str | None) -> None:  # noqa: FBT001  # click's shape
    """Stop. The invoice still exists at Dintero, unless it is voided there."""
    if void:
        _stop_and_void(target, request(reason))
    else:
        _act(target, _CANCEL, request(reason))


@click.command(short_help="Say whether the customer has the invoice: you looked.")
@targeted
@click.option("--delivered/--not-delivered", default=None, help="What you found when you looked.")
@click.option("--by", "rests_on", metavar="TEXT", callback=text, help='How it was delivered: "post, 2026-11-20".')
@click.option("--reason", callback=text, required=True, help="How you know; it is recorded.")
def resolve(target: Target, delivered: bool | None, rests_on: str | None, reason: str) -> None:  # noqa: FBT001
    """Say whether the customer has the invoice, for what is open or failed: you looked, and know.

    Delivered, it goes on to the capture; not delivered, it is sent.
    """
    from service.privacy import scrub  # noqa: PLC0415

    if delivered is None:
        raise click.UsageError("Say --delivered or --not-delivered.")
    if not reason.strip():
        raise click.UsageError("--reason is required: how you know.")
    if rests_on and not delivered:
        raise click.UsageError("--by is for what was delivered.")
    asked = replace(request(reason), rests_on=scrub(rests_on) if rests_on else None)
    _act(target, _DELIVERED if delivered else _NOT_DELIVERED, asked)


def _stop_and_void(target: Target, asked: Request) -> None:
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.SERVE)
        from service.cli_voiding import void_all  # noqa: PLC0415

        async def work(store: Store) -> bool:
            return await void_all(settings, store, await _agreed(store, target, "cancel --void", asked))

        whole = in_record(work, settings)
    sys.exit(0 if whole else 1)


def _act(target: Target, deed: Deed, asked: Request) -> None:
    with plain_trouble():
        done = in_record(lambda store: carry_out(store, target, deed, asked))
    sys.exit(0 if all(_as_wanted(delivery, deed) for delivery in done) else 1)


async def carry_out(store: Store, target: Target, deed: Deed, asked: Request) -> list[Delivery]:
    """Do it to all that are meant now, after asking if they are several; return them as they are then."""
    import asyncio  # noqa: PLC0415  # slow to import

    meant = await _agreed(store, target, deed.verb, asked)
    done: list[Delivery] = []
    terse = len(meant) > _SHOWN and is_terminal(sys.stdout)
    shown = len(meant) > _SHOWN and is_terminal(sys.stderr)
    with click.progressbar(length=len(meant), label=deed.verb, file=sys.stderr, hidden=not shown) as bar:
        for start in range(0, len(meant), _AT_ONCE):
            page = meant[start : start + _AT_ONCE]
            answers = await asyncio.gather(*(deed.do(store, name, own) for name, own in page), return_exceptions=True)
            after = [answer for answer in answers if isinstance(answer, Delivery)]
            done += after
            _tell([one for one in after if not _is_refused(one, deed)], deed, terse=terse)
            await _tell_refused(store, [one for one in after if _is_refused(one, deed)])
            bar.update(len(page))
            for answer in answers:
                if isinstance(answer, BaseException):
                    say(f"{len(done)} of {len(meant)} were done.", err=True)
                    raise answer
    if terse:
        say(f"{deed.verb}: {sum(_as_wanted(one, deed) for one in done)} of {len(done)} were done.")
    return done


def _is_refused(delivery: Delivery, deed: Deed) -> bool:
    return deed is _RESEND and delivery.kind is Kind.PURCHASE


def _as_wanted(delivery: Delivery, deed: Deed) -> bool:
    return delivery.outcome is deed.wanted and not _is_refused(delivery, deed)


async def _tell_refused(store: Store, purchases: Sequence[Delivery]) -> None:
    """Say of purchases that are billed together with others what is sent instead of them."""
    for delivery in purchases:
        found = await store.members(Members(transaction_id=delivery.id))
        number = found[0].purchase.invoice_number if found else None
        mend = "its invoice has not come yet (`groups show` says when)"
        if number:
            mend = f"resend the invoice that it is on: `deliveries resend {number}`"
        say(f"{delivery.id} is billed together with others, and nothing is sent of it alone; {mend}.", err=True)


async def _agreed(store: Store, target: Target, verb: str, asked: Request) -> list[tuple[str, Request]]:
    """Return the ids that are meant, and what is asked of each, after asking the person if they are several.

    While somebody thinks about the question, deliveries go on. What has another outcome by then is left alone.
    """
    meant = await target.ids(store)
    if not meant:
        say("No deliveries match; nothing was done.", err=True)
    ask = bool(meant) and (len(meant) > 1 or not target.references)
    if ask:
        _make_sure(meant, verb, sure=target.sure)
    return [(name, replace(asked, only_if=was if ask else None)) for name, was in meant]


def _make_sure(meant: Sequence[tuple[str, Outcome]], verb: str, *, sure: bool) -> None:
    counts = Counter(outcome for _, outcome in meant)
    kinds = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    noun = "delivery" if len(meant) == 1 else "deliveries"
    say(f"{verb}: {len(meant)} {noun} ({kinds})", err=True)
    if sure:
        return
    if not is_terminal(sys.stdin):
        raise click.UsageError("There is no terminal to ask on: say --yes if that is meant.")
    if not click.confirm("Go on?", err=True):
        say("Nothing was done.", err=True)
        raise click.exceptions.Exit(1)


def _tell(done: Sequence[Delivery], deed: Deed, *, terse: bool) -> None:
    for delivery in done:
        as_wanted = delivery.outcome is deed.wanted
        if not (terse and as_wanted):
            said = deed.words if as_wanted else f"is {delivery.outcome} and stays so."
            say(f"{delivery.transaction_id} {said}")
