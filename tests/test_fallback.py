"""More than one channel: the next one's turn, what comes back later, pace, and the document behind a link."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from service.decide import early_bounces
from service.delivery import (
    Capture,
    Composed,
    ContentGate,
    Delivery,
    Fate,
    Guarantee,
    MessageTooLarge,
    Outcome,
    Pace,
    PermanentFailure,
    Proof,
    Receipt,
    RecipientRefused,
    Report,
    Reported,
    Settled,
    Standing,
    TransientFailure,
    UnconfirmedFailure,
)
from service.record_json import delivery_json
from service.routing import E_INVOICES_IN_NORWAY_FROM, Routes, read_routes
from tests.fakes import ACCOUNT, PDF, FakeChannel, FakeLinks, a_transaction
from tests.store_values import request
from tests.workbench import ID, RULES, Bench

GONE = RecipientRefused("550 5.1.1 no such user")
HOUR = 3600.0


def with_sms(bench: Bench, **more: object) -> FakeChannel:
    sms = FakeChannel("sms-twilio", reports=True)
    bench.others = (sms,)
    bench.rules = replace(RULES, give_up_after=10 * 86400, fallback_after=HOUR, **more)  # type: ignore[arg-type]
    return sms


async def delivered(bench: Bench) -> Delivery:
    bench.payments.add(a_transaction(ID))
    await bench.arrive()
    await bench.worker().drain()
    return await one(bench)


async def one(bench: Bench) -> Delivery:
    (delivery,) = await bench.store.known([ID])
    return delivery


async def later(bench: Bench, seconds: float) -> Delivery:
    bench.clock.advance(seconds)
    await bench.worker().drain()
    return await one(bench)


def report(bench: Bench, reference: str, fate: Fate, event_id: str = "1", channel: str = "email") -> Report:
    return Report(channel=channel, event_id=event_id, reference=reference, fate=fate, at=bench.clock.now())


async def captures(bench: Bench) -> tuple[Capture, ...]:
    return await bench.store.captures(ID)


async def test_the_first_is_enough(bench: Bench) -> None:
    sms = with_sms(bench)
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.channel, delivery.reason) == (Outcome.COMPLETED, "email", None)
    assert sms.sent == []


async def test_refused_for_good_falls_to_the_next_at_once(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [GONE]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.channel) == (Outcome.COMPLETED, "sms-twilio")
    assert delivery.reason == "delivered by sms-twilio, after email had not worked"
    assert (len(bench.channel.sent), len(sms.sent)) == (0, 1)
    details = [entry.detail or "" for entry in await bench.store.history(ID)]
    assert any("email is given up: 550 5.1.1" in detail for detail in details), details


async def test_all_refuse(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan, sms.plan = [GONE], [RecipientRefused("a landline")]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "a landline")
    assert await captures(bench) == ()


async def test_a_retry_begins_with_the_first_again(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan, sms.plan = [GONE], [RecipientRefused("a landline")]
    await delivered(bench)
    await bench.store.retry(ID, request())
    await bench.worker().drain()
    assert (await one(bench)).channel == "email"


async def test_who_has_no_address_for_the_first_gets_the_next(bench: Bench) -> None:
    with_sms(bench)
    bench.channel.reaches = False
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.channel) == (Outcome.COMPLETED, "sms-twilio")


async def test_in_time_or_the_next_has_its_turn(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [TransientFailure("451 4.7.1 try later") for _ in range(99)]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.lane) == (Outcome.OPEN, "email")
    for _ in range(4):
        delivery = await later(bench, HOUR / 4 - 1)
    assert (delivery.outcome, sms.sent) == (Outcome.OPEN, [])
    delivery = await later(bench, 60)
    assert (delivery.outcome, delivery.channel, len(sms.sent)) == (Outcome.COMPLETED, "sms-twilio", 1)


async def test_a_paused_channel_loses_its_turn_too(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [TransientFailure("451 4.7.1 try later")]
    await delivered(bench)
    await bench.store.pause(ACCOUNT, "email", "out of order", by="kari", probe_in=None)
    assert (await later(bench, HOUR / 2)).outcome is Outcome.OPEN
    delivery = await later(bench, HOUR / 2 + 61)
    assert (delivery.outcome, delivery.channel, len(sms.sent)) == (Outcome.COMPLETED, "sms-twilio", 1)


async def test_what_may_have_arrived_leaves_the_rest_of_the_time(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [UnconfirmedFailure("no answer"), UnconfirmedFailure("no answer")]
    await delivered(bench)
    delivery = await later(bench, 901)
    assert (delivery.outcome, sms.sent) == (Outcome.OPEN, [])
    delivery = await later(bench, HOUR)
    assert (delivery.outcome, delivery.channel) == (Outcome.COMPLETED, "sms-twilio")
    assert [send.outcome for send in await bench.store.sends(ID)] == [
        Settled.UNCONFIRMED,
        Settled.UNCONFIRMED,
        Settled.ACCEPTED,
    ]


async def test_an_sms_in_doubt_is_not_sent_again_before_a_long_wait(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.reaches = False
    sms.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    await later(bench, 901)
    assert sms.sent == []
    delivery = await later(bench, 6 * HOUR)
    assert (delivery.outcome, len(sms.sent)) == (Outcome.COMPLETED, 1)


async def test_a_report_settles_what_was_in_doubt(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.reaches = False
    sms.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    (send,) = await bench.store.sends(ID)
    told = await bench.store.report(ACCOUNT, report(bench, send.key, Fate.DELIVERED, channel="sms-twilio"))
    delivery = await later(bench, 0)
    assert (told, delivery.outcome, sms.sent) == (Reported.RECORDED, Outcome.COMPLETED, [])
    assert delivery.delivery_proof is Proof.REPORT


async def test_at_most_once_is_never_sent_again(bench: Bench) -> None:
    bench.channel.guarantee = Guarantee.AT_MOST_ONCE
    bench.channel.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    delivery = await later(bench, 86400)
    assert (delivery.outcome, bench.channel.sent) == (Outcome.FAILED, [])


async def test_idempotent_is_sent_again_along_the_schedule(bench: Bench) -> None:
    bench.channel.guarantee = Guarantee.IDEMPOTENT
    bench.channel.plan = [UnconfirmedFailure("no answer") for _ in range(3)]
    await delivered(bench)
    for _ in range(3):
        delivery = await later(bench, 301)
    assert (delivery.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)
    assert len({send.sha256 for send in await bench.store.sends(ID)}) == 1


async def test_a_bounce_after_the_capture_falls_back_once(bench: Bench) -> None:
    sms = with_sms(bench)
    assert (await delivered(bench)).outcome is Outcome.COMPLETED
    assert await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED)) is Reported.BOUNCED
    assert (await one(bench)).outcome is Outcome.OPEN
    delivery = await later(bench, 0)
    assert (delivery.outcome, delivery.channel, len(sms.sent)) == (Outcome.COMPLETED, "sms-twilio", 1)
    assert len(await captures(bench)) == 1
    assert await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED)) is Reported.DUPLICATE
    bounced_too = report(bench, "sms-twilio-1", Fate.FAILED, channel="sms-twilio")
    await bench.store.report(ACCOUNT, bounced_too)
    delivery = await later(bench, 0)
    assert delivery.outcome is Outcome.FAILED
    assert (len(bench.channel.sent), len(sms.sent), len(await captures(bench))) == (1, 1, 1)


async def test_a_bounce_with_no_other_channel_fails_and_says_so(bench: Bench) -> None:
    await delivered(bench)
    bounce = replace(report(bench, "email-1", Fate.FAILED), detail="5.1.1 no such user")
    await bench.store.report(ACCOUNT, bounce)
    delivery = await later(bench, 0)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "not delivered by email: 5.1.1 no such user")
    # Captured, and not delivered: nobody who lists what did not go out may miss it.
    assert (delivery.progress, delivery_json(delivery)["delivered_at"]) == (("captured",), None)
    await bench.store.retry(ID, request())  # no other address has been found: that would be a resend
    delivery = await later(bench, 0)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "no channel is left to try after email")
    assert len(bench.channel.sent) == 1


async def test_a_resend_after_a_bounce_goes_out(bench: Bench) -> None:
    await delivered(bench)
    await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED))
    await later(bench, 0)
    await bench.store.resend(ID, request())
    delivery = await later(bench, 0)
    assert (delivery.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 2)


async def test_a_bounce_before_the_capture_keeps_it_from_being_captured(bench: Bench) -> None:
    bench.rules = replace(RULES, capture_delay=1800.0)
    delivery = await delivered(bench)
    assert (delivery.outcome, await captures(bench)) == (Outcome.OPEN, ())
    await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED))
    delivery = await later(bench, 1801)
    assert (delivery.outcome, await captures(bench)) == (Outcome.FAILED, ())


async def test_the_capture_waits_for_early_bounces(bench: Bench) -> None:
    bench.rules = replace(RULES, capture_delay=1800.0)
    await delivered(bench)
    assert (await later(bench, 1790)).outcome is Outcome.OPEN
    assert (await later(bench, 11)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_each_has_its_turn_at_a_pace(bench: Bench) -> None:
    bench.channel.pace = Pace(count=30, seconds=60.0)
    for number in range(4):
        id_ = f"{ACCOUNT}.n{number}"
        bench.payments.add(a_transaction(id_))
        await bench.arrive(id_)
    await bench.worker().drain()
    sent = [len(bench.channel.sent)]
    for _ in range(4):
        bench.clock.advance(2)
        await bench.worker().drain()
        sent.append(len(bench.channel.sent))
    assert sent == [1, 2, 3, 4, 4]


async def test_a_large_document_goes_behind_a_link(bench: Bench) -> None:
    bench.links = FakeLinks()
    bench.channel.largest_document = 3
    delivery = await delivered(bench)
    assert (delivery.outcome, list(bench.links.kept)) == (Outcome.COMPLETED, [ID])
    (sent,) = bench.channel.sent
    assert b"https://x.example/i/" in sent.content
    assert b"%PDF" not in sent.content


async def test_what_the_relay_finds_too_large_goes_behind_a_link(bench: Bench) -> None:
    bench.links = FakeLinks()
    bench.channel.plan = [MessageTooLarge("552 5.3.4 too big")]
    delivery = await delivered(bench)
    assert (delivery.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)
    assert b"https://x.example/i/" in bench.channel.sent[0].content


async def test_what_is_no_message_has_no_smaller_shape(bench: Bench) -> None:
    """An endpoint that is posted the document itself (http with base64), and answers 413."""
    bench.links = FakeLinks()
    bench.channel.template = ""
    bench.channel.plan = [MessageTooLarge("the endpoint answered 413"), GONE]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "the endpoint answered 413")
    assert bench.channel.plan == [GONE]  # it was asked once


async def test_without_a_key_what_the_relay_finds_too_large_has_failed(bench: Bench) -> None:
    bench.channel.plan = [MessageTooLarge("552 5.3.4 too big")]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "552 5.3.4 too big")


@pytest.mark.parametrize("less", [0, 1])
async def test_a_document_of_the_largest_size_still_goes_along(bench: Bench, less: int) -> None:
    bench.links = FakeLinks()
    bench.channel.largest_document = len(PDF) - less
    delivery = await delivered(bench)
    assert (delivery.outcome, list(bench.links.kept)) == (Outcome.COMPLETED, [ID] * less)
    assert (PDF in bench.channel.sent[0].content) is (less == 0)


async def test_without_a_key_there_are_no_links(bench: Bench) -> None:
    bench.channel.largest_document = 3
    delivery = await delivered(bench)
    assert delivery.outcome is Outcome.FAILED
    assert "DELIVERY_LINK_KEY" in (delivery.reason or "")


ROUTES = """
[[rule]]
name = "by post office"
country = "NO"
channels = ["sms-twilio", "email"]
exclusive = true
"""


async def test_what_is_exclusive_has_no_fallback(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.routes = read_routes(ROUTES, default=("email",), known=("email", "sms-twilio"))
    sms.plan = [RecipientRefused("a landline")]
    delivery = await delivered(bench)
    assert (delivery.outcome, bench.channel.sent) == (Outcome.FAILED, [])


async def test_a_courtesy_copy_changes_nothing(bench: Bench) -> None:
    sms = with_sms(bench)
    text = ROUTES.replace('"sms-twilio", "email"', '"email"').replace("exclusive = true", 'courtesy = ["sms-twilio"]')
    bench.routes = read_routes(text, default=("email",), known=("email", "sms-twilio"))
    sms.plan = [RecipientRefused("a landline")]
    delivery = await delivered(bench)
    assert (delivery.outcome, delivery.channel, delivery.reason) == (Outcome.COMPLETED, "email", None)
    assert [send.purpose.value for send in await bench.store.sends(ID)] == ["first", "courtesy"]
    await bench.arrive(event=True)
    await bench.worker().drain()
    assert (len(bench.channel.sent), len(await bench.store.sends(ID))) == (1, 2)


@pytest.mark.parametrize("told", [True, False])
async def test_who_has_an_invoice_is_told_that_it_was_cancelled(bench: Bench, *, told: bool) -> None:
    bench.rules = replace(RULES, cancel_notice=told)
    await delivered(bench)
    bench.payments.add(a_transaction(ID, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED"))
    await bench.arrive(event=True)
    delivery = await bench.work()
    assert (delivery.outcome, delivery.voided_at is not None) == (Outcome.COMPLETED, True)
    assert [send.purpose.value for send in await bench.store.sends(ID)] == ["first", *["cancelled"] * told]


async def test_a_notice_whose_process_died_is_in_doubt_and_not_under_way_for_ever(bench: Bench) -> None:
    bench.rules = replace(RULES, cancel_notice=True)
    await delivered(bench)

    def die() -> None:
        raise asyncio.CancelledError

    bench.channel.plan = [die]
    bench.payments.add(a_transaction(ID, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED"))
    await bench.arrive(event=True)
    with pytest.raises(asyncio.CancelledError):
        await bench.worker().drain()
    delivery = await later(bench, 61)
    assert (delivery.outcome, delivery.voided_at is not None, len(bench.channel.sent)) == (Outcome.COMPLETED, True, 1)
    assert [send.outcome for send in await bench.store.sends(ID)] == [Settled.ACCEPTED, Settled.UNCONFIRMED]


@pytest.mark.parametrize(
    ("text", "gate", "outcome"),
    [
        ("Faktura A1B2C-000009, kr 500,00", ContentGate.OFF, Outcome.FAILED),
        ("Faktura {number}, kr 400,00", ContentGate.HOLD, Outcome.FAILED),
        ("Faktura {number}, kr 400,00", ContentGate.WARN, Outcome.COMPLETED),
        ("Faktura {number}, kr 500,00", ContentGate.HOLD, Outcome.COMPLETED),
        (None, ContentGate.HOLD, Outcome.FAILED),
        (None, ContentGate.WARN, Outcome.COMPLETED),
        (None, ContentGate.OFF, Outcome.COMPLETED),
    ],
)
async def test_what_the_document_shows(bench: Bench, text: str | None, gate: ContentGate, outcome: Outcome) -> None:
    bench.rules = replace(RULES, content_gate=gate)
    number = a_transaction(ID).invoice_number or ""
    bench.inspector.text = text and text.format(number=number)
    assert (await delivered(bench)).outcome is outcome
    assert len(bench.channel.sent) == (outcome is Outcome.COMPLETED)


async def test_two_at_once_do_not_make_it_two(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.routes = Routes(default=("email", "sms-twilio"))
    bench.channel.plan = [GONE]
    bench.payments.add(a_transaction(ID))
    await bench.arrive()
    first, second = bench.worker(), bench.worker()
    await first.drain()
    await second.drain()
    assert (len(bench.channel.sent), len(sms.sent)) == (0, 1)
    bench.clock.advance(timedelta(days=1).total_seconds())
    await second.drain()
    assert len(sms.sent) == 1


async def test_without_a_delay_nobody_waits_for_clocks_that_differ(bench: Bench) -> None:
    delivery = replace(await delivered(bench), delivered_at=bench.clock.now() + timedelta(minutes=5))
    assert early_bounces(delivery, RULES, bench.clock.now()) is None
    wait = early_bounces(delivery, replace(RULES, capture_delay=60.0), bench.clock.now())
    assert wait is not None
    assert wait.seconds == 60.0


async def test_an_sms_in_doubt_keeps_nobody_longer_than_its_turn(bench: Bench) -> None:
    """Its own repeat would wait for a report for hours; the next channel's turn comes before that, and by itself."""
    sms, other = FakeChannel("sms-twilio", reports=True), FakeChannel("http", guarantee=Guarantee.IDEMPOTENT)
    bench.channel.reaches, bench.others = False, (sms, other)
    bench.rules = replace(RULES, give_up_after=10 * 86400, fallback_after=HOUR)
    sms.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    delivery = await later(bench, 901)
    assert delivery.due_at is not None
    assert delivery.due_at <= bench.clock.now() + timedelta(seconds=HOUR)
    delivery = await later(bench, HOUR - 901 + 2)
    assert (delivery.outcome, delivery.channel, sms.sent) == (Outcome.COMPLETED, "http", [])


async def test_a_retry_repeats_what_is_in_doubt_by_its_own_channel(bench: Bench) -> None:
    """The first channel refused, the second's answer was lost: the repeat is the second's, to the byte."""
    sms = with_sms(bench)
    bench.channel.plan, sms.plan = [GONE], [UnconfirmedFailure("no answer")]
    await delivered(bench)
    await bench.store.retry(ID, request())
    delivery = await later(bench, 6 * HOUR + 1)
    assert (delivery.outcome, delivery.channel, len(sms.sent)) == (Outcome.COMPLETED, "sms-twilio", 1)
    assert bench.channel.sent == []


async def test_who_fell_and_died_goes_on_where_it_was(bench: Bench) -> None:
    """Whose turn it is is written with the intent: a process that dies in a send leaves no other channel to begin."""
    sms = with_sms(bench)
    bench.channel.plan = [GONE]

    def die() -> None:
        raise asyncio.CancelledError

    sms.plan = [die]
    bench.payments.add(a_transaction(ID))
    await bench.arrive()
    with pytest.raises(asyncio.CancelledError):
        await bench.worker().drain()
    delivery = await later(bench, 61)
    assert (delivery.fallen, bench.channel.sent, len(sms.sent)) == ("email", [], 0)
    assert [send.outcome for send in await bench.store.sends(ID)] == [Settled.REFUSED, Settled.UNCONFIRMED]
    delivery = await later(bench, 6 * HOUR)
    assert (delivery.outcome, delivery.channel, bench.channel.sent) == (Outcome.COMPLETED, "sms-twilio", [])


async def test_a_bounce_of_the_second_does_not_bring_the_first_back(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [GONE]
    await delivered(bench)
    await bench.store.report(ACCOUNT, report(bench, "sms-twilio-1", Fate.FAILED, channel="sms-twilio"))
    delivery = await later(bench, 0)
    assert (delivery.outcome, bench.channel.sent, len(sms.sent)) == (Outcome.FAILED, [], 1)


async def test_a_second_word_of_one_bounce_opens_nothing_again(bench: Bench) -> None:
    sms = with_sms(bench)
    await delivered(bench)
    sms.plan = [RecipientRefused("a landline"), RecipientRefused("a landline")]
    assert await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED, "1")) is Reported.BOUNCED
    assert (await later(bench, 0)).outcome is Outcome.FAILED
    assert await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED, "2")) is Reported.RECORDED
    assert ((await later(bench, 0)).outcome, len(sms.plan)) == (Outcome.FAILED, 1)


async def test_what_bounces_before_its_answer_is_recorded_is_not_captured(bench: Bench) -> None:
    """The report overtakes the answer: the pass that gets the answer must not capture for it."""
    sms = with_sms(bench)
    took = bench.channel.send

    async def send(composed: Composed) -> Receipt:
        receipt = await took(composed)
        await bench.store.report(ACCOUNT, report(bench, composed.message_id, Fate.FAILED))
        return receipt

    sms.plan = [RecipientRefused("a landline")]
    bench.channel.send = send  # type: ignore[method-assign]
    delivery = await delivered(bench)
    assert (delivery.outcome, await captures(bench)) == (Outcome.FAILED, ())
    assert len(bench.channel.sent) == 1


async def test_what_falls_back_has_its_own_time_for_early_bounces(bench: Bench) -> None:
    with_sms(bench, capture_delay=1800.0)
    await delivered(bench)
    bench.clock.advance(1700)
    await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED))
    assert (await later(bench, 0)).channel == "sms-twilio"
    assert ((await later(bench, 1000)).outcome, await captures(bench)) == (Outcome.OPEN, ())
    assert (await later(bench, 801)).outcome is Outcome.COMPLETED


# --- whose turn it is ------------------------------------------------------------------------------------------------


async def test_a_turn_is_one_channels_own(bench: Bench) -> None:
    """Where another channel has come to be the first, it does not lose the time that the one before it has had."""
    sms = with_sms(bench)
    bench.channel.plan = [TransientFailure("451 4.7.1 try later") for _ in range(99)]
    bench.routes = Routes(default=("email",))
    await delivered(bench)
    await later(bench, HOUR + 60)
    bench.routes = Routes(default=("sms-twilio", "email"))
    delivery = await later(bench, 400)
    assert (delivery.outcome, delivery.channel, len(sms.sent)) == (Outcome.COMPLETED, "sms-twilio", 1)


async def test_who_has_come_to_be_the_first_has_a_time_of_its_own(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [TransientFailure("451 4.7.1 try later")]
    sms.plan = [TransientFailure("not now") for _ in range(99)]
    bench.routes = Routes(default=("email",))
    await delivered(bench)
    bench.routes = Routes(default=("sms-twilio", "email"))
    assert (await later(bench, HOUR - 60)).outcome is Outcome.OPEN
    delivery = await later(bench, HOUR + 60)
    assert (delivery.outcome, delivery.channel, sms.sent) == (Outcome.COMPLETED, "email", [])


@pytest.mark.parametrize("rule", ["exclusive = true", 'courtesy = ["sms-twilio"]'])
async def test_what_no_other_channel_may_take_over_waits_quietly(bench: Bench, rule: str) -> None:
    """It waits for its paused channel; the provider is not asked about it once a minute for as long as that lasts."""
    with_sms(bench)
    text = f'[[rule]]\nchannels = ["email"]\n{rule}'
    bench.routes = read_routes(text, default=("email",), known=("email", "sms-twilio"))
    bench.channel.plan = [TransientFailure("451 4.7.1 try later")]
    await delivered(bench)
    await bench.store.pause(ACCOUNT, "email", "out of order", by="kari", probe_in=None)
    await later(bench, HOUR + 61)
    reads = len(bench.payments.reads)
    for _ in range(9):
        assert (await later(bench, 61)).outcome is Outcome.OPEN
    assert len(bench.payments.reads) == reads


@pytest.mark.parametrize("change", ["channel", "content"])
async def test_what_is_in_doubt_and_cannot_be_repeated_leaves_the_rest_of_the_time(bench: Bench, change: str) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    if change == "channel":
        bench.routes = Routes(default=("sms-twilio",))
    else:
        bench.renderer.text = "an invoice in other words"
    delivery = await later(bench, 901)
    assert (delivery.outcome, sms.sent) == (Outcome.OPEN, [])
    delivery = await later(bench, HOUR - 900)
    assert (delivery.outcome, delivery.channel, bench.channel.sent) == (Outcome.COMPLETED, "sms-twilio", [])
    assert delivery.reason == "delivered by sms-twilio, and it is not known whether by email, too"


async def test_content_that_changed_with_no_other_channel_is_for_a_person(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    bench.renderer.text = "an invoice in other words"
    delivery = await later(bench, 901)
    assert (delivery.outcome, delivery.reason) == (Outcome.FAILED, "content changed since a send in doubt")


async def test_what_is_in_doubt_loses_its_turn_wherever_it_stands_in_the_route(bench: Bench) -> None:
    """After a retry the first may have a turn again; the second, which is repeated, does not go round without end."""
    sms = with_sms(bench)
    sms.guarantee = Guarantee.IDEMPOTENT
    bench.channel.plan, sms.plan = [GONE], [UnconfirmedFailure("no answer") for _ in range(99)]
    await delivered(bench)
    await bench.store.retry(ID, request())
    assert (await later(bench, 0)).turn == "sms-twilio"
    for _ in range(12):
        await later(bench, 301)
    delivery = await one(bench)
    assert (delivery.outcome, delivery.channel, sms.sent) == (Outcome.COMPLETED, "email", [])
    assert len(await bench.store.sends(ID)) < 20


async def test_what_is_in_doubt_by_a_paused_channel_is_taken_up_once(bench: Bench) -> None:
    sms = with_sms(bench)
    sms.guarantee = Guarantee.IDEMPOTENT
    bench.channel.plan, sms.plan = [GONE], [UnconfirmedFailure("no answer"), UnconfirmedFailure("no answer")]
    await delivered(bench)
    await bench.store.retry(ID, request())
    await later(bench, 0)
    await bench.store.pause(ACCOUNT, "sms-twilio", "out of order", by="kari", probe_in=None)
    delivery = await later(bench, HOUR + 61)
    assert (delivery.outcome, delivery.channel, sms.sent) == (Outcome.COMPLETED, "email", [])


async def test_each_channel_has_its_own_repeats(bench: Bench) -> None:
    """After a retry both are in doubt: what was repeated by the first says nothing of the second."""
    sms = with_sms(bench)
    sms.reports = False
    bench.channel.plan = [UnconfirmedFailure("no answer")] * 2
    sms.plan = [UnconfirmedFailure("no answer")]
    await delivered(bench)
    await later(bench, 901)
    await later(bench, HOUR)
    await bench.store.retry(ID, request())
    delivery = await later(bench, 901)
    assert [send.channel for send in await bench.store.sends(ID)] == ["email"] * 2 + ["sms-twilio"] * 2
    assert (delivery.outcome, len(sms.sent)) == (Outcome.COMPLETED, 1)


# --- what the record says --------------------------------------------------------------------------------------------


async def test_a_late_word_of_the_first_is_no_success_by_fallback(bench: Bench) -> None:
    with_sms(bench)
    bench.channel.plan = [UnconfirmedFailure("no answer")] * 2
    await delivered(bench)
    await later(bench, 901)
    await bench.store.pause(ACCOUNT, "sms-twilio", "out of order", by="kari", probe_in=None)
    assert (await later(bench, HOUR)).fallen == "email"
    (_, again) = await bench.store.sends(ID)
    await bench.store.report(ACCOUNT, report(bench, again.key, Fate.DELIVERED))
    delivery = await later(bench, 1)
    assert (delivery.outcome, delivery.channel, delivery.reason) == (Outcome.COMPLETED, "email", None)


async def test_both_are_named_when_both_came(bench: Bench) -> None:
    with_sms(bench, capture_delay=HOUR)
    bench.channel.plan = [UnconfirmedFailure("no answer")] * 2
    await delivered(bench)
    await later(bench, 901)
    await later(bench, HOUR)
    (_, again, _) = await bench.store.sends(ID)
    await bench.store.report(ACCOUNT, report(bench, again.key, Fate.DELIVERED))
    delivery = await later(bench, HOUR)
    assert (delivery.outcome, delivery.reason) == (Outcome.COMPLETED, "delivered by email and sms-twilio")


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_why_it_came_back_is_said_where_nobody_else_can_be_reached(bench: Bench, *, meanwhile: bool) -> None:
    sms = with_sms(bench)
    sms.reaches = False
    took = bench.channel.send

    async def bounce() -> None:
        gone = replace(report(bench, "email-1", Fate.FAILED), detail="5.1.1 no such user")
        await bench.store.report(ACCOUNT, replace(gone, reference=bench.channel.sent[0].message_id))

    async def send(composed: Composed) -> Receipt:
        receipt = await took(composed)
        await bounce()
        return receipt

    if meanwhile:
        bench.channel.send = send  # type: ignore[method-assign]
    delivery = await delivered(bench)
    if not meanwhile:
        await bounce()
        delivery = await later(bench, 0)
    assert delivery.outcome is Outcome.FAILED
    assert delivery.reason == "not delivered by email: 5.1.1 no such user; no usable e-mail address"
    assert delivery.delivery_proof is None


async def test_a_bounce_while_the_pass_is_under_way_brings_no_channel_back(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.channel.plan = [GONE]
    took = sms.send

    async def send(composed: Composed) -> Receipt:
        receipt = await took(composed)
        await bench.store.report(ACCOUNT, report(bench, composed.message_id, Fate.FAILED, channel="sms-twilio"))
        return receipt

    sms.send = send  # type: ignore[method-assign]
    delivery = await delivered(bench)
    assert (delivery.outcome, len(sms.sent), bench.channel.sent) == (Outcome.FAILED, 1, [])


async def test_what_is_paid_by_the_time_it_comes_back_is_not_sent_again(bench: Bench) -> None:
    sms = with_sms(bench)
    await delivered(bench)
    bench.payments.change(ID, collection=replace(bench.payments.transactions[ID].collection, paid=True))
    await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED))
    delivery = await later(bench, 0)
    assert (delivery.outcome, delivery.reason, sms.sent) == (Outcome.SKIPPED, "already paid", [])
    await bench.store.resend(ID, request())  # a person may want a copy all the same
    assert (await later(bench, 0)).outcome is Outcome.COMPLETED


# --- pace, and copies ------------------------------------------------------------------------------------------------


async def many(bench: Bench, number: int) -> list[str]:
    ids = [f"{ACCOUNT}.n{place}" for place in range(number)]
    for id_ in ids:
        bench.payments.add(a_transaction(id_))
        await bench.arrive(id_)
    await bench.worker().drain()
    return ids


async def test_a_place_in_the_line_does_not_outlive_its_time(bench: Bench) -> None:
    """Nobody worked for an hour: what stood in line does not go all at once, it lines up again."""
    bench.channel.pace = Pace(count=30, seconds=60.0)
    await many(bench, 8)
    sent = []
    for after in (3600, 2, 2, 2):
        await later_for_all(bench, after)
        sent.append(len(bench.channel.sent))
    assert sent == [2, 3, 4, 5]


async def later_for_all(bench: Bench, seconds: float) -> None:
    bench.clock.advance(seconds)
    await bench.worker().drain()


async def test_who_stands_in_line_loses_no_patience(bench: Bench) -> None:
    bench.channel.pace = Pace(count=1, seconds=1000.0)
    *_, last = await many(bench, 3)
    await bench.arrive(last)  # a further callback has it looked at meanwhile
    await bench.worker().drain()
    (delivery,) = await bench.store.known([last])
    assert (delivery.reason, delivery.patience_since) == ("in line for the relay", None)
    assert len(bench.channel.sent) == 1


def with_a_copy_by(bench: Bench, channel: str, *channels: str) -> None:
    known = tuple(one.name for one in (bench.channel, *bench.others))
    text = f'[[rule]]\nchannels = {list(channels)}\ncourtesy = ["{channel}"]'
    bench.routes = read_routes(text, default=("email",), known=known)


async def test_a_copy_keeps_the_pace_of_its_relay_and_what_is_complete_stays_so(bench: Bench) -> None:
    sms = with_sms(bench)
    with_a_copy_by(bench, "email", "sms-twilio")
    bench.channel.pace = Pace(count=30, seconds=60.0)
    ids = await many(bench, 4)
    copies = [len(bench.channel.sent)]
    assert {delivery.outcome for delivery in await bench.store.known(ids)} == {Outcome.COMPLETED}
    for _ in range(4):
        await bench.arrive(ids[-1], event=True)  # looked at early, it keeps its place
        await later_for_all(bench, 2)
        copies.append(len(bench.channel.sent))
    assert (len(sms.sent), copies) == (4, [1, 2, 3, 4, 4])
    assert {delivery.due_at for delivery in await bench.store.known(ids)} == {None}


async def in_line_for_a_copy(bench: Bench, **more: object) -> FakeChannel:
    """Deliver an invoice by mail whose copy has to wait for twenty seconds."""
    sms = with_sms(bench, **more)
    with_a_copy_by(bench, "sms-twilio", "email")
    sms.pace = Pace(count=1, seconds=20.0)
    await bench.store.take_turn(ACCOUNT, "sms-twilio", sms.pace)
    assert (await delivered(bench)).paced
    return sms


async def test_a_copy_in_line_harms_nothing_while_the_provider_cannot_be_read(bench: Bench) -> None:
    sms = await in_line_for_a_copy(bench, capture_delay=60.0)
    bench.payments.plan["read"] = [TransientFailure("Dintero answered 500") for _ in range(6)]
    for _ in range(6):
        delivery = await later(bench, 331)
        assert (delivery.outcome, delivery.errors) == (Outcome.OPEN, 0)
    await later(bench, 331)
    assert ((await later(bench, 21)).outcome, len(sms.sent)) == (Outcome.COMPLETED, 1)


@pytest.mark.parametrize("in_line", [True, False])
async def test_what_is_complete_and_cannot_be_read_any_more_stays_so(bench: Bench, *, in_line: bool) -> None:
    if in_line:
        await in_line_for_a_copy(bench)
    else:
        await delivered(bench)
    bench.payments.plan["read"] = [PermanentFailure("there is no such transaction")]
    await bench.arrive(event=True)
    delivery = await later(bench, 0)
    assert (delivery.outcome, delivery.errors, delivery.due_at) == (Outcome.COMPLETED, 0, None)


async def test_a_copy_in_line_has_nobody_asked_again_sooner_than_they_said(bench: Bench) -> None:
    bench.payments.plan["capture"] = [TransientFailure("Dintero answered 503", retry_after=600.0)]
    await in_line_for_a_copy(bench)
    await later(bench, 21)
    assert len(bench.payments.captures) == 1
    assert (await later(bench, 600)).outcome is Outcome.COMPLETED


async def test_a_resend_does_not_wait_for_the_place_of_a_copy(bench: Bench) -> None:
    """The copy's relay has a long line, the invoice's own has none; the copy still goes out, and once."""
    sms = await in_line_for_a_copy(bench)
    await bench.store.resend(ID, request())
    assert ((await later(bench, 0)).outcome, len(bench.channel.sent), sms.sent) == (Outcome.COMPLETED, 2, [])
    for _ in range(4):
        await later(bench, 21)
    assert (len(bench.channel.sent), len(sms.sent)) == (2, 1)


async def test_no_copy_goes_by_a_channel_that_is_paused(bench: Bench) -> None:
    sms = with_sms(bench)
    with_a_copy_by(bench, "sms-twilio", "email")
    await bench.store.pause(ACCOUNT, "sms-twilio", "out of order", by="kari", probe_in=None)
    assert (await delivered(bench)).outcome is Outcome.COMPLETED
    assert sms.sent == []
    assert any(entry.detail == "no courtesy copy: sms-twilio is paused" for entry in await bench.store.history(ID))


async def test_no_copy_goes_out_of_what_is_voided_meanwhile(bench: Bench) -> None:
    sms = with_sms(bench)
    with_a_copy_by(bench, "sms-twilio", "email")
    bench.channel.plan = [lambda: bench.payments.change(ID, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")]
    delivery = await delivered(bench)
    assert (delivery.outcome, len(bench.channel.sent), sms.sent) == (Outcome.CANCELLED, 1, [])


async def test_no_copy_that_stood_in_line_goes_out_of_what_was_voided(bench: Bench) -> None:
    sms = await in_line_for_a_copy(bench)
    bench.payments.change(ID, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    delivery = await later(bench, 21)
    assert (delivery.outcome, delivery.voided_at is None, sms.sent) == (Outcome.COMPLETED, False, [])


async def test_no_copy_goes_where_the_invoice_itself_may_have_come(bench: Bench) -> None:
    sms = with_sms(bench)
    bench.others = (sms, FakeChannel("http", guarantee=Guarantee.IDEMPOTENT))
    with_a_copy_by(bench, "sms-twilio", "email", "sms-twilio", "http")
    bench.channel.plan, sms.plan = [GONE], [UnconfirmedFailure("no answer")]
    await delivered(bench)
    delivery = await later(bench, HOUR + 1)
    assert (delivery.outcome, delivery.channel, sms.sent) == (Outcome.COMPLETED, "http", [])
    words = "delivered by http, after email had not worked, and it is not known whether by sms-twilio, too"
    assert delivery.reason == words


async def test_a_mailed_pdf_that_will_not_do_is_told_of_in_the_record(bench: Bench) -> None:
    day = E_INVOICES_IN_NORWAY_FROM
    bench.payments.add(a_transaction(ID, invoice_date=day, due_date=day + timedelta(days=36500)))
    bench.channel.plan = [TransientFailure("451 4.7.1 try later")]
    await bench.arrive()
    assert (await bench.work(after=0)).outcome is Outcome.OPEN
    assert (await later(bench, 61)).outcome is Outcome.COMPLETED
    details = [entry.detail or "" for entry in await bench.store.history(ID)]
    assert [d.startswith("sent all the same: a mailed PDF is no invoice in law") for d in details].count(True) == 1


async def test_a_pdf_that_is_mailed_after_all_is_told_of_too(bench: Bench) -> None:
    """The first channel posts data, and refused: what falls back to a mail is warned of as any other."""
    day = E_INVOICES_IN_NORWAY_FROM
    erp = FakeChannel("http", guarantee=Guarantee.IDEMPOTENT)
    erp.template, erp.plan = "", [RecipientRefused("422 unknown customer")]
    bench.others, bench.routes = (erp,), Routes(default=("http", "email"))
    bench.payments.add(a_transaction(ID, invoice_date=day, due_date=day + timedelta(days=36500)))
    await bench.arrive()
    assert (await later(bench, 0)).channel == "email"
    details = [entry.detail or "" for entry in await bench.store.history(ID)]
    assert [d.startswith("sent all the same: a mailed PDF is no invoice in law") for d in details].count(True) == 1
