"""Where an invoice goes, in words: what the levels of configuration decide, and what the service does then."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.decide import OURS, by_ownership
from service.delivery import BUILT_IN, DecidedBy, Delivery, Explained, Level, Resolution, Standing, Transaction
from service.privacy import scrub
from service.purchases import is_grouped

_KRAVIA = "kravia"
_MERCHANT = "merchant"
_DELIVERABLE = (Standing.AUTHORIZED, Standing.INITIATED)


class Way(StrEnum):
    """Who sends the invoice to the customer."""

    OURS = "ours"
    KRAVIA = "kravia"
    NOBODY = "nobody"  # by what is known here


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where such an invoice goes; `words` are a sentence or two for people."""

    way: Way
    words: str


def decided(levels: Sequence[Level]) -> Level:
    """Return the level that won."""
    return next(level for level in levels if level.won)


def destination(
    explained: Explained, transaction: Transaction, channels: Sequence[str], *, delivery: Delivery | None = None
) -> Destination:
    """Return where the invoice goes; `delivery` is what the record has of it, None where there is none (yet).

    `channels` are the ways to the customer in order of preference.
    """
    won = decided(explained.channel)
    by = ", then ".join(channels)
    if is_grouped(explained.product_type):
        place = _grouped(won, by)
    else:
        level = DecidedBy.SETTING if won.name == BUILT_IN else DecidedBy(won.name)
        verdict = by_ownership(transaction, Resolution(channel=won.value or _KRAVIA, decided_by=level))
        place = _single(won, by) if verdict is None else _elsewhere(won, verdict.reason or "", explained.product_type)
    ours = is_grouped(explained.product_type) or explained.product_type in OURS
    said = [place.words, *(_unread_above(explained.channel) if ours else ()), *_besides(transaction, delivery)]
    return Destination(way=place.way, words=" ".join(said))


def _single(won: Level, by: str) -> Destination:
    return Destination(way=Way.OURS, words=f"You deliver it, by {by}, and it is captured ({won.name}).")


def _elsewhere(won: Level, reason: str, product_type: str) -> Destination:
    if product_type not in OURS:
        return Destination(way=Way.NOBODY, words=f"It is no invoice of Kravia's, and is skipped here: {reason}.")
    if won.value == _KRAVIA:
        return Destination(way=Way.KRAVIA, words=f"Kravia delivers it; it is skipped here: {reason}.")
    return Destination(way=Way.NOBODY, words=f"It is skipped here, and nobody knows who delivers it: {reason}.")


def _grouped(won: Level, by: str) -> Destination:
    if won.value == _MERCHANT:
        words = (
            "It is recorded as a purchase; you deliver the consolidated invoice once, "
            f"by {by}, and each purchase is captured."
        )
        return Destination(way=Way.OURS, words=words)
    if won.value == _KRAVIA:
        words = (
            "It is recorded as a purchase and watched; Kravia delivers the consolidated invoice, and nothing is sent."
        )
        return Destination(way=Way.KRAVIA, words=words)
    words = f"It is recorded as a purchase; nothing is sent, and nobody knows who {scrub(won.value or '')} is."
    return Destination(way=Way.NOBODY, words=words)


def _unread_above(levels: Sequence[Level]) -> list[str]:
    """Return what might still decide otherwise: levels above the one that won that nobody has read."""
    unread = [level.name for level in levels[: levels.index(decided(levels))] if level.unread]
    return (
        [f"That is, unless the {' or the '.join(unread)} at Dintero says otherwise: not read here."] if unread else []
    )


def _besides(transaction: Transaction, delivery: Delivery | None) -> list[str]:
    """Return what else stands in the way: the transaction's state, and what the record has of it already."""
    said = []
    if delivery is not None and transaction.standing not in _DELIVERABLE:
        said.append(f"At Dintero it is {scrub(transaction.status)}: nothing is delivered while it is.")
    if delivery is not None:
        held = "held for a person" if delivery.is_held else delivery.outcome.value
        said.append(f"In the record it is {held}" + (f": {delivery.reason}." if delivery.reason else "."))
    return said
