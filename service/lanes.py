"""The lanes that deliveries wait in: their slots, what of them is paused, and when one at fault is tried."""

from collections.abc import Mapping, Sequence

from service.decide import LONGEST_DELAY, Fault, Rules
from service.delivery import PROVIDER_LANE, Pause

BLOCKS = 3
"""Deliveries refused by policy in a row, with none accepted between them, after which a lane counts as at fault."""
LONGEST_PROBE_DELAY = 60.0


class Lanes:
    """How many deliveries of each lane are in hand and may be, and which of the lanes are paused as far as is known."""

    def __init__(self, channels: Sequence[str], concurrency: int) -> None:
        # Channels come first: what waits for one was put back by a pass that found no slot, and has waited longest.
        self.names = (*channels, PROVIDER_LANE)
        self._most: Mapping[str, int] = dict.fromkeys(self.names, concurrency)
        self._taken = dict.fromkeys(self.names, 0)
        self._paused: frozenset[str] = frozenset()
        self._blocked: dict[str, set[str]] = {name: set() for name in self.names}  # ids of deliveries
        self.any_at_fault = False

    @property
    def several(self) -> bool:
        """Whether there is more than one channel."""
        return len(self.names) > len((PROVIDER_LANE, "one channel"))

    def free(self, lane: str) -> int:
        """Return how many more deliveries of a lane may be in hand."""
        return self._most[lane] - self._taken[lane]

    def batch(self, lane: str) -> int:
        """Return how many must be free before a claim is worth its statement."""
        return max(1, self._most[lane] // 4) if self._taken[lane] else 1

    def take(self, lane: str) -> None:
        """Count one more in hand."""
        self._taken[lane] += 1

    def leave(self, lane: str) -> None:
        """Count one less in hand."""
        self._taken[lane] -= 1

    def open(self, lane: str) -> bool:
        """Tell whether a delivery in hand may go on in another lane: that is not paused, and has a slot."""
        return lane not in self._paused and self.free(lane) > 0

    def know(self, pauses: Sequence[Pause]) -> None:
        """Take in which pauses are in force."""
        paused = frozenset(pause.lane for pause in pauses)
        for lane in (self._paused - paused) & self._blocked.keys():  # another process may have channels of its own
            self._blocked[lane].clear()  # what was refused before the lane worked again says nothing of it now
        self._paused = paused
        self.any_at_fault = any(pause.by is None for pause in pauses)

    def met(self, delivery_id: str, fault: Fault | None, sent: str | None) -> Fault | None:
        """Take in how a pass ended: return what it has now shown to be at fault.

        One message that is refused again and again is that message's trouble, and not the lane's.
        """
        if sent is not None:
            self._blocked[sent].clear()
        if fault is None or not fault.blocked:
            return fault
        self._blocked[fault.lane].add(delivery_id)
        return fault if len(self._blocked[fault.lane]) >= BLOCKS else None

    def pause(self, lane: str) -> None:
        """Know of a pause that has just been made."""
        self._paused |= {lane}
        self.any_at_fault = True


def probe_delay(rules: Rules, failed: int, retry_after: float | None) -> float:
    """Return the seconds until the next probe after `failed` ones: along the schedule, a minute at most.

    What the other side says lengthens it.
    """
    planned = min(rules.retry_delays[min(failed, len(rules.retry_delays) - 1)], LONGEST_PROBE_DELAY)
    return max(planned, min(retry_after or 0.0, LONGEST_DELAY))
