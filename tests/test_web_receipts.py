"""POST /receipts/{channel} through a real server: 200 only for what is recorded, and a bounce is said aloud."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import httpx2 as httpx
import pytest
from structlog.testing import capture_logs

from service.delivery import (
    CommitInDoubt,
    Fate,
    Forged,
    Outcome,
    Report,
    Reported,
    ReportRequest,
    Stale,
    Step,
    StoreUnavailable,
    TransientFailure,
    Unusable,
)
from service.metrics import Metrics
from service.reporting import Reporter
from service.serving import listen, origin, serving
from service.store import SqlStore
from service.web.asgi import application, under
from service.web.intake import LARGEST_BODY, MOST_READ
from service.web.receipts import Receipts
from tests.fakes import MovedClock
from tests.stage import open_stage
from tests.store_values import ACCOUNT, AT, CLOSED, NEVER, SETTLED, claimed, only, send

EARLIER = "https://earlier.example"
REPORT = Report(channel="sms", event_id="e1", reference="abc", fate=Fate.FAILED, at=AT, detail="unknown subscriber")


@dataclass
class FakeReporting:
    """Says that every request tells `reports`, or raises `refusal`."""

    reports: tuple[Report, ...] = (REPORT,)
    refusal: Exception | None = None
    only_at: str = ""  # the beginning of what is signed
    asked: list[ReportRequest] = field(default_factory=list)
    at: list[datetime] = field(default_factory=list)

    async def read_reports(self, request: ReportRequest, *, now: datetime) -> tuple[Report, ...]:
        self.asked.append(request)
        self.at.append(now)
        if self.refusal is not None:
            raise self.refusal
        if not request.url.startswith(self.only_at):
            raise Forged("signature_wrong")
        return self.reports


@dataclass
class Face:
    """A running server, and what a test changes behind it."""

    client: httpx.AsyncClient
    metrics: Metrics
    reporting: FakeReporting
    reporter: Reporter
    wakes: list[int]
    broken: list[Exception]

    async def post(self, path: str = "/receipts/sms", content: Any = b"{}", **headers: str) -> tuple[int, Any]:
        answer = await self.client.post(path, content=content, headers=headers)
        return answer.status_code, answer.json()

    def counted(self, result: str, channel: str = "sms") -> float:
        name = f'merchant_delivery_reports_total{{channel="{channel}",result="{result}"}} '
        lines = self.metrics.render(None).decode().splitlines()
        (line,) = [line for line in lines if line.startswith(name)]
        return float(line.removeprefix(name))


@pytest.fixture
async def face(store: SqlStore, clock: MovedClock) -> AsyncIterator[Face]:
    async with open_face(store, clock) as opened:
        yield opened


@asynccontextmanager
async def open_face(store: SqlStore, clock: MovedClock) -> AsyncIterator[Face]:
    metrics, reporting = Metrics(), FakeReporting()
    wakes: list[int] = []
    broken: list[Exception] = []
    metrics.show_reporting(["sms"])
    reporter = Reporter(store=store, metrics=metrics, account_id=ACCOUNT, wake=lambda: wakes.append(1))

    async def take(reports: Any) -> tuple[Reported, ...]:
        if broken:
            raise broken[0]
        return await reporter.take(reports)

    taking: Callable[[Any], Awaitable[tuple[Reported, ...]]] = take
    receipts = Receipts(
        reporting={"sms": reporting},
        take=taking,
        metrics=metrics,
        clock=clock,
        public_urls=("https://invoices.example/base", EARLIER),
    )
    with listen() as sock:
        app = application(under(("/base",), receipts.routes()), metrics.alarm)
        async with serving(app, sock), httpx.AsyncClient(base_url=origin(sock), trust_env=False) as client:
            yield Face(client, metrics, reporting, reporter, wakes, broken)


async def completed(store: SqlStore) -> str:
    claim = await claimed(store)
    begun = send(claim.delivery.id, channel="sms")
    await store.begin_send(claim, begun)
    await store.settle_send(replace(begun, **SETTLED), [])
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    return claim.delivery.id


async def test_a_bounce_is_recorded_said_and_seen_to(face: Face, store: SqlStore) -> None:
    delivery_id = await completed(store)
    with capture_logs() as logs:
        assert await face.post() == (200, {})
    assert (await only(store)).outcome is Outcome.OPEN
    assert (face.counted("bounced"), len(face.wakes)) == (1, 1)
    alarm, received = logs
    assert alarm == {
        "event": "alarm.bounced",
        "log_level": "warning",
        "transaction_id": delivery_id,
        "channel": "sms",
    }
    assert (received["event"], received["results"]) == ("receipt.received", ["bounced"])
    assert 'alarms_total{alarm="bounced"} 1.0' in face.metrics.render(None).decode()
    assert await face.post() == (200, {})
    assert (face.counted("duplicate"), len(face.wakes)) == (1, 1)


async def test_what_matches_nothing_is_kept_and_tried_again(face: Face, store: SqlStore) -> None:
    assert await face.post() == (200, {})
    assert face.counted("unmatched") == 1
    assert await store.unmatched_reports(ACCOUNT) == (REPORT,)
    job = await store.take_job("reports", every=60, lease=60)
    assert job is not None
    assert await face.reporter.turn(job) is None
    assert (face.counted("duplicate"), face.wakes) == (0, [])
    await completed(store)
    with capture_logs() as logs:
        await face.reporter.turn(job)
    assert [line["event"] for line in logs] == ["alarm.bounced"]
    assert (await only(store)).outcome is Outcome.OPEN
    assert (face.counted("bounced"), len(face.wakes)) == (1, 1)


async def test_every_report_of_a_request_is_recorded(face: Face, store: SqlStore) -> None:
    face.reporting.reports = tuple(replace(REPORT, event_id=f"e{number}") for number in range(3))
    assert await face.post() == (200, {})
    assert len(await store.unmatched_reports(ACCOUNT)) == 3
    face.reporting.reports = ()
    assert await face.post() == (200, {})


@pytest.mark.parametrize("path", ["/receipts/sms", "/base/receipts/sms"])
async def test_the_request_is_handed_on_as_its_sender_made_it(face: Face, clock: MovedClock, path: str) -> None:
    assert (await face.post(f"{path}?secret=a%2Fb&x=%20y", b"\x00\xffbody", X_Signed="one"))[0] == 200
    (asked,) = face.reporting.asked
    assert asked.url == "https://invoices.example/base/receipts/sms?secret=a%2Fb&x=%20y"
    assert (asked.method, asked.body, asked.header("x_signed")) == ("POST", b"\x00\xffbody", "one")
    assert abs((face.reporting.at[0] - clock.now()).total_seconds()) < 5


async def test_a_report_may_come_to_an_earlier_address(face: Face) -> None:
    """Some sign the very address: texts that went out before PUBLIC_URL was changed are reported at the old one."""
    face.reporting.only_at = EARLIER
    assert await face.post("/receipts/sms?x=1") == (200, {})
    assert [asked.url.partition("/receipts")[0] for asked in face.reporting.asked] == [
        "https://invoices.example/base",
        EARLIER,
    ]
    face.reporting.only_at = "https://another.example"
    assert (await face.post())[0] == 401


@pytest.mark.parametrize(
    ("refusal", "status", "result"),
    [
        (Forged("bad_signature"), 401, "forged"),
        (Unusable("no_json"), 400, "unusable"),
        (Stale("outside_tolerance"), 503, "stale"),
        (TransientFailure("no certificate"), 503, "unavailable"),
        (ZeroDivisionError("a bug"), 503, "unavailable"),
    ],
)
async def test_what_is_not_taken(face: Face, store: SqlStore, refusal: Exception, status: int, result: str) -> None:
    face.reporting.refusal = refusal
    with capture_logs() as logs:
        assert await face.post() == (status, {"error": result})
    assert [(line["event"], line["result"]) for line in logs] == [("receipt.rejected", result)]
    assert face.counted(result) == 1
    assert await store.unmatched_reports(ACCOUNT) == ()


@pytest.mark.parametrize("broken", [StoreUnavailable("down"), CommitInDoubt("who knows")])
async def test_no_200_before_it_is_committed(face: Face, broken: Exception) -> None:
    face.broken.append(broken)
    assert await face.post() == (503, {"error": "unavailable"})
    assert face.counted("unavailable") == 1


async def test_a_large_body_is_not_taken(face: Face) -> None:
    assert (await face.post(content=b"x" * LARGEST_BODY))[0] == 200
    assert await face.post(content=b"x" * (LARGEST_BODY + 1)) == (413, {"error": "too_large"})
    assert len(face.reporting.asked) == 1
    assert MOST_READ > LARGEST_BODY


@pytest.mark.parametrize("path", ["/receipts/email", "/receipts/", "/receipts", "/receipts/sms/", "/receipts/SMS"])
async def test_a_channel_that_has_no_reports_has_no_place(face: Face, path: str) -> None:
    assert await face.post(path) == (404, {"error": "not_found"})


async def test_reports_are_posted(face: Face) -> None:
    answer = await face.client.get("/receipts/sms")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert face.reporting.asked == []


def in_anymails_words(mail: EmailMessage) -> dict[str, object]:
    assert mail["X-PM-Metadata-delivery"] is None
    return {"event_type": "bounced", "message_id": mail["Message-ID"].strip("<>"), "event_id": "1"}


def in_postmarks(mail: EmailMessage) -> dict[str, object]:
    """Return what Postmark tells: by an id of its own, which its reply to the mail did not name."""
    assert mail["X-PM-KeepID"] == "true"
    metadata = {"delivery": mail["X-PM-Metadata-delivery"]}
    return {"RecordType": "Bounce", "ID": 1, "Type": "HardBounce", "MessageID": "883953f4", "Metadata": metadata}


@pytest.mark.parametrize(
    ("esp", "tells", "words"),
    [("generic", in_anymails_words, "bounced"), ("postmark", in_postmarks, "bounced: HardBounce")],
)
async def test_a_bounce_through_the_whole_service(
    tmp_path: Any, esp: str, tells: Callable[[EmailMessage], dict[str, object]], words: str
) -> None:
    """A mail is delivered; its ESP says that it bounced; the delivery is open again, and the report did it once."""
    secret = "a-secret-of-some-length"
    given = {"DELIVERY_RECEIPTS_EMAIL": esp, "DELIVERY_RECEIPTS_EMAIL_SECRET": secret}
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=given) as stage:
        transaction_id = stage.sell()
        await stage.settle()
        (mail,) = stage.mails()
        assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
        event = tells(mail)
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"{stage.url}/receipts/email"
            assert (await client.post(url, json=event)).status_code == 401
            for _ in range(2):
                answer = await client.post(url, json=event, headers={"authorization": f"Bearer {secret}"})
                assert answer.status_code == 200
        opened = await stage.delivery(transaction_id)
        assert (opened.outcome, opened.reason) == (Outcome.OPEN, f"not delivered by email: {words}")
        history = await stage.app.store.history(transaction_id)
        assert [entry.step for entry in history].count(Step.RECEIPT) == 1
