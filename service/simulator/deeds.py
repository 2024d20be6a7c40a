"""What the simulator can do instead of the usual, as values; `faults` names them, those who answer commit them."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from service.simulator.documents import Json

NEVER = math.inf
"""A delay after which nothing comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The provider answers a request like this. `retry_after` is in seconds, and so is `delay`, before the answer."""

    status: int = 200
    message: str = ""
    retry_after: float | None = None
    as_date: bool = False  # Retry-After is given as an HTTP date
    after: bool = False  # what was asked for takes effect first
    body: Literal["error", "html", "cut short", "usual"] = "error"  # cut short: half of the usual answer's JSON
    delay: float = 0.0
    lost: Literal["silence", "break"] | None = None  # it never comes, or the connection ends in the middle of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A capture takes this turn instead of succeeding at once. Times are in seconds."""

    later: float | None = None  # 202 now, and its event after so long
    error: Json | None = None  # of the event; None: it succeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Meanwhile:
    """Somebody else does something to the transaction."""

    deed: Literal["void", "part", "capture", "pay", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An invoice's file is served like this; `expired`: its descriptor leads to a link that is no longer good."""

    status: int = 200
    kind: Literal["html", "cut short", "nothing", "expired"] = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A callback or webhook is sent like this. `late` and `age` are in seconds."""

    lost: bool = False
    copies: int = 1  # at the same time
    late: float = 0.0
    held: bool = False  # until the next one has been sent
    age: float = 0.0  # of the first attempt's signature
    forged: bool = False  # a stranger sends one like it first, with a signature of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment that is asked for comes to this, in an answer of 200."""

    status: Literal["FAILED", "DECLINED", "ON_HOLD", "INITIATED"] = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """A group is billed otherwise: this happens to its newest purchase, or to its invoice."""

    deed: Literal["void", "rename", "next", "own", "total", "date", "some", "mixed"]


class Phase(StrEnum):
    """Where in a conversation the mail server is about to reply."""

    CONNECT = "connect"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"  # the message has been read to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the mail server does instead of its usual reply.

    `reply` may hold `{recipient}`. `drop` closes the connection in place of the reply, `delay` (seconds) comes before
    either. At `CONTENT` a message goes to the inbox when the reply is 2xx, or is dropped or never comes while `keep`.
    """

    reply: str | None = None
    delay: float = 0.0
    drop: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An SMS provider or an ERP answers like this in place of the usual.

    `keep`: what came is taken first. `lost`: no answer comes. `retry_after` is in seconds, and so is `delay`, before
    the answer. A status of 200 that keeps what came is the usual answer.
    """

    about: str
    status: int = 200
    wrong: Literal["number", "account", "other"] = "other"
    keep: bool = False
    lost: Literal["silence", "break"] | None = None
    retry_after: int | None = None
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What becomes of a text is told like this instead of `delivered`; None: it is never told."""

    fate: Literal["failed", "unknown"] | None


How = Answer | Turn | Meanwhile | Document | Call | Payment | Billed | Behaviour | Trouble | Told
