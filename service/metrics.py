"""The figures that `/metrics` shows, and the plain calls by which everybody counts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.delivery import PROVIDER_LANE, Concern, Condition, Counts, Outcome, Received, Reported, Unrecorded

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
CALLBACK_RESULTS: Final = (
    *Received,
    *Unrecorded,
    "forged",
    "stale",
    "unusable",
    "too_large",
    "unavailable",
)
ALARMS: Final = (
    "alert_failed",
    "blind_copy_failed",
    "bounced",
    "captured_not_delivered",
    "chore_failed",
    "content",
    "delivered_not_captured",
    "document_unavailable",
    "failed",
    "group_differs",
    "group_not_billed",
    "held",
    "lane_paused",
    "lease_lost",
    "nobody_delivers",
    "overdue",
    "silence",
    "store_unavailable",
    "subscription_gone",
    "unconfirmed",
    "unexpected_error",
    "voided_after_delivery",
)
"""The log events `alarm.*`, without that word."""
_SEND_OUTCOMES: Final = ("accepted", "refused", "unconfirmed")
REPORT_RESULTS: Final = (*Reported, "forged", "stale", "unusable", "too_large", "unavailable")
_CAPTURE_OUTCOMES: Final = (*_SEND_OUTCOMES, "pending")
_PREFIX = "merchant_delivery_"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One process's counters, in their own registry. What only the record knows (open, due) comes with `render`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lanes = {PROVIDER_LANE}
        ProcessCollector(registry=self._registry)
        self._callbacks = self._counter("callbacks", "Callbacks by what became of them.", "result")
        self._closed = self._counter("closed", "Deliveries that this process closed.", "outcome")
        self._sends = self._counter("sends", "Messages by how their sending ended.", "channel", "outcome")
        self._captures = self._counter("captures", "Captures by how they ended.", "outcome")
        self._alarms = self._counter("alarms", "Events that a person should know.", "alarm")
        self._reports = self._counter("reports", "Reports of messages by what became of them.", "channel", "result")
        self._missed = self._counter("missed_callbacks", "Transactions in the list that no callback brought.")
        self._steps = Histogram(
            f"{_PREFIX}step_seconds", "Duration of steps.", ["step"], registry=self._registry, buckets=_BUCKETS
        )
        self._show()

    def _show(self) -> None:
        """Make every label there is: a counter that is missing until its first event cannot be watched for it."""
        for counter, names in (
            (self._callbacks, CALLBACK_RESULTS),
            (self._closed, Outcome),
            (self._captures, _CAPTURE_OUTCOMES),
            (self._alarms, ALARMS),
        ):
            for name in names:
                counter.labels(name)

    def show_channels(self, names: Iterable[str]) -> None:
        """Make the labels of these channels' sends and lanes, likewise."""
        for name in names:
            self._lanes.add(name)
            for outcome in _SEND_OUTCOMES:
                self._sends.labels(name, outcome)

    def show_reporting(self, channels: Iterable[str]) -> None:
        """Make the labels of the reports of these channels, likewise."""
        for name in channels:
            for result in REPORT_RESULTS:
                self._reports.labels(name, result)

    def report(self, channel: str, result: str) -> None:
        """Count a report of a message by what became of it, one of `REPORT_RESULTS`."""
        self._reports.labels(channel, result).inc()

    def callback(self, result: str) -> None:
        """Count a callback by what became of it, one of `CALLBACK_RESULTS`."""
        self._callbacks.labels(result).inc()

    def step(self, step: str, seconds: float) -> None:
        """Count a step of a delivery and how long it took."""
        self._steps.labels(step).observe(seconds)

    def closed(self, outcome: str) -> None:
        """Count a delivery that this process closed."""
        self._closed.labels(outcome).inc()

    def send(self, channel: str, outcome: str) -> None:
        """Count a send by how it ended: `accepted`, `refused`, `unconfirmed`."""
        self._sends.labels(channel, outcome).inc()

    def capture(self, outcome: str) -> None:
        """Count a capture by how it ended: `accepted`, `refused`, `unconfirmed`, `pending`."""
        self._captures.labels(outcome).inc()

    def missed(self) -> None:
        """Count a transaction that nobody told us of."""
        self._missed.inc()

    def alarm(self, name: str, cases: int = 1) -> None:
        """Count an event `alarm.<name>` in so many cases; the name may be given with or without its first word."""
        self._alarms.labels(name.removeprefix("alarm.")).inc(cases)

    def render(self, counts: Counts | None, concerns: Iterable[Concern] = ()) -> bytes:
        """Return the Prometheus text; without `counts` (no answer from the store) the record's figures are missing."""
        own = generate_latest(self._registry)
        return own if counts is None else own + generate_latest(_Figures(counts, tuple(concerns), self._lanes))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)


class _Figures(Collector):
    """What the record knows, as gauges made for one reply."""

    def __init__(self, counts: Counts, concerns: Sequence[Concern], lanes: Iterable[str]) -> None:
        self._counts = counts
        self._concerns = concerns
        self._lanes = lanes

    def collect(self) -> Iterable[Metric]:
        yield from _gauges(self._counts)
        yield from _of_concerns(self._concerns, self._lanes)


def _gauges(counts: Counts) -> Iterator[Metric]:
    deliveries = GaugeMetricFamily(_PREFIX + "deliveries", "Deliveries in the record by outcome.", labels=["outcome"])
    known = dict(counts.outcomes)
    for outcome in Outcome:
        deliveries.add_metric([outcome], known.get(outcome, 0))
    yield deliveries
    yield GaugeMetricFamily(_PREFIX + "due", "Deliveries that are due.", value=counts.due)
    yield GaugeMetricFamily(
        _PREFIX + "overdue", "Deliveries that have been due for more than five minutes.", value=counts.overdue
    )
    yield GaugeMetricFamily(
        _PREFIX + "oldest_open_age_seconds",
        "Seconds since the oldest open delivery was received; 0 when none is open.",
        value=counts.oldest_open_age or 0.0,
    )


def _of_concerns(concerns: Sequence[Concern], lanes: Iterable[str]) -> Iterator[Metric]:
    known = {concern.condition: concern for concern in concerns}
    numbers = GaugeMetricFamily(
        _PREFIX + "concerns", "What a person may have to see to, from the record.", labels=["concern"]
    )
    for condition in Condition:
        numbers.add_metric([condition], known[condition].count if condition in known else 0)
    yield numbers
    found = known.get(Condition.PAUSED)
    at_rest = {one.subject for one in found.cases} if found else set[str]()
    paused = GaugeMetricFamily(_PREFIX + "paused", "1 while nothing is claimed from a lane.", labels=["lane"])
    for lane in sorted({*lanes, *at_rest}):
        paused.add_metric([lane], int(lane in at_rest))
    yield paused
