"""What one SMS provider is to the shared channel: a table of request, answer, error codes and report words."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    PermanentFailure,
    RecipientRefused,
    Report,
    ReportRequest,
    SendingBlocked,
    TransientFailure,
)

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms:
    """One text on its way. `key` is the intent's, for the provider to give back; `gsm7`: no letter needs UCS-2."""

    to: str  # E.164
    text: str
    key: str
    gsm7: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an error code means, in a failure and in our words: nothing of theirs is repeated."""

    failure: type[DeliveryFailure]
    words: str


def number(words: str) -> Meaning:
    """Return the meaning of a code that is about the recipient's number."""
    return Meaning(failure=RecipientRefused, words=words)


def account(words: str) -> Meaning:
    """Return the meaning of a code that is about our account, or about how it is set up."""
    return Meaning(failure=AccountFailure, words=words)


def blocked(words: str) -> Meaning:
    """Return the meaning of a code that is about who sends, or what."""
    return Meaning(failure=SendingBlocked, words=words)


def later(words: str) -> Meaning:
    """Return the meaning of a code that only time mends."""
    return Meaning(failure=TransientFailure, words=words)


def refused(words: str) -> Meaning:
    """Return the meaning of a code that is about this message."""
    return Meaning(failure=PermanentFailure, words=words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, read to its end or to where it broke. `retry_after` is in seconds."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None

    def member(self, *path: str | int) -> object:
        """Return what stands at a path in the JSON of the body; None when it is not there."""
        return member(parsed(self.body), *path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A row for each thing that differs from provider to provider.

    `body` makes the request's body; `remote_id` finds the provider's own name for an accepted message in its answer
    (None: it was not accepted); `code` finds an error's code, to be looked up in `meanings`. `reports` verifies and
    reads a delivery report, and raises as `Reporting.read_reports`. `probe` is what `check` asks for by GET.
    """

    name: str
    title: str
    sender: str | None
    url: str
    content_type: str
    authorization: str = field(repr=False)
    body: Callable[[Sms], bytes]
    remote_id: Callable[[Answer], str | None]
    code: Callable[[Answer], str | None]
    meanings: Mapping[str, Meaning]
    reports: Callable[[ReportRequest, datetime], tuple[Report, ...]]
    probe: str | None
    longest: int = 1600  # characters


def parsed(body: bytes) -> object:
    """Return the value that JSON stands for; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def member(value: object, *path: str | int) -> object:
    """Return what stands at a path of a parsed document; None when it is not there."""
    for step in path:
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        elif isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def word(value: object) -> str | None:
    """Return an id or a code, which may be a number in JSON, as text; None for what cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable() else None  # noqa: PLR2004  # the longest
