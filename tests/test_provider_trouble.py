"""The provider under trouble, end to end: whatever it answers, one capture at most takes effect and one mail is sent.

Every case runs through the real service, over real HTTP and SMTP, against the simulator and its faults.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trustme

from service.delivery import AccountFailure, CaptureRequest, ChannelDefault, Delivery, Outcome, Settled
from service.dintero.client import open_dintero
from service.dintero.wire import Timeouts
from service.serving import listen, serving
from service.simulator.api import api
from service.simulator.documents import collection_begun
from service.simulator.faults import KINDS
from tests.fakes import ACCOUNT, MovedClock
from tests.stage import Stage, attachment, open_stage

SHORT = Timeouts(connect=5, read=1, whole=2, file=2)
LONGEST = 60  # looks at a delivery, each after a minute
ORDERS = ("after_delivery", "before_delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a delivery ends: `asked` are the captures that the provider looked at, `captured` those that took effect."""

    outcome: Outcome = Outcome.COMPLETED
    words: str = ""
    mails: int = 1
    asked: int = 1
    captured: int = 1
    voided: bool = False


FINE = End()
AGAIN = End(asked=2)


def failed(words: str, **changes: Any) -> End:
    return replace(End(outcome=Outcome.FAILED, words=words, captured=0), **changes)


def cancelled(words: str, **changes: Any) -> End:
    return replace(End(outcome=Outcome.CANCELLED, words=words, asked=0, captured=0, voided=True), **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault, and how a delivery that meets it ends: when it is sent first, and when it is captured first."""

    fault: str
    where: str = ""
    count: int | None = 1
    after: End = FINE
    before: End = FINE


def both(fault: str, end: End = FINE, *, where: str = "", count: int | None = 1) -> Case:
    """Return a case that ends the same in either order."""
    return Case(fault=fault, where=where, count=count, after=end, before=end)


def read(fault: str, count: int = 1) -> Case:
    """Return a case of a read that is refused or lost: it is done again, and nothing else comes of it."""
    return both(fault, where="read_transaction", count=count)


def capture(fault: str, end: End = FINE, count: int = 1) -> Case:
    """Return a case of a capture; one that comes to nothing leaves the customer without a mail if it comes first."""
    before = end if end.outcome is Outcome.COMPLETED else replace(end, mails=0)
    return Case(fault=fault, where="capture", count=count, after=end, before=before)


CASES = {
    "tokens": [
        both("401", where="token"), both("403", where="token", count=2), both("429", where="token"),
        both("500", where="token"), both("html", where="token"), both("truncated-json", where="token"),
        both("timeout-before", where="token"), both("dropped-before", where="token"),
    ],
    "reads": [
        read("401"), read("401", 3), read("403", 2), read("404", 3), read("429"), read("429-date"), read("500"),
        read("503", 2), read("timeout-before"), read("timeout-after"), read("dropped-before"), read("dropped-after"),
        read("html"), read("html-502"), read("truncated-json"), both("events-grow", count=None),
    ],
    "files": [
        both("503", where="file"), both("429", where="file"), both("404", where="file"), both("html", where="file"),
        both("truncated-json", where="file"), both("dropped-after", where="file"), both("timeout-after", where="file"),
        both("file-html"), both("file-truncated"), both("file-empty"), both("file-404"), both("file-expired"),
    ],
    "captures that are refused, or never arrive: asked for again, and one takes effect": [
        capture("401"), capture("401", count=3), capture("403"), capture("429"), capture("429-date"),
        capture("500"), capture("503"), capture("html-502"), capture("timeout-before"), capture("dropped-before"),
    ],
    "captures whose answer is lost: reading tells, and none is asked for twice": [
        capture("500-after"), capture("timeout-after"), capture("dropped-after"), capture("html"),
        capture("truncated-json"),
    ],
    "captures that need a person": [
        capture("404", failed("404", asked=0)), capture("409", failed("409", asked=0)),
    ],
    "a capture's own event": [
        capture("capture-fails", failed("was not carried out")),
        capture("capture-fails-for-now", AGAIN), capture("capture-fails-once", AGAIN),
        capture("capture-later"), capture("capture-fails-later", failed("was not carried out")),
    ],
    "somebody else": [
        both("part-captured-before-read", failed("captured by someone else", mails=0, asked=0)),
        capture("part-captured-before-capture", failed("captured by someone else")),
        both("captured-before-capture", End(captured=0)),
        both("paid-before-read", End(outcome=Outcome.SKIPPED, words="already paid", mails=0, asked=0, captured=0)),
        Case(
            fault="paid-after-read",
            after=End(asked=0, captured=0),
            before=End(outcome=Outcome.SKIPPED, words="already paid", mails=0, captured=0),
        ),
    ],
    "voids": [
        both("void-before-read", cancelled("voided at Dintero", mails=0)),
        Case(
            fault="void-after-read",
            after=cancelled("after the customer had the invoice"),
            before=cancelled("voided at Dintero", mails=0, asked=1),
        ),
        Case(
            fault="void-before-capture",
            after=cancelled("after the customer had the invoice", asked=1),
            before=cancelled("voided at Dintero", mails=0, asked=1),
        ),
        Case(
            fault="void-after-capture",
            after=End(voided=True),
            before=cancelled("voided at Dintero", mails=0, asked=1, captured=1),
        ),
    ],
}  # fmt: skip


@asynccontextmanager
async def trouble(
    database_url: str, order: str = "after_delivery", settings: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Stage]:
    usual = {"DELIVERY_CAPTURE_ORDER": order, "DELIVERY_INVOICE_CHANNEL": "merchant"}
    changed = usual | (settings or {})
    async with open_stage(database_url, settings=changed, timeouts=SHORT, **options) as stage:
        yield stage


async def ended(stage: Stage, transaction_id: str) -> Delivery:
    """Let time pass until the delivery is closed and what is known of it has been looked at."""
    for _ in range(LONGEST):
        await stage.settle(after=60)
        delivery = await stage.delivery(transaction_id)
        if delivery.outcome is not Outcome.OPEN:
            await stage.settle(after=3600)
            return await stage.delivery(transaction_id)
    pytest.fail(f"still open after {LONGEST} minutes: {delivery.reason}")


async def met(stage: Stage, case: Case) -> End:
    """Sell something that meets the fault and return how it ends; the last token has ended by then."""
    stage.clock.advance(5 * 3600)
    mails = len(stage.mail.inbox)
    stage.faults.on(case.fault, count=case.count, where=case.where)
    transaction_id = stage.sell()
    delivery = await ended(stage, transaction_id)
    stage.faults.clear()
    assert stage.faults.struck.pop(case.fault) >= (case.count or 1), case
    transaction = stage.provider.transaction(transaction_id)
    assert sum(map(begins, transaction["events"])) <= 1, f"{case}: collection has begun twice"
    if delivery.outcome is Outcome.COMPLETED:
        assert collection_begun(transaction), case
        assert set(delivery.progress) == {"delivered", "captured"}, case
    captured = sum(captured.transaction_id == transaction_id for captured in stage.provider.captures)
    recorded = [c for c in await stage.app.store.captures(delivery.id) if c.outcome is Settled.ACCEPTED and c.event_id]
    assert len(recorded) == captured, f"{case}: the record does not say what took effect"
    return End(
        outcome=delivery.outcome,
        words=delivery.reason or "",
        mails=len(stage.mail.inbox) - mails,
        asked=sum(asked.transaction_id == transaction_id for asked in stage.provider.captures_asked),
        captured=captured,
        voided=delivery.voided_at is not None,
    )


def begins(event: dict[str, Any]) -> bool:
    """Whether an event begins a collection; a CAPTURE that answers an earlier one is the customer's payment."""
    if event["event"] == "CAPTURE" and "correlation_request_id" in event:
        return False
    return bool(event["success"]) and event["event"] in {"INITIATE_CAPTURE", "CAPTURE"}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("group", CASES)
async def test_one_mail_and_one_capture_at_most(sqlite_url: str, group: str, order: str) -> None:
    async with trouble(sqlite_url, order) as stage:
        for case in CASES[group]:
            expected = case.after if order == "after_delivery" else case.before
            end = await met(stage, case)
            assert expected.words in end.words, case
            assert replace(end, words=expected.words) == expected, case
        assert all(attachment(mail).startswith(b"%PDF-") for mail in stage.mails())


OTHERS = ("mail-", "callback-", "payment-", "bill-", "sms-", "erp-")


def test_every_fault_of_the_provider_has_its_case() -> None:
    tried = {case.fault for cases in CASES.values() for case in cases}
    assert {name for name in KINDS if not name.startswith(OTHERS)} == tried


# --- the same in the seed's meaning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
async def test_a_capture_that_ends_in_captured(sqlite_url: str, order: str) -> None:
    async with trouble(sqlite_url, order, personality="seed") as stage:
        for case in (
            capture("dropped-after"), capture("500-after"), capture("capture-fails-once", AGAIN), both("events-grow"),
            both("captured-before-capture", End(captured=0)),
        ):  # fmt: skip
            assert replace(await met(stage, case), words="") == case.after, case


# --- how long, and how often ------------------------------------------------------------------------------------------


async def test_a_retry_policy_that_names_a_delay_is_waited_for(sqlite_url: str) -> None:
    async with trouble(sqlite_url) as stage:
        stage.faults.on("capture-fails-for-now", count=1)
        transaction_id = stage.sell()
        await stage.settle()
        for _ in range(9):
            await stage.settle(after=60)
        assert len(stage.provider.captures_asked) == 1
        assert (await stage.delivery(transaction_id)).outcome is Outcome.OPEN
        await stage.settle(after=120)
        assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED


async def test_nothing_is_captured_while_a_202_is_open(sqlite_url: str) -> None:
    async with trouble(sqlite_url) as stage:
        stage.faults.on("capture-later", count=1)
        transaction_id = stage.sell()
        for _ in range(3):
            await stage.settle(after=35)
            assert (await stage.delivery(transaction_id)).outcome is Outcome.OPEN
        await ended(stage, transaction_id)
        assert asked(stage, "capture") == 1


@pytest.mark.parametrize("endpoint", ["token", "read_transaction", "capture"])
async def test_too_many_requests_stop_the_whole_account(sqlite_url: str, endpoint: str) -> None:
    """What another delivery would ask waits as well, for as long as the provider says."""
    async with trouble(sqlite_url) as stage:
        stage.faults.on("429", count=1, where=endpoint)
        first = stage.sell()
        await stage.settle()
        asked = len(stage.provider.requests)
        second = stage.sell()
        await stage.settle(after=110)
        assert len(stage.provider.requests) == asked
        for transaction_id in (first, second):
            assert (await ended(stage, transaction_id)).outcome is Outcome.COMPLETED
        assert len(stage.mail.inbox) == 2
        assert len(stage.provider.captures) == 2


@pytest.mark.parametrize("fault", ["401", "403"])
async def test_an_account_at_fault_burns_nobodys_patience(sqlite_url: str, fault: str) -> None:
    """Days later, with the client's rights restored, what waited goes out, and nobody had to ask for it."""
    async with trouble(sqlite_url) as stage:
        stage.faults.on(fault)
        ids = [stage.sell() for _ in range(3)]
        for _ in range(24):
            await stage.settle(after=8 * 3600)
        listed = [await stage.delivery(transaction_id) for transaction_id in ids]
        assert {(d.outcome, d.attempt) for d in listed} == {(Outcome.OPEN, 0)}
        stage.faults.clear()
        assert [(await ended(stage, transaction_id)).outcome for transaction_id in ids] == [Outcome.COMPLETED] * 3


@pytest.mark.parametrize("fault", ["500", "html-502", "truncated-json", "dropped-before"])
async def test_a_provider_that_never_mends_is_given_up_and_named(sqlite_url: str, fault: str) -> None:
    async with trouble(sqlite_url) as stage:
        stage.faults.on(fault, where="read_transaction")
        transaction_id = stage.sell()
        for _ in range(6):
            await stage.settle(after=86400)
        delivery = await stage.delivery(transaction_id)
        assert delivery.outcome is Outcome.FAILED
        assert "gave up after" in (delivery.reason or "")
        assert stage.mail.inbox == []


async def test_a_lost_capture_is_asked_for_again_only_after_it_could_have_taken_effect(sqlite_url: str) -> None:
    """However often a callback wakes the delivery meanwhile: a request may still be on its way to the provider."""
    async with trouble(sqlite_url) as stage:
        stage.faults.on("dropped-before", count=1, where="capture")
        transaction_id = stage.sell()
        await stage.settle()
        reads = asked(stage, "read_transaction")
        for _ in range(3):
            stage.provider.tell(stage.provider.transaction(transaction_id))
            await stage.settle(after=15)
        assert asked(stage, "read_transaction") >= reads + 3
        assert asked(stage, "capture") == 1
        assert (await ended(stage, transaction_id)).outcome is Outcome.COMPLETED
        assert asked(stage, "capture") == 2


def asked(stage: Stage, endpoint: str) -> int:
    return sum(request.endpoint == endpoint for request in stage.provider.requests)


async def test_everything_goes_wrong_now_and_then(sqlite_url: str) -> None:
    """All that mends by itself at once, each one time in twelve: all are delivered, none twice."""
    async with trouble(sqlite_url, callback_schedule=(1,)) as stage:
        for_now = [
            name for name in KINDS
            if name.startswith(("429", "5", "html", "truncated", "dropped"))
            or name in {"401", "file-html", "file-expired", "events-grow", "capture-later", "callback-twice"}
        ]  # fmt: skip
        for name in for_now:
            stage.faults.on(name, probability=1 / 12)
        ids = [stage.sell() for _ in range(12)]
        for _ in range(LONGEST):
            await stage.settle(after=120)
        stage.faults.clear()
        for transaction_id in ids:
            delivery = await ended(stage, transaction_id)
            if delivery.outcome is Outcome.FAILED:
                pytest.fail(f"{transaction_id}: {delivery.reason}")
            assert delivery.outcome is Outcome.COMPLETED
        assert len(stage.mail.inbox) == len(stage.provider.captures) == len(ids)
        assert sum(stage.faults.struck.values()) > len(ids)


# --- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["callback-twice", "callback-late", "callback-out-of-order", "callback-stale", "callback-forged"]
)
async def test_however_the_callback_comes_there_is_one_mail(sqlite_url: str, fault: str) -> None:
    async with trouble(sqlite_url) as stage:
        stage.faults.on(fault, count=1)
        ids = [stage.sell() for _ in range(2)]
        assert [(await ended(stage, transaction_id)).outcome for transaction_id in ids] == [Outcome.COMPLETED] * 2
        assert len(stage.mail.inbox) == len(stage.provider.captures) == 2
        statuses = [attempt.status for attempt in stage.running.caller.attempts]
        refused = {"callback-forged": 401, "callback-stale": 503}.get(fault)
        assert [status for status in statuses if status != 200] == ([refused] if refused else [])


# --- TLS --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_provider(context: ssl.SSLContext) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Listen with TLS; give the URL and what was said in clear after a handshake."""
    said: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", said
    finally:
        server.close()
        await server.wait_closed()


async def test_a_provider_whose_certificate_is_wrong_is_not_spoken_to() -> None:
    """Neither password nor token goes to it; our network or their host is at fault, so the account waits."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # by an authority that nobody knows
    async with (
        tls_provider(context) as (url, said),
        open_dintero(
            account_id=ACCOUNT,
            client_id="client",
            client_secret="secret",
            checkout_url=f"{url}/v1",
            api_url=f"{url}/v1",
            file_hosts=("127.0.0.1",),
            max_pdf_bytes=1000,
            invoice_channel=ChannelDefault(),
            clock=MovedClock(),
            version="1",
            timeouts=Timeouts(connect=5),
        ) as dintero,
    ):
        request = CaptureRequest(transaction_id=f"{ACCOUNT}.a", reference="r", amount=1)
        for doing in (dintero.read(f"{ACCOUNT}.a"), dintero.capture(request), dintero.check()):
            with pytest.raises(AccountFailure, match="cannot be reached"):
                await doing
        assert said == []


async def test_a_provider_that_cannot_be_reached_burns_nobodys_patience(sqlite_url: str) -> None:
    """For longer than anybody gives up after nothing listens there; then something does, and the invoice goes out."""
    with listen() as sock:
        port = sock.getsockname()[1]
    settings = {"DELIVERY_CHECKOUT_URL": f"http://127.0.0.1:{port}/v1"}
    async with trouble(sqlite_url, settings=settings) as stage:
        transaction_id = stage.sell()
        for _ in range(24):
            await stage.settle(after=8 * 3600)
        waiting = await stage.delivery(transaction_id)
        assert (waiting.outcome, waiting.attempt) == (Outcome.OPEN, 0)
        async with serving(api(stage.provider), listen(port=port)):
            assert (await ended(stage, transaction_id)).outcome is Outcome.COMPLETED
        assert len(stage.mail.inbox) == 1
