"""The simulator's faults, by name: each does what the table says of it, as often as it was asked for."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any

import aiosmtplib
import httpx2 as httpx
import pytest

from service.simulator.api import Running, open_provider
from service.simulator.deeds import Answer, Behaviour, Call, Document, Phase
from service.simulator.documents import Personality
from service.simulator.faults import GROUPS, KINDS, Fault, Faults
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.sales import sale
from tests.fakes import MovedClock


@pytest.fixture
def personality() -> Personality:
    return "current"


@pytest.fixture
async def running(clock: MovedClock, personality: Personality) -> AsyncIterator[Running]:
    async with open_provider(clock=clock, personality=personality) as running:
        yield running


@pytest.fixture
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    account = running.provider.keys.account
    async with httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=0.5) as http:
        answer = await http.post(
            f"/accounts/{account.id}/auth/token",
            auth=(account.client_id, account.client_secret),
            json={"grant_type": "client_credentials", "audience": f"{running.url}/accounts/{account.id}"},
        )
        http.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield http


def bill(running: Running) -> dict[str, Any]:
    transaction_id = running.provider.bill(sale(callback_url="", random=Random(7)))["id"]
    return running.provider.transaction(transaction_id)


async def capture(http: httpx.AsyncClient, transaction: dict[str, Any]) -> httpx.Response:
    body = {"amount": transaction["amount"], "capture_reference": "ours"}
    return await http.post(f"/transactions/{transaction['id']}/capture", json=body)


# --- asking for them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [{"probability": 0}, {"probability": 1.1}, {"probability": -1}, {"count": 0}])
def test_numbers_that_mean_nothing_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Fault(name="500", **odd)


def test_only_what_the_table_knows_can_be_asked_for() -> None:
    with pytest.raises(KeyError):
        Faults(Random(1)).on("501")


def test_a_fault_strikes_as_often_as_it_was_asked_for() -> None:
    faults = Faults(Random(1))
    faults.on("500", count=2)
    faults.on("503", count=1)
    struck = [faults.take(Answer, "capture") for _ in range(4)]
    assert [answer and answer.status for answer in struck] == [500, 500, 503, None]
    assert faults.struck == {"500": 2, "503": 1}
    assert faults.active() == ()


def test_a_fault_strikes_where_it_was_asked_for() -> None:
    faults = Faults(Random(1))
    faults.on("500", where="capture T1.a")
    assert faults.take(Answer, "capture", "T1.b") is None
    assert faults.take(Answer, "read_transaction", "T1.a") is None
    assert faults.take(Document, "cdn", "T1.a") is None
    assert faults.take(Answer, "capture", "T1.a") is not None
    faults.stop("500")
    assert faults.take(Answer, "capture", "T1.a") is None


def test_the_same_seed_strikes_the_same() -> None:
    def drawn(seed: int) -> list[bool]:
        faults = Faults(Random(seed))
        faults.on("500", probability=0.3)
        return [faults.take(Answer, "capture") is not None for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 30 < sum(drawn(1)) < 90


def test_every_fault_stands_in_one_group_and_says_what_it_is() -> None:
    assert sum(len(group) for group in GROUPS.values()) == len(KINDS)
    for name, kind in KINDS.items():
        assert kind.about
        assert kind.at
        assert not name.strip("abcdefghijklmnopqrstuvwxyz0123456789-"), name


# --- the provider's answers -------------------------------------------------------------------------------------------

ANSWERS = {
    "401": 401, "403": 403, "404": 404, "409": 409, "429": 429, "429-date": 429, "500": 500, "500-after": 500,
    "503": 503, "html": 200, "html-502": 502, "truncated-json": 200, "timeout-before": None, "timeout-after": None,
    "dropped-before": None, "dropped-after": None,
}  # fmt: skip
AFTER = {"500-after", "html", "truncated-json", "timeout-after", "dropped-after"}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_to_a_capture(running: Running, http: httpx.AsyncClient, clock: MovedClock, name: str) -> None:
    transaction = bill(running)
    running.provider.faults.on(name, count=1, where=f"capture {transaction['id']}")
    if ANSWERS[name] is None:
        with pytest.raises((httpx.ReadTimeout, httpx.RemoteProtocolError)) as caught:
            await capture(http, transaction)
        assert isinstance(caught.value, httpx.ReadTimeout) is name.startswith("timeout")
    else:
        answer = await capture(http, transaction)
        assert answer.status_code == ANSWERS[name]
        is_json = answer.headers["content-type"].startswith("application/json")
        assert is_json is not name.startswith("html")
        if name == "truncated-json":
            with pytest.raises(json.JSONDecodeError):
                answer.json()
        elif is_json:
            assert set(answer.json()) == {"error"}
        if name == "429":
            assert answer.headers["retry-after"] == "120"
        if name == "429-date":
            wait = parsedate_to_datetime(answer.headers["retry-after"]) - clock.now()
            assert timedelta(seconds=110) < wait <= timedelta(seconds=120)
    assert running.provider.begun(transaction["id"]) is (name in AFTER)
    assert len(running.provider.captures_asked) == (name in AFTER)
    assert (await capture(http, transaction)).status_code == (409 if name in AFTER else 200)
    assert {*ANSWERS} == {name for name, kind in KINDS.items() if isinstance(kind.how, Answer)}


async def test_answers_to_everything_else(running: Running, http: httpx.AsyncClient) -> None:
    transaction = bill(running)
    paths = {
        "read_transaction": f"/transactions/{transaction['id']}",
        "read_session": f"/sessions/{transaction['session_id']}",
        "list_transactions": "/transactions",
        "file": transaction["metadata"]["kravia:invoice_url"],
        "read_checkout": "/admin/checkout",
        "list_profiles": "/admin/session/profiles",
        "list_subscriptions": f"/accounts/{running.provider.keys.account.id}/hooks/subscriptions",
    }
    for endpoint, path in paths.items():
        assert (await http.get(path)).status_code == 200
        running.provider.faults.on("503", where=endpoint)
        assert (await http.get(path)).status_code == 503, endpoint
    running.provider.faults.clear()
    running.provider.faults.on("401", count=1)
    token = await http.post(f"/accounts/{running.provider.keys.account.id}/auth/token")
    assert token.json() == {"error": {"message": "invalid JWT"}}


# --- captures, and what somebody else does ----------------------------------------------------------------------------


@pytest.mark.parametrize("personality", ["seed", "current"])
@pytest.mark.parametrize(
    ("name", "code", "wait"),
    [
        ("capture-fails", "DO_NOT_RETRY", None),
        ("capture-fails-for-now", "RETRY_AFTER_DELAY", 600),
        ("capture-fails-once", "RETRY_IMMEDIATELY", None),
    ],
)
async def test_a_200_with_an_event_that_failed(
    running: Running, http: httpx.AsyncClient, name: str, code: str, wait: int | None
) -> None:
    transaction = bill(running)
    running.provider.faults.on(name, count=1)
    answer = await capture(http, transaction)
    assert (answer.status_code, answer.json()["status"]) == (200, "AUTHORIZED")
    event = answer.json()["events"][-1]
    assert (event["success"], event["event_reference"]) == (False, "ours")
    assert event["error"]["retry_policy"]["retry_codes"] == [code]
    assert event["error"]["retry_policy"].get("retry_after") == wait
    assert running.provider.captures == []
    assert (await capture(http, transaction)).status_code == 200
    assert running.provider.begun(transaction["id"])


@pytest.mark.parametrize("name", ["capture-later", "capture-fails-later"])
async def test_a_202_is_carried_out_later(
    running: Running, http: httpx.AsyncClient, clock: MovedClock, name: str
) -> None:
    transaction = bill(running)
    running.provider.faults.on(name, count=1)
    answer = await capture(http, transaction)
    assert answer.status_code == 202
    request_id = answer.headers["event-request-id"]
    before = len(answer.json()["events"])
    assert (await capture(http, transaction)).status_code == 409
    clock.advance(110)
    assert len((await http.get(f"/transactions/{transaction['id']}")).json()["events"]) == before
    clock.advance(20)
    read = (await http.get(f"/transactions/{transaction['id']}")).json()
    assert len(read["events"]) == before + 1
    assert read["events"][-1]["correlation_request_id"] == request_id
    assert read["events"][-1]["success"] is (name == "capture-later")
    assert len(running.provider.captures) == (name == "capture-later")


async def test_what_was_accepted_is_not_carried_out_on_what_was_voided(
    running: Running, http: httpx.AsyncClient, clock: MovedClock
) -> None:
    transaction = bill(running)
    running.provider.faults.on("capture-later")
    await capture(http, transaction)
    running.provider.void(transaction["id"])
    clock.advance(700)
    assert (await http.get(f"/transactions/{transaction['id']}")).json()["status"] == "AUTHORIZATION_VOIDED"
    assert running.provider.captures == []


@pytest.mark.parametrize(
    ("name", "seen", "then"),
    [
        ("void-before-read", "AUTHORIZATION_VOIDED", "AUTHORIZATION_VOIDED"),
        ("void-after-read", "AUTHORIZED", "AUTHORIZATION_VOIDED"),
        ("part-captured-before-read", "PARTIALLY_CAPTURED", "PARTIALLY_CAPTURED"),
        ("paid-before-read", "CAPTURED", "CAPTURED"),
        ("paid-after-read", "AUTHORIZED", "CAPTURED"),
    ],
)
async def test_somebody_else_is_at_it_around_a_read(
    running: Running, http: httpx.AsyncClient, name: str, seen: str, then: str
) -> None:
    transaction = bill(running)
    running.provider.faults.on(name)
    assert (await http.get(f"/transactions/{transaction['id']}")).json()["status"] == seen
    assert transaction["status"] == then
    assert (await http.get(f"/transactions/{transaction['id']}")).json()["status"] == then
    assert running.provider.faults.struck == {name: 1}  # it can be done only once, and is counted once


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("void-before-capture", (409, "AUTHORIZATION_VOIDED", 0)),
        ("void-after-capture", (200, "AUTHORIZATION_VOIDED", 1)),
        ("part-captured-before-capture", (409, "PARTIALLY_CAPTURED", 0)),
        ("captured-before-capture", (409, "AUTHORIZED", 0)),
    ],
)
async def test_somebody_else_is_at_it_around_a_capture(
    running: Running, http: httpx.AsyncClient, name: str, expected: tuple[int, str, int]
) -> None:
    transaction = bill(running)
    running.provider.faults.on(name)
    status = (await capture(http, transaction)).status_code
    assert (status, transaction["status"], len(running.provider.captures)) == expected


async def test_events_grow_between_reads(running: Running, http: httpx.AsyncClient) -> None:
    transaction = bill(running)
    running.provider.faults.on("events-grow")
    reads = [(await http.get(f"/transactions/{transaction['id']}")).json() for _ in range(3)]
    assert [len(read["events"]) for read in reads] == [3, 4, 5]
    assert not running.provider.begun(transaction["id"])


# --- files ------------------------------------------------------------------------------------------------------------


async def fetched(running: Running, http: httpx.AsyncClient, transaction: dict[str, Any]) -> httpx.Response:
    url = transaction["metadata"]["kravia:invoice_url"]
    if running.provider.file_way == "bytes":
        return await http.get(url)
    async with httpx.AsyncClient(trust_env=False) as stranger:
        return await stranger.get((await http.get(url)).json()["url"])


@pytest.mark.parametrize("personality", ["seed", "current"])
@pytest.mark.parametrize("name", ["file-html", "file-truncated", "file-empty", "file-404"])
async def test_a_file_that_will_not_do(running: Running, http: httpx.AsyncClient, name: str) -> None:
    transaction = bill(running)
    content = running.provider.document(transaction["id"])
    running.provider.faults.on(name, count=1, where=transaction["id"])
    spoiled = await fetched(running, http, transaction)
    assert spoiled.status_code == (404 if name == "file-404" else 200)
    assert spoiled.content != content
    if name == "file-truncated":
        assert content.startswith(spoiled.content)
        assert len(spoiled.content) > 100
    assert (await fetched(running, http, transaction)).content == content


async def test_a_descriptor_that_has_expired(running: Running, http: httpx.AsyncClient, clock: MovedClock) -> None:
    transaction = bill(running)
    running.provider.faults.on("file-expired", count=1)
    descriptor = (await http.get(transaction["metadata"]["kravia:invoice_url"])).json()
    assert descriptor["expires_at"] < clock.now().isoformat()
    async with httpx.AsyncClient(trust_env=False) as stranger:
        assert (await stranger.get(descriptor["url"])).status_code == 403
    assert (await fetched(running, http, transaction)).content == running.provider.document(transaction["id"])


# --- mail -------------------------------------------------------------------------------------------------------------

MAILS = {name: kind.how for name, kind in KINDS.items() if isinstance(kind.how, Behaviour)}


@pytest.mark.parametrize("name", MAILS)
async def test_a_mail_that_meets_a_fault(clock: MovedClock, name: str) -> None:
    """What is accepted is in the inbox, what is refused is not, and nothing is both."""
    faults = Faults(Random(1))
    server = MailServer(clock=clock, random=Random(1), credentials=("user", "pass"), faults=faults)
    faults.on(name, count=1)
    begun = clock.now()
    async with open_mail_server(server):
        smtp = aiosmtplib.SMTP(
            hostname=server.host, port=server.port, start_tls=False, timeout=0.3, local_hostname="test.example"
        )
        smtp.AUTH_METHODS = ("plain",)
        try:
            await smtp.connect()
            await smtp.ehlo()
            await smtp.login("user", "pass")
            _, said = await smtp.sendmail("shop@shop.example", ["ola@nordmann.example"], b"Subject: x\r\n\r\nx\r\n")
        except aiosmtplib.SMTPException:
            said = ""
        smtp.close()
    assert faults.struck == {name: 1}
    behaviour = MAILS[name]
    assert len(server.inbox) == (behaviour.keep or bool(said))
    assert bool(said) is name.startswith("mail-slow")
    assert ((clock.now() - begun).total_seconds() > 50) is name.startswith("mail-slow")


async def test_a_fault_of_the_mail_may_be_about_one_recipient(clock: MovedClock) -> None:
    faults = Faults(Random(1))
    faults.on("mail-unknown-recipient", where="ola@nordmann.example")
    assert faults.take(Behaviour, Phase.RCPT, "kari@nordmann.example") is None
    assert faults.take(Behaviour, Phase.DATA, "ola@nordmann.example") is None
    assert faults.take(Behaviour, Phase.RCPT, "ola@nordmann.example") is not None


def test_every_sort_of_call_is_in_the_table() -> None:
    named = {name for name, kind in KINDS.items() if isinstance(kind.how, Call)}
    assert named == {
        "callback-lost", "callback-twice", "callback-late", "callback-out-of-order", "callback-stale", "callback-forged"
    }  # fmt: skip
