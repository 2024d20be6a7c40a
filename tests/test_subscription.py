"""Whether the account's webhook is there: what counts, what is created, and what an hourly look says."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from service.delivery import AccountFailure, Job, Subscription, TransientFailure, UnconfirmedFailure
from service.metrics import Metrics
from service.subscription import GONE, NOT_YET, THERE, Wanted, Watch, ensure

URL, OTHER_URL = "https://new.example/webhooks/dintero", "https://old.example/webhooks/dintero"
AUTHORIZATION, TRANSACTION = "checkout_authorization", "checkout_transaction"
WANTED = Wanted(urls=(URL, OTHER_URL), events=(AUTHORIZATION, TRANSACTION))
JOB = Job(name="T12345678:subscription", token="t", now=datetime.now(UTC), last_run_at=None, note=None)


def a_subscription(
    number: str = "1", *, url: str = URL, events: Sequence[str] = WANTED.events, active: bool = True
) -> Subscription:
    return Subscription(id=number, url=url, events=tuple(events), active=active)


class FakeProvider:
    """Keeps subscriptions; `trouble` is raised by the next creation, before or `after` it took effect."""

    def __init__(self, *there: Subscription) -> None:
        self.there = list(there)
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self.trouble: Exception | None = None
        self.after = False

    async def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self.there)

    async def subscribe(self, url: str, secret: str, events: Sequence[str]) -> Subscription:
        self.asked.append((url, secret, tuple(events)))
        trouble, self.trouble = self.trouble, None
        if trouble is not None and not self.after:
            raise trouble
        created = a_subscription(f"new-{len(self.asked)}", url=url, events=events)
        self.there.append(created)
        if trouble is not None:
            raise trouble
        return created


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ((), WANTED.events),
        ((a_subscription(),), ()),
        ((a_subscription(events=(*WANTED.events, "settlement_add")),), ()),
        ((a_subscription(url=OTHER_URL),), ()),
        ((a_subscription(url="https://elsewhere.example/webhooks/dintero"),), WANTED.events),
        ((a_subscription(url=f"{URL}/"),), WANTED.events),
        ((a_subscription(active=False),), WANTED.events),
        ((a_subscription(events=(TRANSACTION,)),), (AUTHORIZATION,)),
        ((a_subscription(events=(TRANSACTION,)), a_subscription("2", events=(AUTHORIZATION,))), ()),
        ((a_subscription(events=(TRANSACTION,)), a_subscription("2", active=False)), (AUTHORIZATION,)),
    ],
)
async def test_what_is_missing_is_created_and_nothing_else(
    there: tuple[Subscription, ...], missing: tuple[str, ...]
) -> None:
    provider = FakeProvider(*there)
    ensured = await ensure(provider, WANTED, "a-secret")
    assert ensured.before.missing == missing
    assert provider.asked == ([(URL, "a-secret", missing)] if missing else [])
    assert (ensured.created is not None) is bool(missing)
    assert (await ensure(provider, WANTED, "a-secret")).created is None


async def test_inactive_ones_are_named() -> None:
    inactive = a_subscription("2", active=False)
    ensured = await ensure(FakeProvider(a_subscription(), inactive), WANTED, "s")
    assert ensured.before.inactive == (inactive,)
    assert [one.id for one in ensured.before.active] == ["1"]


async def test_a_lost_answer_is_resolved_by_looking() -> None:
    provider = FakeProvider(a_subscription(events=(TRANSACTION,)))
    provider.trouble, provider.after = UnconfirmedFailure("lost"), True
    ensured = await ensure(provider, WANTED, "s")
    assert ensured.created is not None
    assert ensured.created.id == "new-1"
    provider = FakeProvider()
    provider.trouble = UnconfirmedFailure("lost")
    with pytest.raises(UnconfirmedFailure):
        await ensure(provider, WANTED, "s")


async def test_a_lost_answer_that_cannot_be_resolved_stays_in_doubt() -> None:
    class Away(FakeProvider):
        async def subscriptions(self) -> tuple[Subscription, ...]:
            if self.asked:
                raise TransientFailure("503")
            return ()

    provider = Away()
    provider.trouble = UnconfirmedFailure("lost")
    with pytest.raises(UnconfirmedFailure):
        await ensure(provider, WANTED, "s")


async def test_a_refusal_is_told() -> None:
    provider = FakeProvider()
    provider.trouble = AccountFailure("403")
    with pytest.raises(AccountFailure):
        await ensure(provider, WANTED, "s")


async def test_a_look_finds_it_there() -> None:
    watch = Watch(provider=FakeProvider(a_subscription()), wanted=WANTED, metrics=Metrics())
    with capture_logs() as logs:
        assert await watch.look(JOB) == THERE
    assert logs == []


@pytest.mark.parametrize("there", [(), (a_subscription(active=False),), (a_subscription(events=(TRANSACTION,)),)])
async def test_a_look_says_loudly_that_it_is_gone(there: tuple[Subscription, ...]) -> None:
    metrics = Metrics()
    watch = Watch(provider=FakeProvider(*there), wanted=WANTED, metrics=metrics)
    with capture_logs() as logs:
        assert await watch.look(replace(JOB, note=THERE)) == GONE
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("alarm.subscription_gone", "error")
    assert AUTHORIZATION in line["missing"].split(", ")  # a text: the log would show a list as Python does
    assert b'alarms_total{alarm="subscription_gone"} 1.0' in metrics.render(None)


@pytest.mark.parametrize("note", [None, NOT_YET])
async def test_what_was_never_there_is_no_alarm(note: str | None) -> None:
    metrics = Metrics()
    provider = FakeProvider()
    watch = Watch(provider=provider, wanted=WANTED, metrics=metrics)
    with capture_logs() as logs:
        assert await watch.look(replace(JOB, note=note)) == NOT_YET
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("service.not_subscribed", "warning")
    assert line["missing"] == "checkout_authorization, checkout_transaction"
    assert b'alarms_total{alarm="subscription_gone"} 0.0' in metrics.render(None)
    with capture_logs() as logs:
        assert await watch.look(replace(JOB, note=GONE)) == GONE  # and what is gone stays so
    assert [line["event"] for line in logs] == ["alarm.subscription_gone"]


async def test_a_look_that_cannot_see_says_nothing_of_it() -> None:
    class Unreachable(FakeProvider):
        async def subscriptions(self) -> tuple[Subscription, ...]:
            raise TransientFailure("503")

    with capture_logs() as logs, pytest.raises(TransientFailure):
        await Watch(provider=Unreachable(), wanted=WANTED, metrics=Metrics()).look(JOB)
    assert logs == []
