"""From the signed callback to the record, over real HTTP and real SMTP."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader, PdfWriter

from service.delivery import Outcome, StoreUnavailable
from service.simulator.documents import Personality
from tests.stage import Stage, attachment, open_stage

INVOICES = 200


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as opened:
        yield opened


@pytest.mark.parametrize("order", ["after_delivery", "before_delivery"])
@pytest.mark.parametrize("personality", ["seed", "current"])
async def test_two_hundred_invoices_at_once(database_url: str, personality: Personality, order: str) -> None:
    settings = {"DELIVERY_CAPTURE_ORDER": order, "DELIVERY_INVOICE_CHANNEL": "merchant"}
    async with open_stage(database_url, personality=personality, settings=settings) as stage:
        working = asyncio.create_task(stage.app.worker.run())
        ids = [stage.sell(buyer="business" if n % 2 else "consumer", reference=f"order-{n}") for n in range(INVOICES)]
        listed = await stage.closed(INVOICES)
        await stage.running.caller.idle()
        stage.app.worker.stop()
        await working
        assert {d.outcome for d in listed} == {Outcome.COMPLETED}
        assert {d.transaction_id for d in listed} == set(ids)
        captured_first = order == "before_delivery"
        assert {d.progress[0] for d in listed} == {"captured" if captured_first else "delivered"}
        assert len(stage.mail.inbox) == INVOICES
        sent = sorted(attachment(mail) for mail in stage.mails())
        assert sent == sorted(stage.provider.document(i) for i in ids)
        captures = {seen.transaction_id: seen.body for seen in stage.provider.captures_asked}
        assert len(stage.provider.captures_asked) == len(captures) == INVOICES
        for transaction_id, body in captures.items():
            transaction = stage.provider.transaction(transaction_id)
            assert body["amount"] == transaction["amount"]
            lines = [{"line_id": item["line_id"], "amount": item["amount"]} for item in transaction["items"]]
            assert body["items"] == lines


async def test_the_mail_says_what_the_invoice_says(stage: Stage) -> None:
    transaction_id = stage.sell()
    await stage.settle()
    (mail,) = stage.mails()
    number = stage.provider.transaction(transaction_id)["metadata"]["kravia:invoice_number"]
    assert number in mail["Subject"]
    assert stage.mail.inbox[0].sender == "faktura@butikken.example"
    assert [part.get_content_type() for part in mail.walk()][:3] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
    ]
    text = mail.get_body(("plain",))
    assert isinstance(text, EmailMessage)
    assert number in text.get_content()


@pytest.mark.parametrize("way", ["descriptor", "bytes", "redirect"])
async def test_the_document_is_found_whichever_way_it_is_served(tmp_path: Path, way: str) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db", file_way=way) as stage:
        transaction_id = stage.sell()
        await stage.settle()
        (mail,) = stage.mails()
        assert attachment(mail) == stage.provider.document(transaction_id)
        from_cdn = [seen for seen in stage.provider.requests if seen.endpoint == "cdn"]
        assert bool(from_cdn) is (way != "bytes")
        assert all("authorization" not in seen.headers for seen in from_cdn)


@pytest.mark.parametrize(
    ("level", "decided_by"), [("session", "session"), ("profile", "profile"), ("checkout", "checkout")]
)
async def test_each_level_of_configuration_can_make_it_ours(stage: Stage, level: str, decided_by: str) -> None:
    stage.provider.shows_channel = False
    option = {"payment_product_type": "kravia.invoice_b2b", "details": {"invoice_channel": "merchant"}}
    options = {"payment_options": [option]}
    stage.provider.profiles["p1"] = {"id": "p1", "configuration": options if level == "profile" else {}}
    if level == "checkout":
        stage.provider.checkout["configuration"] = options

    def configured(body: Any) -> None:
        if level == "profile":
            body["session"]["profile_id"] = "p1"
        if level == "session":
            body["payment"]["invoice_channel"] = "merchant"

    transaction_id = stage.sell(channel=None, change=configured)
    await stage.settle()
    delivery = await stage.delivery(transaction_id)
    assert (delivery.outcome, delivery.decided_by) == (Outcome.COMPLETED, decided_by)


async def test_what_kravia_delivers_is_left_to_kravia(stage: Stage) -> None:
    transaction_id = stage.sell(channel="kravia")
    await stage.settle()
    delivery = await stage.delivery(transaction_id)
    assert (delivery.outcome, delivery.decided_by) == (Outcome.SKIPPED, "transaction")
    assert stage.mail.inbox == []
    assert stage.provider.captures_asked == []


async def test_a_customer_who_pays_and_a_void_after_it_are_seen(stage: Stage) -> None:
    paid, voided = stage.sell(), stage.sell()
    await stage.settle()
    stage.provider.pay(paid)
    await stage.settle()
    assert (await stage.delivery(paid)).outcome is Outcome.COMPLETED
    stage.provider.void(voided)
    await stage.settle()
    seen = await stage.delivery(voided)
    assert (seen.outcome, seen.progress, seen.due_at) == (Outcome.COMPLETED, ("delivered", "captured"), None)
    assert seen.voided_at is not None
    assert len(stage.mail.inbox) == 2


async def test_a_void_before_the_worker_comes_to_it_cancels(stage: Stage) -> None:
    transaction_id = stage.sell()
    stage.provider.void(transaction_id)
    await stage.settle()
    delivery = await stage.delivery(transaction_id)
    assert (delivery.outcome, delivery.progress) == (Outcome.CANCELLED, ())
    assert delivery.voided_at is not None
    assert stage.mail.inbox == []


async def test_on_hold_first_and_authorised_later_is_delivered_once(stage: Stage) -> None:
    transaction_id = stage.sell()
    stage.provider.hold(transaction_id)
    await stage.settle()
    assert (await stage.delivery(transaction_id)).outcome is Outcome.OPEN
    stage.provider.release(transaction_id)
    await stage.settle()
    assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
    assert len(stage.mail.inbox) == 1


ODD_NAMES = [
    'Kåre "Kalle" O\'Brien, jr.; AS',
    "line\nbreak\r\nInjected: header",
    "{{ 7*7 }} {% raw %} ${x} <script>alert(1)</script>",
    "🦊 Ræv & Sønner 株式会社 \u202eevil\u202c",
    "x" * 500,
]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_odd_text_is_made_safe_and_delivered(stage: Stage, name: str) -> None:
    def odd(document: Any) -> None:
        document["billing_address"]["business_name"] = name
        document["merchant_reference"] = name[:200]
        for item in document["items"]:
            item["description"] = name

    transaction_id = stage.sell()
    stage.provider.edit(transaction_id, odd)
    await stage.settle()
    assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
    (mail,) = stage.mails()
    assert mail["Injected"] is None
    html = mail.get_body(("html",))
    assert isinstance(html, EmailMessage)
    assert "<script>" not in html.get_content()
    assert " 49 " not in html.get_content()


BAD: dict[str, tuple[Callable[[Any], object], str]] = {
    "no address": (lambda d: (d["billing_address"].pop("email"), d["customer"].pop("email", None)), "address"),
    "unusable address": (
        lambda d: (d["billing_address"].update(email="not an address"), d["customer"].update(email="x@")),
        "address",
    ),
    "no amount": (lambda d: d.pop("amount"), "amount"),
    "zero": (lambda d: d.update(amount=0), "amount is 0"),
    "negative": (lambda d: d.update(amount=-100), "amount is -100"),
    "fraction": (lambda d: d.update(amount=100.5), "amount"),
    "unknown currency": (lambda d: d.update(currency="XQZ"), "currency"),
    "foreign host": (
        lambda d: d["metadata"].update({"kravia:invoice_url": "https://elsewhere.example/f.pdf"}),
        "elsewhere.example",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("order", ["after_delivery", "before_delivery"])
async def test_what_cannot_be_delivered_fails_alone(tmp_path: Path, what: str, order: str) -> None:
    change, words = BAD[what]
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings={"DELIVERY_CAPTURE_ORDER": order}) as stage:
        bad, good = stage.sell(), stage.sell()
        stage.provider.edit(bad, change)
        await stage.settle()
        delivery = await stage.delivery(bad)
        assert delivery.outcome is Outcome.FAILED
        assert words in (delivery.reason or "")
        assert (await stage.delivery(good)).outcome is Outcome.COMPLETED
        assert len(stage.mail.inbox) == 1
        assert [seen.transaction_id for seen in stage.provider.captures_asked] == [good]


def encrypted(pdf: bytes) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf)))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


DOCUMENTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "html": (lambda pdf: b"<html>please sign in</html>", "HTML"),
    "truncated": (lambda pdf: pdf[: len(pdf) // 2], "cut short"),
    "encrypted": (encrypted, "encrypted"),
    "empty": (lambda pdf: b"", "empty"),
    "too large": (lambda pdf: pdf + b"\n" * 2_000_000, "larger"),
}


@pytest.mark.parametrize("what", DOCUMENTS)
@pytest.mark.parametrize("order", ["after_delivery", "before_delivery"])
async def test_a_document_that_will_not_do_fails_after_the_schedule(tmp_path: Path, what: str, order: str) -> None:
    spoil, words = DOCUMENTS[what]
    settings = {"DELIVERY_CAPTURE_ORDER": order, "DELIVERY_MAX_PDF_BYTES": "1000000"}
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=settings) as stage:
        transaction_id = stage.sell()
        stage.provider.replace_document(transaction_id, spoil(stage.provider.document(transaction_id)))
        await stage.settle()
        await stage.settle(after=70)
        await stage.settle(after=310)
        delivery = await stage.delivery(transaction_id)
        assert delivery.outcome is Outcome.FAILED
        assert words in (delivery.reason or "")
        assert stage.mail.inbox == []
        assert stage.provider.captures_asked == []


async def test_a_transaction_without_items_is_captured_by_amount_alone(stage: Stage) -> None:
    transaction_id = stage.sell()
    stage.provider.edit(transaction_id, lambda document: document.pop("items"))
    await stage.settle()
    assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
    (seen,) = stage.provider.captures_asked
    assert "items" not in seen.body or seen.body["items"] == []


async def test_the_callback_is_retried_until_the_store_commits(stage: Stage) -> None:
    real = stage.app.store.receive
    answers = iter([True, True])

    async def away(arrival: Any) -> Any:
        if next(answers, False):
            raise StoreUnavailable("the disk is full")
        return await real(arrival)

    stage.app.store.receive = away  # type: ignore[method-assign]
    transaction_id = stage.sell()
    await stage.settle()
    assert [attempt.status for attempt in stage.running.caller.attempts][:3] == [503, 503, 200]
    assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
