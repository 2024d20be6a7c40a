"""What a scripted mail server does instead of its usual replies: by phase, by recipient, so many times."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

NEVER = math.inf
"""A delay after which nothing comes."""


class Phase(StrEnum):
    """Where in a conversation the server is about to reply."""

    CONNECT = "connect"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"  # the message has been read to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the server does instead of its usual reply.

    `reply` may hold `{recipient}`. `drop` closes the connection in place of the reply, `delay` (seconds) comes before
    either. At `CONTENT` a message goes to the inbox when the reply is 2xx, or is dropped or never comes while `keep`.
    """

    reply: str | None = None
    delay: float = 0.0
    drop: bool = False
    keep: bool = False


@dataclass(slots=True, kw_only=True)
class _Rule:
    phase: Phase
    behaviour: Behaviour
    recipient: str | None
    left: int | None


@dataclass(slots=True)
class Script:
    """The behaviours that were asked for; the first that fits is taken, as often as it was asked for."""

    _rules: list[_Rule] = field(default_factory=list)

    def on(self, phase: Phase, behaviour: Behaviour, *, recipient: str | None = None, times: int | None = None) -> None:
        """Behave so at `phase`, for one recipient or all (recipients are known from RCPT on), for ever or `times`."""
        self._rules.append(_Rule(phase=phase, behaviour=behaviour, recipient=recipient, left=times))

    def refuse(self, recipient: str, reply: str, *, times: int | None = None) -> None:
        """Answer this at RCPT of one recipient."""
        self.on(Phase.RCPT, Behaviour(reply=reply), recipient=recipient, times=times)

    def clear(self) -> None:
        """Behave as usual again."""
        self._rules.clear()

    def take(self, phase: Phase, recipients: tuple[str, ...] = ()) -> Behaviour | None:
        """Return what was asked for here, and count it."""
        for rule in self._rules:
            if rule.phase is phase and rule.left != 0 and (rule.recipient is None or rule.recipient in recipients):
                if rule.left is not None:
                    rule.left -= 1
                return rule.behaviour
        return None
