"""What the provider has to tell the merchant, and the requests by which it is told, as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.simulator.documents import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """Something that the merchant may want to hear of; its callback URL's options and its subscriptions decide."""

    session: Json
    transaction: Json | None
    event: Json | None = None  # None: the payment as a whole
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request that is due: the same in every attempt but for what `sign` makes of the time and the secret."""

    point: str  # `callback` or `webhook`, where faults strike
    about: str  # the transaction's id, or nothing
    method: str
    url: str
    body: bytes | None
    headers: Mapping[str, str]
    tries: int
    sign: Callable[[datetime, bool], Mapping[str, str]]  # (when, whether by a stranger)
    ended: Callable[[int | None], bool]  # told each answer's status (None: there was none), says whether that was all
    delay: float = 0.0  # seconds
