"""The other side of a channel, as the suite needs it played."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from service.delivery import Channel, Composed, Fate, Receipt, ReportRequest

REDIRECT_EMAIL: Final = "test@shop.example"
REDIRECT_PHONE: Final = "+4740000009"


class Plays(StrEnum):
    """How the other side answers from now on. Only `ACCEPTS` and `LOSES_THE_ANSWER` surely take the message."""

    ACCEPTS = "accepts"
    REFUSES_FOR_NOW = "refuses for now"
    THROTTLES = "throttles"
    REFUSES_FOR_GOOD = "refuses for good"
    ACCOUNT_AT_FAULT = "finds our account at fault"  # a wrong password, no credit
    LOSES_THE_ANSWER = "loses the answer"  # takes it, and the connection breaks
    GARBLES_THE_ANSWER = "answers what says neither yes nor no"  # it broke inside, or a proxy between did
    ABSENT = "is not there"  # nobody listens at its address


class Peer(Protocol):
    """A real one, reached over a real connection on loopback: what passes against a mock proves nothing."""

    @property
    def secrets(self) -> Sequence[str]:
        """Passwords, tokens and keys that it was opened with; no error may name them."""

    def open_channel(self, *, redirected: bool = False) -> AbstractAsyncContextManager[Channel]:
        """Open the adapter with settings that lead it here; `redirected`: as with REDIRECT_TO, to the two above."""

    async def play(self, plays: Plays) -> None:
        """Answer like this until told otherwise. A refusal repeats what was asked, for an adapter must not."""

    def taken(self) -> int:
        """Return how many messages a customer would have got so far."""

    def report(self, composed: Composed, receipt: Receipt, fate: Fate, at: datetime) -> ReportRequest:
        """Return the genuine report of a message that was accepted; for those alone whose `reports` is true."""
