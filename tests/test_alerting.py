"""Telling people: once, by every way, again after a failure, never not at all; over real SMTP and real HTTP."""

import asyncio
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import httpx2 as httpx
import pytest
from structlog.testing import capture_logs

from service.alarms import Alarms
from service.alert_url import open_poster
from service.alerting import LOOK_EVERY, ByMail, Lookout, Outage, Telling
from service.app import check
from service.channels.notices import Notices, open_notices
from service.chores import Chore, Chores
from service.concerns import Notice
from service.delivery import Condition, Job, Mailbox, Outcome, Request, Store, StoreUnavailable, TransientFailure
from service.metrics import Metrics
from service.serving import listen, origin, serving
from service.settings import Need, load_settings
from service.store import SqlStore
from tests.fakes import ACCOUNT, MovedClock
from tests.servers import Loopback, Reply, Seen, serve
from tests.smtp_peer import DROP, SmtpPeer, smtp_peer
from tests.stage import Stage, environment, open_stage
from tests.test_chores import alarms
from tests.test_concerns import enter

OSLO = ZoneInfo("Europe/Oslo")
SENDER = Mailbox(name="Butikken AS", address="faktura@butikken.example")
TO = ("vakt@butikken.example", "kari@butikken.example")
AT = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)
NOTICE = Notice(kind="urgent", account_id=ACCOUNT, at=AT, subject="Blåbær: …", text="one\ntwo\n", concerns=())
KEY = "ab" * 32


class FakeWay:
    """Keeps what it is told; `plan` holds failures to raise first."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.told: list[Notice] = []
        self.keys: list[str] = []
        self.plan: list[Exception] = []

    async def tell(self, notice: Notice, key: str) -> None:
        if self.plan:
            raise self.plan.pop(0)
        self.told.append(notice)
        self.keys.append(key)

    def conditions(self) -> list[list[str]]:
        return [[one.condition.value for one in notice.concerns] for notice in self.told]


class Desk:
    """What tells one way's people, and the clock on the wall."""

    def __init__(self, store: SqlStore, clock: MovedClock, way: FakeWay | None = None, **changes: Any) -> None:
        self.clock = clock
        self.store = store
        self.way = way or FakeWay()
        self.metrics = Metrics()
        values: dict[str, Any] = {"account_id": ACCOUNT, "timezone": OSLO, "silence_hours": 0.0}
        lookout = Lookout(store=store, clock=clock, **(values | changes))
        self.telling = Telling(self.way, lookout=lookout, metrics=self.metrics, merchant="Butikken AS")

    async def turn(self, after: float = LOOK_EVERY) -> None:
        """Let time pass and the chore have its turn."""
        self.clock.advance(after)
        chore = Chore(name=self.telling.name, every=LOOK_EVERY, run=self.telling.turn)
        chores = Chores(
            (chore,),
            store=self.store,
            clock=self.clock,
            metrics=self.metrics,
            account_id=ACCOUNT,
            stop_grace=1.0,
        )
        await chores.look()

    async def at(self, hour: int, minute: int = 0) -> None:
        """Let it become that time in Oslo, today or tomorrow, and have a turn."""
        now = self.clock.now().astimezone(OSLO)
        then = now.replace(hour=hour, minute=minute, second=30)
        if then < now + timedelta(seconds=LOOK_EVERY + 5):
            then = (then + timedelta(days=1)).replace(tzinfo=OSLO)
        await self.turn((then.astimezone(UTC) - self.clock.now()).total_seconds())


@pytest.fixture
async def desk(store: SqlStore, clock: MovedClock) -> Desk:
    made = Desk(store, clock)
    await made.at(12)  # the first turn ever: digests begin with tomorrow's
    return made


def fails(desk: Desk, name: str, **columns: Any) -> None:
    now = desk.clock.now()
    values = {"outcome": "failed", "reason": "no usable e-mail address", "closed_at": now, "received_at": now}
    enter(desk.store, name, **(values | columns))


# --- when ------------------------------------------------------------------------------------------------------------


async def test_what_is_urgent_is_told_within_a_minute_and_once(desk: Desk) -> None:
    await desk.turn()
    assert desk.way.told == []
    fails(desk, "one")
    for _ in range(3):
        await desk.turn()
    (notice,) = desk.way.told
    assert (notice.kind, notice.subject) == (
        "urgent",
        "[urgent] Butikken AS: 1 invoice did not go out (test account)",
    )
    assert "A-one" in notice.text


async def test_more_of_the_same_waits_a_little_and_anything_else_does_not(desk: Desk) -> None:
    fails(desk, "one")
    await desk.turn()
    fails(desk, "two")
    for _ in range(3):
        await desk.turn()
        fails(desk, f"after {len(desk.way.told)} {desk.clock.now()}")
    assert len(desk.way.told) == 1
    await desk.turn(900)
    assert [notice.concerns[0].count for notice in desk.way.told] == [1, 4]
    fails(desk, "last")
    await desk.store.pause(ACCOUNT, "email", "535 wrong password", by=None, probe_in=60)
    await desk.turn()
    assert desk.way.conditions()[2] == ["paused", "failed"]


async def test_silence_is_urgent_too(store: SqlStore, clock: MovedClock) -> None:
    desk = Desk(store, clock, silence_hours=20.0)
    await desk.turn(6 * 86400)
    await desk.turn()
    assert desk.way.conditions() == [["silence"]]
    assert Condition.SILENCE in [one.condition for one in await desk.telling._lookout.concerns()]


async def test_the_digest_comes_each_morning_while_there_is_something(desk: Desk) -> None:
    fails(desk, "one")
    await desk.turn()
    await desk.at(7, 20)
    assert [notice.kind for notice in desk.way.told] == ["urgent"]
    for _ in range(2):
        for minute in (31, 33, 59):
            await desk.at(7, minute)
        await desk.at(23)
    assert [notice.kind for notice in desk.way.told] == ["urgent", "digest", "digest"]
    await desk.store.cancel(f"{ACCOUNT}.one", Request(by="kari", at=desk.clock.now()))
    await desk.at(8)
    assert len(desk.way.told) == 3


async def test_the_first_day_has_no_digest_beside_what_is_told_at_once(store: SqlStore, clock: MovedClock) -> None:
    desk = Desk(store, clock)
    fails(desk, "one")
    await desk.at(12)
    assert [notice.kind for notice in desk.way.told] == ["urgent"]


async def test_a_digest_is_not_missed_by_a_process_that_was_away(desk: Desk) -> None:
    fails(desk, "one")
    await desk.turn()
    await desk.at(15)
    assert [notice.kind for notice in desk.way.told] == ["urgent"]  # it is still the day of the first turn
    await desk.at(14)
    assert [notice.kind for notice in desk.way.told] == ["urgent", "digest"]


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_a_way_that_fails_is_tried_again_ever_less_often_and_holds_up_no_other(desk: Desk) -> None:
    other = Desk(desk.store, desk.clock, FakeWay("other"))
    desk.way.plan = [TransientFailure("535 wrong password")] * 3
    fails(desk, "one")
    left = []
    with capture_logs() as logs:
        for _ in range(40):
            await desk.turn()
            left.append(3 - len(desk.way.plan) + len(desk.way.told))
    assert [left.index(number) for number in (1, 2, 3, 4)] == [0, 1, 6, 21]  # after 60, 300, 900 s
    assert len(desk.way.told) == 1
    assert alarms(desk.metrics) == {"alert_failed": 3}
    failed = [line for line in logs if line["event"] == "alarm.alert_failed"]
    assert {(line["way"], line["reason"]) for line in failed} == {("fake", "535 wrong password")}
    await other.turn()
    assert len(other.way.told) == 1


async def test_a_digest_that_failed_comes_later(desk: Desk) -> None:
    fails(desk, "one")
    await desk.turn()
    desk.way.plan = [TransientFailure("421")]
    await desk.at(7, 31)
    assert len(desk.way.told) == 1
    await desk.turn(120)
    assert [notice.kind for notice in desk.way.told] == ["urgent", "digest"]


async def test_who_dies_between_telling_and_writing_tells_it_again_as_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    fails(desk, "one")
    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "told", dies)
        await desk.turn()
    assert alarms(desk.metrics) == {"chore_failed": 1}
    for _ in range(3):
        await desk.turn(61)
    assert len(desk.way.told) == 2
    assert desk.way.keys[0] == desk.way.keys[1]


class Away:
    """A store that answers or not."""

    def __init__(self) -> None:
        self.broken = True

    async def ping(self) -> None:
        if self.broken:
            raise StoreUnavailable("database or disk is full")


async def test_a_record_that_does_not_answer_is_told_without_it(desk: Desk) -> None:
    store = Away()
    outage = Outage([desk.telling], store=cast("Store", store), clock=desk.clock, metrics=desk.metrics)
    await outage.look()
    desk.clock.advance(299)
    await outage.look()
    assert desk.way.told == []
    desk.way.plan = [TransientFailure("421")]
    for _ in range(5):
        desk.clock.advance(61)
        await outage.look()
    (notice,) = desk.way.told
    assert "database or disk is full" in notice.text
    store.broken = False
    await outage.look()
    store.broken = True
    await outage.look()
    desk.clock.advance(301)
    await outage.look()
    assert len(desk.way.told) == 2


async def test_a_bug_in_the_look_does_not_end_the_service(desk: Desk) -> None:
    class Broken(Away):
        looks = 0

        async def ping(self) -> None:
            self.looks += 1
            if self.looks == 1:
                raise ZeroDivisionError
            outage.stop()

    store = Broken()
    outage = Outage([desk.telling], store=cast("Store", store), clock=desk.clock, metrics=desk.metrics)
    with capture_logs() as logs:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(outage.run())
            while not logs:
                await asyncio.sleep(0)
            assert not running.done()
            await outage.look()
    (line,) = logs
    assert (line["event"], line["log_level"], line["exc_info"]) == ("alarm.unexpected_error", "error", True)
    assert alarms(desk.metrics) == {"unexpected_error": 1}


async def test_a_short_outage_is_not_told(desk: Desk) -> None:
    store = Away()
    outage = Outage([desk.telling], store=cast("Store", store), clock=desk.clock, metrics=desk.metrics)
    for store.broken in (True, False, True):
        await outage.look()
        desk.clock.advance(200)
    assert desk.way.told == []


# --- in the log ------------------------------------------------------------------------------------------------------


async def test_what_shows_as_time_passes_is_logged_once_and_counted(store: SqlStore, clock: MovedClock) -> None:
    """Those that nobody raises when they happen, for nothing happens then."""
    lookout = Lookout(store=store, clock=clock, account_id=ACCOUNT, timezone=OSLO, silence_hours=20.0)
    metrics = Metrics()

    async def logged() -> list[tuple[str, str | None]]:
        turn = Chore(name="alarms", every=LOOK_EVERY, run=Alarms(lookout=lookout, metrics=metrics).turn)
        options: dict[str, Any] = {"store": store, "clock": clock, "metrics": metrics, "account_id": ACCOUNT}
        clock.advance(LOOK_EVERY + 1)
        with capture_logs() as logs:
            await Chores([turn], **options, stop_grace=1.0).look()
        return sorted((line["event"], line.get("transaction_id")) for line in logs)

    now = clock.now()
    ago, later = now - timedelta(hours=2), now + timedelta(days=9)
    enter(store, "sent", delivered_at=ago, due_at=later)
    enter(store, "begun", captured_known_at=ago, due_at=later)
    enter(store, "late", due_at=now - timedelta(minutes=6))
    enter(store, "failed", outcome="failed", reason="no usable e-mail address", closed_at=now)
    all_of_them = [
        ("alarm.captured_not_delivered", f"{ACCOUNT}.begun"),
        ("alarm.delivered_not_captured", f"{ACCOUNT}.sent"),
        ("alarm.overdue", f"{ACCOUNT}.late"),
    ]
    assert await logged() == all_of_them
    assert await logged() == []
    enter(store, "more", due_at=now - timedelta(minutes=6))
    assert await logged() == [("alarm.overdue", f"{ACCOUNT}.more")]
    clock.advance(6 * 86400)
    assert ("alarm.silence", None) in await logged()
    counted = {"captured_not_delivered": 1, "delivered_not_captured": 1, "overdue": 2, "silence": 1}
    assert alarms(metrics) == counted


async def test_of_many_at_once_the_first_by_id_are_logged_and_all_are_counted(
    store: SqlStore, clock: MovedClock
) -> None:
    lookout = Lookout(store=store, clock=clock, account_id=ACCOUNT, timezone=OSLO, silence_hours=0.0)
    metrics = Metrics()
    for number in reversed(range(25)):
        enter(store, f"{number:02}", due_at=clock.now() - timedelta(minutes=6))
    with capture_logs() as logs:
        for _ in range(2):
            turn = Job(name="alarms", token="x", now=clock.now(), last_run_at=None, note=None)
            await Alarms(lookout=lookout, metrics=metrics).turn(turn)
    assert [line["transaction_id"] for line in logs] == [f"{ACCOUNT}.{number:02}" for number in range(20)]
    assert {line["count"] for line in logs} == {25}
    assert alarms(metrics) == {"overdue": 25}


async def test_the_service_logs_it_whether_or_not_anybody_is_told(sqlite_url: str) -> None:
    async with open_stage(sqlite_url) as stage:
        enter(cast("SqlStore", stage.app.store), "late", due_at=stage.clock.now() - timedelta(minutes=6))
        with capture_logs() as logs:
            await stage.app.chores.look()
    assert [line["transaction_id"] for line in logs if line["event"] == "alarm.overdue"] == [f"{ACCOUNT}.late"]


# --- by mail ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def mails(peer: SmtpPeer) -> AsyncIterator[Notices]:
    async with open_notices(smtp_url=peer.url, mail_from=SENDER, to=TO, clock=MovedClock(), hostname="x") as opened:
        yield opened


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as opened:
        yield opened


def read(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def test_each_address_gets_a_plain_mail(peer: SmtpPeer) -> None:
    metrics = Metrics()
    async with mails(peer) as opened:
        await ByMail(mails=opened, metrics=metrics).tell(NOTICE, KEY)
    received = [read(mail) for mail in peer.mails]
    assert [mail["To"] for mail in received] == list(TO)
    for mail in received:
        assert mail["Subject"] == "Blåbær: …"
        assert mail.get_content().splitlines() == ["one", "two"]
        assert mail["Message-ID"] == f"<{KEY}@butikken.example>"
        assert mail["From"].addresses[0].addr_spec == SENDER.address
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["Date"].datetime == AT
    assert alarms(metrics) == {}


async def test_one_address_that_is_refused_is_reported_and_keeps_nobody_from_it(peer: SmtpPeer) -> None:
    metrics = Metrics()
    peer.say("RCPT", "550 5.1.1 no such user vakt@butikken.example")
    async with mails(peer) as opened:
        with capture_logs() as logs:
            await ByMail(mails=opened, metrics=metrics).tell(NOTICE, KEY)
    assert [read(mail)["To"] for mail in peer.mails] == [TO[1]]
    assert alarms(metrics) == {"alert_failed": 1}
    assert "550 5.1.1" in str(logs)
    assert "vakt@" not in str(logs)


async def test_a_relay_that_takes_nothing_is_a_failure(peer: SmtpPeer) -> None:
    peer.say("DATA", DROP, "451 4.3.0 later")
    async with mails(peer) as opened:
        with pytest.raises(TransientFailure):
            await ByMail(mails=opened, metrics=Metrics()).tell(NOTICE, KEY)
    assert peer.mails == []


# --- over a webhook --------------------------------------------------------------------------------------------------


class Hook:
    """What answers at ALERT_URL."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    async def __call__(self, _seen: Seen) -> Reply:
        return self.replies.pop(0) if self.replies else Reply(status=204)


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
async def server(hook: Hook) -> AsyncIterator[Loopback]:
    async with serve(hook) as opened:
        yield opened


async def test_a_notice_is_posted_as_json(server: Loopback, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nobody is there, and nobody asks
    fails(desk, "one", amount=125000, currency="NOK")
    await desk.turn()
    async with open_poster(f"{server.url}/hook?token=secret") as poster:
        await poster.tell(desk.way.told[0], KEY)
    (request,) = server.seen
    assert (request.method, request.target) == ("POST", "/hook?token=secret")
    assert request.headers["content-type"] == "application/json"
    said = cast("dict[str, Any]", request.json())
    assert {key: said[key] for key in ("id", "kind", "account_id")} == {
        "id": KEY,
        "kind": "urgent",
        "account_id": ACCOUNT,
    }
    assert said["text"].startswith(said["subject"])
    (concern,) = said["concerns"]
    assert (concern["name"], concern["count"]) == ("failed", 1)
    assert concern["cases"][0]["subject"] == f"{ACCOUNT}.one"
    assert (concern["cases"][0]["amount"], concern["cases"][0]["currency"]) == (125000, "NOK")
    assert "merchant-delivery deliveries retry ID" in concern["commands"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(status=500), "ALERT_URL answered 500"),
        (Reply(status=302, headers={"location": "/elsewhere"}), "ALERT_URL answered 302"),
        (Reply(cut=0), "ALERT_URL: no answer (RemoteProtocolError)"),
    ],
)
async def test_anything_but_success_is_a_failure_that_names_no_secret(
    server: Loopback, hook: Hook, reply: Reply, reason: str
) -> None:
    hook.replies = [reply]
    async with open_poster(f"{server.url}/hook/secret") as poster:
        with pytest.raises(TransientFailure) as caught:
            await poster.tell(NOTICE, KEY)
    assert caught.value.reason == reason
    assert server.to("/elsewhere") == []


async def test_nobody_there_is_a_failure(server: Loopback) -> None:
    async with open_poster("http://127.0.0.1:9/secret") as poster:
        with pytest.raises(TransientFailure, match="no answer") as caught:
            await poster.tell(NOTICE, KEY)
    assert "secret" not in caught.value.reason


# --- the whole service -----------------------------------------------------------------------------------------------


@pytest.fixture
async def stage(sqlite_url: str, server: Loopback) -> AsyncIterator[Stage]:
    settings = {
        "DELIVERY_ALERT_TO": ", ".join(TO),
        "DELIVERY_ALERT_URL": f"{server.url}/hook/secret",
        "DELIVERY_REDIRECT_TO": "test@butikken.example",
    }
    async with open_stage(sqlite_url, settings=settings) as opened:
        yield opened


async def test_a_delivery_that_fails_reaches_people_by_both_ways(stage: Stage, server: Loopback) -> None:
    def nameless(body: Any) -> None:
        for party in ("billing_address", "shipping_address", "customer"):
            for place in (body, body.get("order", {}), body.get("session", {}).get("order", {})):
                place.get(party, {}).pop("email", None)

    failed = stage.sell(change=nameless)
    await stage.settle()
    assert (await stage.delivery(failed)).outcome is Outcome.FAILED
    stage.clock.advance(61)
    with capture_logs() as logs:
        await stage.app.chores.look()
    alerts = [mail for mail in stage.mails() if mail["Subject"].startswith("[urgent]")]
    assert [mail["To"] for mail in alerts] == list(TO)  # and not to REDIRECT_TO
    assert failed in alerts[0].get_content()
    (posted,) = server.to("/hook/secret")
    assert cast("dict[str, Any]", posted.json())["concerns"][0]["name"] == "failed"
    assert "secret" not in str(logs)
    stage.clock.advance(61)
    await stage.app.chores.look()
    assert len(server.seen) == 1


@pytest.mark.parametrize("collected", [True, False])
async def test_an_invoice_that_nobody_delivers_is_a_concern(stage: Stage, collected: bool) -> None:
    stage.provider.shows_channel = False
    skipped = stage.sell(channel=None)
    if not collected:  # Kravia was told that the merchant delivers, and we were not
        transaction = stage.provider.transactions[skipped]
        transaction["events"] = [event for event in transaction["events"] if "CAPTURE" not in event["event"]]
    await stage.settle()
    assert (await stage.delivery(skipped)).outcome is Outcome.SKIPPED
    assert await stage.app.store.concerns(ACCOUNT) == ()
    await stage.settle(after=3700)
    found = [(one.condition, one.cases[0].subject) for one in await stage.app.store.concerns(ACCOUNT)]
    assert found == ([] if collected else [(Condition.NOBODY, skipped)])


async def test_a_void_after_delivery_is_a_concern(stage: Stage) -> None:
    sold = stage.sell()
    await stage.settle()
    assert (await stage.delivery(sold)).outcome is Outcome.COMPLETED
    stage.provider.void(sold)
    await stage.settle()
    (concern,) = await stage.app.store.concerns(ACCOUNT)
    assert (concern.condition, concern.cases[0].subject) == (Condition.VOIDED, sold)


async def test_a_pause_is_plain_to_see_everywhere(stage: Stage) -> None:
    await stage.app.store.pause(ACCOUNT, "email", "AUTH: 535 5.7.8 wrong password", by=None, probe_in=60)
    with listen() as sock:
        async with serving(stage.app.admin, sock), httpx.AsyncClient(trust_env=False) as client:
            ready = await client.get(f"{origin(sock)}/readyz")
            metrics = (await client.get(f"{origin(sock)}/metrics")).text
    assert ready.status_code == 200
    assert ready.json()["ready"] is True
    (trouble,) = ready.json()["troubles"]
    assert (trouble["part"], trouble["blocking"]) == ("email", False)
    assert "535 5.7.8 wrong password" in trouble["detail"]
    assert 'merchant_delivery_paused{lane="email"} 1.0' in metrics
    assert 'merchant_delivery_paused{lane="provider"} 0.0' in metrics
    assert 'merchant_delivery_concerns{concern="paused"} 1.0' in metrics


async def test_check_tells_of_pauses_and_concerns(stage: Stage, sqlite_url: str, tmp_path: Path) -> None:
    await stage.app.store.pause(ACCOUNT, "email", "a new relay", by="kari", probe_in=None)
    enter(cast("SqlStore", stage.app.store), "one", outcome="failed", closed_at=stage.clock.now())
    settings = environment(stage.running, stage.mail, public_url=stage.url, database_url=sqlite_url)
    results = {result.name: result for result in await check(load_settings(settings, need=Need.SERVE))}
    assert not results["pause email"].ok
    for words in ("by kari", "a new relay", "merchant-delivery resume email"):
        assert words in results["pause email"].detail
    assert (results["deliveries"].ok, results["deliveries"].detail) == (True, "1 invoice did not go out")
    assert "nobody is told" in results["alerts"].detail
