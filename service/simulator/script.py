"""What a test asks of the mail server directly: by phase, by recipient, so many times; kept among its faults."""

from dataclasses import dataclass

from service.simulator.deeds import NEVER, Behaviour, Phase
from service.simulator.faults import Fault, Faults, Kind

__all__ = ["NEVER", "Behaviour", "Phase", "Script"]

_NAME = "scripted"


@dataclass(frozen=True, slots=True)
class Script:
    """The behaviours that were asked for; the first that fits is taken, as often as it was asked for."""

    faults: Faults

    def on(self, phase: Phase, behaviour: Behaviour, *, recipient: str | None = None, times: int | None = None) -> None:
        """Behave so at `phase`, for one recipient or all (recipients are known from RCPT on), for ever or `times`."""
        kind = Kind(about="asked for by a test", at=(phase,), how=behaviour)
        self.faults.commit(Fault(name=_NAME, count=times, where=recipient or ""), kind)

    def refuse(self, recipient: str, reply: str, *, times: int | None = None) -> None:
        """Answer this at RCPT of one recipient."""
        self.on(Phase.RCPT, Behaviour(reply=reply), recipient=recipient, times=times)

    def clear(self) -> None:
        """Forget what was asked for here."""
        self.faults.stop(_NAME)
