"""Which channel's turn it is: the route, whom it reaches by what, and the fall from one channel to the next."""

from dataclasses import replace
from datetime import timedelta

from service.decide import Close, Decision, Ending, Wait, delivered, fallen, in_doubt
from service.delivery import Channel, Kind, PermanentFailure, Recipient, Result, Route, Step
from service.pipeline.work import Work, database_now, enter

_IN_TIME = "it had not worked in time"


def route_of(work: Work) -> Route:
    """Return the route of what is being delivered."""
    parts = work.parts
    today = parts.clock.now().astimezone(parts.rules.timezone).date()
    return parts.routes.choose(work.known, language=parts.renderer.locale(work.known), today=today)


def named(work: Work, name: str) -> Channel | None:
    """Return a channel that is open."""
    return next((channel for channel in work.parts.channels if channel.name == name), None)


def reach(work: Work, *, without: str | None = None, only: str | None = None) -> tuple[Channel, Recipient]:
    """Return the first channel of the route that this round is not done with, and whom it reaches.

    `only` is the channel of a send in doubt that is repeated: no other can do that. Raises `PermanentFailure` saying
    why there is none.
    """
    over = fallen(work.delivery, work.sends)
    # What the last of those said comes first: it is why this one is asked.
    refusals = [work.delivery.reason] if over and work.delivery.reason else []
    for name in route_of(work).channels:
        channel = named(work, name)
        if channel is None or name in over or name == without or only not in (None, name):
            continue
        try:
            return channel, channel.recipient(work.known, to=work.delivery.send_to or _of_organization(work))
        except PermanentFailure as failure:
            refusals.append(failure.reason)
    done_with = f" after {', '.join(sorted(over))}" if over else ""
    raise PermanentFailure("; ".join(refusals) or f"no channel is left to try{done_with}")


def _of_organization(work: Work) -> str | None:
    """Return where this organisation's consolidated invoices are to go, if the merchant said so."""
    billing = work.known.billing
    if work.delivery.kind is Kind.INVOICE or billing is None:  # a purchase is tried as its invoice is sent
        return None
    return work.parts.rules.group_addresses.of(billing.country, billing.organization_number)


def another(work: Work, channel: str) -> bool:
    """Tell whether another channel could take a channel's place."""
    try:
        reach(work, without=channel)
    except PermanentFailure:
        return False
    return True


def _next_up(work: Work) -> str | None:
    """Return the channel that comes next: that of a send in doubt, wherever it stands in the route, else the first."""
    if doubtful := in_doubt(work.delivery, work.sends):
        return doubtful[-1].channel
    try:
        return reach(work)[0].name
    except PermanentFailure:
        return None


def took_its_turn(work: Work, channel: str) -> None:
    """Note whose turn it is, and since when."""
    if work.delivery.channel_since is None or work.delivery.turn != channel:
        work.delivery = replace(work.delivery, turn=channel, channel_since=database_now(work))


def time_left(work: Work, channel: str) -> float | None:
    """Return the seconds until the next channel has its turn; None when this one's has not begun."""
    if work.delivery.channel_since is None or work.delivery.turn != channel:
        return None
    over_at = work.delivery.channel_since + timedelta(seconds=work.parts.rules.fallback_after)
    return (over_at - database_now(work)).total_seconds()


def in_time(work: Work, channel: str, ending: Ending | None) -> Ending | None:
    """Return `ending`, sooner where another channel has its turn before that."""
    left = time_left(work, channel)
    if not isinstance(ending, Wait) or left is None or not another(work, channel):
        return ending
    return replace(ending, at_most=max(left, 0.0))


def not_too_long(work: Work, decision: Decision) -> Decision:
    """Return a decision; one to wait for what is in doubt ends, too, when another channel has its turn."""
    if not isinstance(decision, Wait) or delivered(work.delivery, work.sends):
        return decision
    channel = _next_up(work)
    return decision if channel is None else in_time(work, channel, decision) or decision


def tire(work: Work) -> None:
    """Give the next channel its turn where the present one's time is over; with no other, it begins again."""
    if work.delivery.channel_since is None or delivered(work.delivery, work.sends):
        return
    channel = _next_up(work)
    left = None if channel is None else time_left(work, channel)
    if channel is None or left is None or left > 0:
        return
    if another(work, channel):
        _fall(work, channel, work.delivery.reason or _IN_TIME)
    else:  # or it would be taken up from a paused lane again and again; see `Store.fall_from`
        work.delivery = replace(work.delivery, channel_since=database_now(work))


def fall(work: Work, close: Close) -> Wait | None:
    """Go over to the next channel instead of giving up, if there is one; return None when that was done.

    What may have arrived leaves its channel the rest of its time. Raises `LookupError` when no channel is left.
    """
    channel = close.of_channel
    if channel is None or not another(work, channel):
        raise LookupError
    left = time_left(work, channel)
    if close.alarm == "alarm.unconfirmed" and left is not None and left > 0:
        return Wait(reason=close.reason or _IN_TIME, seconds=left, no_send=True)
    _fall(work, channel, close.reason or _IN_TIME)
    return None


def _fall(work: Work, channel: str, why: str) -> None:
    enter(work, Step.DELIVER, Result.REFUSED, detail=f"{channel} is given up: {why}", channel=channel)
    names = [name for name in work.delivery.fallen.split(",") if name]
    work.delivery = replace(
        work.delivery,
        fallen=",".join([*names, channel]),
        channel_since=None,
        paced=False,
        no_send_before=None,
        postponed=0,
        reason=why,
    )
