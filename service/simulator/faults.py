"""The simulator's faults: the table of their names, those that are asked for just now, and how often they struck."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from service.simulator.deeds import (
    NEVER,
    Answer,
    Behaviour,
    Billed,
    Call,
    Document,
    How,
    Meanwhile,
    Payment,
    Phase,
    Turn,
)
from service.simulator.troubles import INVOICES, REPORTS, TEXTS

H = TypeVar("H", bound=How)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a fault is, for a person; the points at which it can strike; and what is done there.

    A point is the name of one of the provider's endpoints in `api`, `before read`, `after read`, `before capture`,
    `after capture` for what somebody else does to a transaction, `paying`, `billing` for a group's bill, `callback`,
    `webhook`, a `Phase` of a mail, `sms` for a text, `sms report` for what becomes of it, or `erp` for an invoice.
    """

    about: str
    at: tuple[str, ...]
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that is asked for: how likely it is each time it could strike, and how often at most (None: no end).

    `where` narrows it: words that must all be true of the moment, such as those of the point (`capture`, `token`), a
    transaction's id, a file's id or a recipient's address.
    """

    name: str
    probability: float = 1.0
    count: int | None = None
    where: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that mean nothing."""
        if not 0 < self.probability <= 1:
            raise ValueError("probability must be above 0 and at most 1")
        if self.count is not None and self.count < 1:
            raise ValueError("count must be at least 1")


@dataclass(slots=True, kw_only=True)
class Active:
    """A fault that was asked for, how often it struck since, and how often it still may (None: no end)."""

    fault: Fault
    kind: Kind
    left: int | None
    struck: int = 0


@dataclass(slots=True)
class Faults:
    """The faults that are asked for now. `struck` counts by name what ever struck; the same seed strikes the same."""

    random: Random
    struck: Counter[str] = field(default_factory=Counter)
    _active: list[Active] = field(default_factory=list)

    def on(self, name: str, *, probability: float = 1.0, count: int | None = None, where: str = "") -> None:
        """Ask for a fault of the table; raises `KeyError` for another name, `ValueError` for odd numbers."""
        self.commit(Fault(name=name, probability=probability, count=count, where=where))

    def commit(self, fault: Fault, kind: Kind | None = None) -> None:
        """Ask for a fault, besides those that are asked for already; a `kind` of one's own need not be in the table."""
        self._active.append(Active(fault=fault, kind=kind or KINDS[fault.name], left=fault.count))

    def stop(self, name: str) -> None:
        """Ask no more for faults of this name."""
        self._active = [active for active in self._active if active.fault.name != name]

    def clear(self) -> None:
        """Behave as usual again."""
        self._active.clear()

    def active(self) -> tuple[Active, ...]:
        """Return what can still strike, in the order in which it was asked for."""
        return tuple(active for active in self._active if active.left != 0)

    def take(self, how: type[H], point: str, *true: str, fits: Callable[[H], bool] = lambda _: True) -> H | None:
        """Return what is to be done of one sort at a point, and count it; the first that fits and is drawn is taken."""
        for active in self._active:
            wanted = active.kind.how
            if isinstance(wanted, how) and fits(wanted) and self._strikes(active, point, true):
                if active.left is not None:
                    active.left -= 1
                active.struck += 1
                self.struck[active.fault.name] += 1
                return wanted
        return None

    def _strikes(self, active: Active, point: str, true: tuple[str, ...]) -> bool:
        if active.left == 0 or point not in active.kind.at:
            return False
        if not set(active.fault.where.split()) <= {*point.split(), *true}:
            return False
        return active.fault.probability == 1 or self.random.random() < active.fault.probability


# --- the table -------------------------------------------------------------------------------------------------------

_READS = ("read_transaction", "read_session", "list_transactions", "read_checkout", "list_profiles")
_HOOKS = ("list_subscriptions", "create_subscription", "delete_subscription", "ping_subscription")
_EFFECTS = ("capture", "void")
_CREATES = ("create_session", "create_session_of_profile", "pay", "pay_session")
_SIGNED_IN = (*_READS, *_EFFECTS, *_CREATES, "file", *_HOOKS)
_ALL = ("token", *_SIGNED_IN)
_BYTES = ("cdn", "file bytes")
_CALLS = ("callback", "webhook")

_DECLINED = {"code": "capture_failed", "message": "The capture was not carried out"}
_NO_RETRY = _DECLINED | {"retry_policy": {"retry_codes": ["DO_NOT_RETRY"]}}
_RETRY_LATER = _DECLINED | {"retry_policy": {"retry_codes": ["RETRY_AFTER_DELAY"], "retry_after": 600}}
_RETRY_NOW = _DECLINED | {"retry_policy": {"retry_codes": ["RETRY_IMMEDIATELY"]}}

_PROVIDER = {
    "401": Kind(about="the token is not good", at=_ALL, how=Answer(status=401, message="invalid JWT")),
    "403": Kind(about="the client may not do that", at=_ALL, how=Answer(status=403, message="forbidden")),
    "404": Kind(about="what is asked for is not there", at=_SIGNED_IN, how=Answer(status=404, message="not found")),
    "409": Kind(about="a capture or void meets a conflict", at=_EFFECTS, how=Answer(status=409, message="conflict")),
    "429": Kind(
        about="too many requests; come again in two minutes",
        at=_ALL,
        how=Answer(status=429, message="too many requests", retry_after=120),
    ),
    "429-date": Kind(
        about="the same, with the time of day to come again at",
        at=_ALL,
        how=Answer(status=429, message="too many requests", retry_after=120, as_date=True),
    ),
    "500": Kind(about="an error inside, before any effect", at=_ALL, how=Answer(status=500, message="internal error")),
    "500-after": Kind(
        about="an error inside, after the effect",
        at=_SIGNED_IN,
        how=Answer(status=500, message="internal error", after=True),
    ),
    "503": Kind(
        about="not available now; come again in ten seconds",
        at=_ALL,
        how=Answer(status=503, message="temporarily unavailable", retry_after=10),
    ),
    "timeout-before": Kind(about="no answer comes, and nothing was done", at=_ALL, how=Answer(lost="silence")),
    "timeout-after": Kind(
        about="it took effect, and no answer comes", at=_SIGNED_IN, how=Answer(lost="silence", after=True)
    ),
    "dropped-before": Kind(about="the connection ends, and nothing was done", at=_ALL, how=Answer(lost="break")),
    "dropped-after": Kind(
        about="it took effect, and the connection ends", at=_SIGNED_IN, how=Answer(lost="break", after=True)
    ),
    "html": Kind(
        about="it took effect, and a page of HTML is the answer", at=_ALL, how=Answer(body="html", after=True)
    ),
    "html-502": Kind(about="a gateway answers with a page of HTML", at=_ALL, how=Answer(status=502, body="html")),
    "truncated-json": Kind(
        about="it took effect, and the JSON of the answer is cut short",
        at=_ALL,
        how=Answer(body="cut short", after=True),
    ),
}

_CAPTURES = {
    "capture-fails": Kind(
        about="200, but the capture's own event failed for good", at=("capture",), how=Turn(error=_NO_RETRY)
    ),
    "capture-fails-for-now": Kind(
        about="200, but the event failed and says: again in ten minutes", at=("capture",), how=Turn(error=_RETRY_LATER)
    ),
    "capture-fails-once": Kind(
        about="200, but the event failed and says: again at once", at=("capture",), how=Turn(error=_RETRY_NOW)
    ),
    "capture-later": Kind(about="202, carried out two minutes later", at=("capture",), how=Turn(later=120)),
    "capture-fails-later": Kind(
        about="202, and two minutes later it failed for good", at=("capture",), how=Turn(later=120, error=_NO_RETRY)
    ),
}

_OTHERS = {
    "part-captured-before-read": Kind(
        about="somebody else captures a part before we read", at=("before read",), how=Meanwhile(deed="part")
    ),
    "part-captured-before-capture": Kind(
        about="somebody else captures a part just before us", at=("before capture",), how=Meanwhile(deed="part")
    ),
    "captured-before-capture": Kind(
        about="somebody else captures it all just before us", at=("before capture",), how=Meanwhile(deed="capture")
    ),
    "void-before-read": Kind(about="it is voided before we read", at=("before read",), how=Meanwhile(deed="void")),
    "void-after-read": Kind(about="it is voided after we read", at=("after read",), how=Meanwhile(deed="void")),
    "void-before-capture": Kind(
        about="it is voided just before the capture", at=("before capture",), how=Meanwhile(deed="void")
    ),
    "void-after-capture": Kind(
        about="it is voided just after the capture", at=("after capture",), how=Meanwhile(deed="void")
    ),
    "paid-before-read": Kind(
        about="collected by somebody else and paid before we read", at=("before read",), how=Meanwhile(deed="pay")
    ),
    "paid-after-read": Kind(
        about="collected by somebody else and paid after we read", at=("after read",), how=Meanwhile(deed="pay")
    ),
    "events-grow": Kind(
        about="each read shows one more failed capture of somebody else",
        at=("before read",),
        how=Meanwhile(deed="fail"),
    ),
}

_PAYMENTS = {
    "payment-fails": Kind(about="200, but the payment FAILED", at=("paying",), how=Payment()),
    "payment-declined": Kind(about="200, but the payment was DECLINED", at=("paying",), how=Payment(status="DECLINED")),
}

_BILLS = {
    "bill-voided": Kind(
        about="the newest purchase is voided just before billing", at=("billing",), how=Billed(deed="void")
    ),
    "bill-renamed": Kind(
        about="the newest purchase has another business name: two invoices", at=("billing",), how=Billed(deed="rename")
    ),
    "bill-left-out": Kind(
        about="the newest purchase comes on the next period's invoice", at=("billing",), how=Billed(deed="next")
    ),
    "bill-own-number": Kind(
        about="the newest purchase gets an invoice of its own", at=("billing",), how=Billed(deed="own")
    ),
    "bill-total": Kind(
        about="the newest purchase is billed at a higher amount", at=("billing",), how=Billed(deed="total")
    ),
    "bill-date": Kind(about="the invoice is dated five days later", at=("billing",), how=Billed(deed="date")),
    "bill-some-first": Kind(
        about="only the first purchase shows it; the rest an hour later",
        at=("billing",),
        how=Billed(deed="some"),
    ),
    "bill-mixed": Kind(
        about="purchases in different currencies get one number", at=("billing",), how=Billed(deed="mixed")
    ),
}

_FILES = {
    "file-html": Kind(about="HTML instead of the PDF", at=_BYTES, how=Document(kind="html")),
    "file-truncated": Kind(about="half of the PDF", at=_BYTES, how=Document(kind="cut short")),
    "file-empty": Kind(about="an empty file", at=_BYTES, how=Document(kind="nothing")),
    "file-404": Kind(about="the PDF is not there", at=_BYTES, how=Document(status=404)),
    "file-expired": Kind(about="the descriptor's link has expired", at=("descriptor",), how=Document(kind="expired")),
}

_CALLBACKS = {
    "callback-lost": Kind(about="it is never sent", at=_CALLS, how=Call(lost=True)),
    "callback-twice": Kind(about="it is sent twice at the same time", at=_CALLS, how=Call(copies=2)),
    "callback-late": Kind(about="it is sent two minutes late", at=_CALLS, how=Call(late=120)),
    "callback-out-of-order": Kind(about="it is sent after the next one", at=_CALLS, how=Call(held=True)),
    "callback-stale": Kind(about="its first attempt was signed an hour ago", at=("callback",), how=Call(age=3600)),
    "callback-forged": Kind(about="a stranger sends one like it first", at=_CALLS, how=Call(forged=True)),
}

_REFUSALS = {
    Phase.CONNECT: "421 4.3.2 Service not available",
    Phase.EHLO: "421 4.3.2 Service not available",
    Phase.AUTH: "454 4.7.0 Temporary authentication failure",
    Phase.MAIL: "451 4.3.0 Local error in processing",
    Phase.RCPT: "451 4.3.0 Local error in processing",
    Phase.DATA: "451 4.3.0 Local error in processing",
    Phase.CONTENT: "451 4.3.0 Local error in processing",
}
_PHASES = {
    name: kind
    for phase, refusal in _REFUSALS.items()
    for name, kind in {
        f"mail-refused-at-{phase}": Kind(about=refusal, at=(phase,), how=Behaviour(reply=refusal)),
        f"mail-dropped-at-{phase}": Kind(
            about="the connection ends instead of the reply", at=(phase,), how=Behaviour(drop=True)
        ),
        f"mail-silent-at-{phase}": Kind(about="the reply never comes", at=(phase,), how=Behaviour(delay=NEVER)),
        f"mail-slow-at-{phase}": Kind(about="the reply comes after a minute", at=(phase,), how=Behaviour(delay=60)),
    }.items()
}
_MAILS = {
    "mail-dropped-after-taking-it": Kind(
        about="the mail is taken, and the connection ends",
        at=(Phase.CONTENT,),
        how=Behaviour(drop=True, keep=True),
    ),
    "mail-silent-after-taking-it": Kind(
        about="the mail is taken, and the reply never comes",
        at=(Phase.CONTENT,),
        how=Behaviour(delay=NEVER, keep=True),
    ),
    "mail-greylisted": Kind(
        about="come again in five minutes",
        at=(Phase.RCPT,),
        how=Behaviour(reply="451 4.7.1 Greylisted, please try again in 300 seconds"),
    ),
    "mail-unknown-recipient": Kind(
        about="there is no such mailbox",
        at=(Phase.RCPT,),
        how=Behaviour(reply="550 5.1.1 <{recipient}>: Recipient address rejected: User unknown"),
    ),
    "mail-full-mailbox": Kind(
        about="the mailbox is full", at=(Phase.RCPT,), how=Behaviour(reply="452 4.2.2 Mailbox full")
    ),
    "mail-too-large": Kind(
        about="the message is too large",
        at=(Phase.MAIL,),
        how=Behaviour(reply="552 5.3.4 Message size exceeds fixed limit"),
    ),
    "mail-too-large-at-the-end": Kind(
        about="the message turns out to be too large",
        at=(Phase.CONTENT,),
        how=Behaviour(reply="552 5.3.4 Error: message file too big"),
    ),
    "mail-policy": Kind(
        about="blocked by the other side's policy",
        at=(Phase.CONTENT,),
        how=Behaviour(reply="550 5.7.1 Message blocked by policy"),
    ),
    "mail-wrong-password": Kind(
        about="the password is not good",
        at=(Phase.AUTH,),
        how=Behaviour(reply="535 5.7.8 Error: authentication failed"),
    ),
    "mail-password-off": Kind(
        about="signing in with a password is switched off",
        at=(Phase.MAIL,),
        how=Behaviour(reply="550 5.7.30 Basic authentication is not supported for Client Submission"),
    ),
}

_SMS = {name: Kind(about=trouble.about, at=("sms",), how=trouble) for name, trouble in TEXTS.items()}
_SMS |= {name: Kind(about=about, at=("sms report",), how=told) for name, (about, told) in REPORTS.items()}
_ERP = {name: Kind(about=trouble.about, at=("erp",), how=trouble) for name, trouble in INVOICES.items()}

GROUPS: dict[str, dict[str, Kind]] = {
    "The provider's answers": _PROVIDER,
    "Captures": _CAPTURES,
    "What somebody else does": _OTHERS,
    "Payments": _PAYMENTS,
    "Grouped bills": _BILLS,
    "Invoice files": _FILES,
    "Callbacks and webhooks": _CALLBACKS,
    "Mail": _MAILS | _PHASES,
    "SMS": _SMS,
    "ERP": _ERP,
}
"""Every fault by its name, in the groups in which people look for them."""

KINDS: dict[str, Kind] = {name: kind for group in GROUPS.values() for name, kind in group.items()}
"""Every fault by its name."""
