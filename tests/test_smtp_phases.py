"""A mail step by step: what each answer, silence, break and cancellation means at each step, over real sockets."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.channels.smtp_wire import Limits, stuffed
from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    MessageTooLarge,
    RecipientRefused,
    SendingBlocked,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.mails import ADDRESS, SENDER, bare_relay, mail_of
from tests.smtp_peer import DROP, Held, Last, Reading, SmtpPeer, smtp_peer

MAIL = mail_of(4000)
LARGE = mail_of(12_000_000)  # more than the system takes from us at once
STEPS = ("GREETING", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", ".")
SILENCE = "nothing"


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as peer:
        yield peer


def signing_in(peer: SmtpPeer) -> str:
    """Return the relay's address for someone who signs in, which it offers."""
    return peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")


def offering(peer: SmtpPeer, *, times: int = 3) -> None:
    peer.say("EHLO", *["250-peer\r\n250-AUTH LOGIN PLAIN\r\n250 SIZE 36700160"] * times)


A, B, L, R, S, U = (
    AccountFailure,
    SendingBlocked,
    TransientFailure,
    RecipientRefused,
    MessageTooLarge,
    UnconfirmedFailure,
)
# channels.md 1.2, and what it leaves out: the same at every step.
MEANINGS: list[tuple[str, tuple[type[DeliveryFailure], ...]]] = [
    ("421 4.3.2 closing", (A, A, A, L, L, L, L)),
    ("451 4.3.0 later", (A, A, A, L, L, L, L)),
    ("450 4.7.1 greylisted", (L, L, A, L, L, L, L)),
    ("535 5.7.8 no", (A, A, A, A, A, A, A)),
    ("550 5.7.30 no more passwords", (A, A, A, A, A, A, A)),
    ("554 5.7.1 spam", (B, B, A, B, B, B, B)),
    ("554 no", (B, B, A, B, B, B, B)),
    ("552 5.3.4 too big", (A, A, A, S, S, S, S)),
    ("550 5.1.1 unknown", (A, A, A, A, R, R, R)),
    ("354 go on", (A, A, A, L, L, U, U)),
    ("999 what", (A, A, A, L, L, L, U)),
    ("this is not SMTP", (A, A, A, L, L, L, U)),
    (DROP, (A, A, A, L, L, L, U)),
    (SILENCE, (A, A, A, L, L, L, U)),
]
CASES = [(step, reply, failure) for reply, row in MEANINGS for step, failure in zip(STEPS, row, strict=True)]
CASES = [case for case in CASES if case[:2] != ("DATA", "354 go on")]  # which is as it should be
SHORT = Limits(greeting=0.5, command=0.5, data=0.5, answer=0.5)


@pytest.mark.parametrize(("step", "reply", "failure"), CASES)
async def test_what_an_answer_means_at_each_step(
    peer: SmtpPeer, step: str, reply: str, failure: type[DeliveryFailure]
) -> None:
    held = Held("250 2.0.0 far too late")
    if step == "EHLO":
        peer.say(step, held if reply == SILENCE else reply)
    offering(peer)
    if step != "EHLO":
        peer.say(step, held if reply == SILENCE else reply)
    limits = SHORT if reply == SILENCE else Limits()
    async with bare_relay(signing_in(peer), connections=1, limits=limits) as relay:
        with pytest.raises(DeliveryFailure) as caught:
            await relay.deliver(SENDER, ADDRESS, MAIL)
        assert type(caught.value) is failure
        if reply[0] in "45":
            assert reply in caught.value.reason
        handed_over = len(peer.mails)
        assert handed_over == (step == ".")
        held.release.set()
        assert (await relay.deliver(SENDER, ADDRESS, MAIL)).code == 250
    assert (peer.connections, peer.mails[handed_over:]) == (2, [MAIL])


@pytest.mark.parametrize("reply", ["250 2.0.0 queued", "251 will forward", "252 ok", "200 fine"])
async def test_any_two_hundred_after_the_dot_is_accepted(peer: SmtpPeer, reply: str) -> None:
    peer.say(".", reply)
    async with bare_relay(peer.url) as relay:
        said = await relay.deliver(SENDER, ADDRESS, MAIL)
        assert f"{said.code} {said.message}" == reply
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, peer.mails) == (1, [MAIL, MAIL])


@pytest.mark.parametrize("reply", ["251 not here, but I will tell them", "252 let us see"])
async def test_a_recipient_may_be_taken_in_other_words(peer: SmtpPeer, reply: str) -> None:
    peer.say("RCPT", reply)
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert peer.mails == [MAIL]


async def test_a_relay_that_takes_no_data_gets_no_content(peer: SmtpPeer) -> None:
    peer.say("DATA", "250 2.0.0 Ok")
    async with bare_relay(peer.url) as relay:
        with pytest.raises(TransientFailure) as caught:
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert type(caught.value) is TransientFailure
    await asyncio.wait_for(peer.ended.wait(), 5)
    assert peer.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_two_answers_to_one_command_are_not_the_answer_to_the_next(peer: SmtpPeer, step: str) -> None:
    """Read one command late, they would make a refusal of what was taken, or a mail accepted that was not."""
    good = "354 go on" if step == "DATA" else "250 2.0.0 Ok"
    peer.say(step, f"{good}\r\n250 2.0.0 Ok\r\n550 5.1.1 unknown")
    peer.say(".", "554 5.7.1 spam")
    async with bare_relay(peer.url) as relay:
        with pytest.raises(TransientFailure, match="more than one answer") as caught:
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert type(caught.value) is TransientFailure
    assert peer.mails == []


async def test_a_connection_that_says_more_after_the_mail_is_not_used_again(peer: SmtpPeer) -> None:
    peer.say(".", "250 2.0.0 queued\r\n550 5.1.1 unknown")
    async with bare_relay(peer.url) as relay:
        assert (await relay.deliver(SENDER, ADDRESS, MAIL)).message == "2.0.0 queued"
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (2, 2)


@pytest.mark.parametrize(
    "address", ["a b@x.example", "a>@x.example", "<a@x.example", "a@x.example\r\nDATA", "\u00e5@x.example", "x", ""]
)
async def test_an_address_that_cannot_be_written_is_refused_before_anything_is_said(
    peer: SmtpPeer, address: str
) -> None:
    async with bare_relay(peer.url) as relay:
        with pytest.raises(RecipientRefused):
            await relay.deliver(SENDER, address, MAIL)
    assert peer.connections == 0


async def test_a_refused_mail_ends_with_a_goodbye(peer: SmtpPeer) -> None:
    peer.say("RCPT", "550 5.1.1 unknown")
    async with bare_relay(peer.url) as relay:
        with pytest.raises(RecipientRefused):
            await relay.deliver(SENDER, ADDRESS, MAIL)
        await asyncio.wait_for(peer.ended.wait(), 5)
    assert peer.verbs() == ["EHLO", "MAIL", "RCPT", "QUIT"]


# --- the content -----------------------------------------------------------------------------------------------------


async def test_a_relay_that_hangs_up_after_its_go_on_has_accepted_nothing_that_we_know(peer: SmtpPeer) -> None:
    """Seen in time it is refused; with the first byte on its way it is in doubt."""
    peer.say("DATA", Last("354 go on"))
    async with bare_relay(peer.url) as relay:
        with pytest.raises((TransientFailure, UnconfirmedFailure)):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert peer.mails == []


@pytest.mark.parametrize("mail", [MAIL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("share", [1, 1000])
async def test_a_connection_that_breaks_within_the_content_leaves_it_in_doubt(
    peer: SmtpPeer, mail: bytes, share: int
) -> None:
    peer.read(Reading(stop_after=share, then=DROP))
    async with bare_relay(peer.url) as relay:
        with pytest.raises(UnconfirmedFailure):
            await relay.deliver(SENDER, ADDRESS, mail)
        await relay.deliver(SENDER, ADDRESS, mail)
    assert (peer.connections, peer.mails) == (2, [mail])


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ("552 5.3.4 too big", MessageTooLarge),
        ("452 4.3.1 no room", TransientFailure),
        ("250 2.0.0 already", UnconfirmedFailure),
        ("354 still", UnconfirmedFailure),
    ],
)
async def test_an_answer_in_the_middle_of_the_content_can_only_refuse(
    peer: SmtpPeer, reply: str, failure: type[DeliveryFailure]
) -> None:
    peer.read(Reading(stop_after=1000, then=reply))
    async with bare_relay(peer.url) as relay:
        with pytest.raises(DeliveryFailure) as caught:
            await relay.deliver(SENDER, ADDRESS, LARGE)
        assert type(caught.value) is failure
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, peer.mails) == (2, [MAIL])


async def test_a_large_mail_to_a_slow_but_steady_relay_arrives() -> None:
    """It takes several times the limit for a block, and for the answer."""
    limits = Limits(block=1.0, answer=1.0)
    async with smtp_peer(receive_buffer=4096) as peer, bare_relay(peer.url, limits=limits) as relay:
        peer.read(Reading(pause=0.015))
        began = asyncio.get_running_loop().time()
        await relay.deliver(SENDER, ADDRESS, LARGE)
        assert asyncio.get_running_loop().time() - began > 2
        assert peer.mails == [LARGE]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_relay_that_stops_reading_leaves_the_mail_in_doubt_and_holds_nothing() -> None:
    never = Held(DROP)
    async with smtp_peer(receive_buffer=4096) as peer, bare_relay(peer.url, limits=Limits(block=0.3)) as relay:
        peer.read(Reading(stop_after=1000, then=never))
        before = open_files()
        async with asyncio.timeout(10):
            with pytest.raises(UnconfirmedFailure, match="no answer in time"):
                await relay.deliver(SENDER, ADDRESS, LARGE)
        await asyncio.sleep(0.01)
        assert open_files() == before + 1  # the relay's own end; ours does not wait to be read


def test_the_limits_are_those_of_the_rfc() -> None:
    limits = Limits()
    assert (limits.greeting, limits.command, limits.data, limits.block) == (300, 300, 120, 180)
    assert limits.answer >= 600
    assert 15 <= limits.connect <= 30


async def test_a_large_mail_arrives_byte_for_byte(peer: SmtpPeer) -> None:
    mail = mail_of(7_000_000)
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, mail)
    assert peer.mails == [mail]
    assert peer.wire[0].count(b"\r\n..") == mail.count(b"\r\n.")


async def test_a_large_mail_is_not_copied(peer: SmtpPeer) -> None:
    mail = b"x" * 78 + b"\r\n"
    mail *= 80_000
    peer.read(Reading(), Reading(keep=False))
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        tracemalloc.start()
        try:
            await relay.deliver(SENDER, ADDRESS, mail)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < len(mail) / 4


@given(st.lists(st.sampled_from([b".", b"..", b".a", b"", b"a.", b"a"])))
def test_dots_are_stuffed_where_lines_begin(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    on_the_wire = stuffed(content).split(b"\r\n")
    assert b"." not in on_the_wire
    assert b"\r\n".join(line.removeprefix(b".") for line in on_the_wire) == (content or b"\r\n")


def test_a_last_line_is_ended() -> None:
    assert stuffed(b"a\r\nb") == b"a\r\nb\r\n"


# --- cancellation ----------------------------------------------------------------------------------------------------


CANCELLED = [(step, False) for step in STEPS] + [(step, True) for step in STEPS[3:]]


@pytest.mark.parametrize(("step", "kept"), CANCELLED)
async def test_a_cancelled_mail_leaves_no_answer_for_the_next(peer: SmtpPeer, step: str, kept: bool) -> None:
    """Whatever it was waiting for: the next mail on the pool is not blamed with the late reply."""
    late = Held("550 5.1.1 late, for the first")
    async with bare_relay(signing_in(peer), connections=1) as relay:
        if kept:
            offering(peer)
            await relay.deliver(SENDER, ADDRESS, MAIL)
        peer.say(step, late)
        offering(peer)
        before = len(peer.mails)
        task = asyncio.create_task(relay.deliver(SENDER, ADDRESS, b"first\r\n"))
        await asyncio.wait_for(late.reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        late.release.set()
        await asyncio.wait_for(peer.ended.wait(), 5)
        assert (await relay.deliver(SENDER, ADDRESS, MAIL)).code == 250
    assert (peer.connections, peer.mails[-1]) == (2, MAIL)
    assert len(peer.mails) == before + 1 + (step == ".")


async def test_a_mail_cancelled_in_the_middle_is_never_ended() -> None:
    """What was not yet handed to the system does not go out behind our back: the relay cannot accept half a mail."""
    halt = Held("250 go on")
    async with smtp_peer(receive_buffer=4096) as peer, bare_relay(peer.url, connections=1) as relay:
        peer.read(Reading(stop_after=1000, then=halt))
        task = asyncio.create_task(relay.deliver(SENDER, ADDRESS, LARGE))
        await asyncio.wait_for(halt.reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        peer.ended.clear()
        halt.release.set()
        await asyncio.wait_for(peer.ended.wait(), 5)
        await relay.deliver(SENDER, ADDRESS, MAIL)
        assert (peer.connections, peer.mails) == (2, [MAIL])


async def test_a_mail_cancelled_while_it_waits_for_a_connection_takes_none_along(peer: SmtpPeer) -> None:
    slow = Held("250 2.0.0 Ok")
    peer.say("MAIL", slow)
    async with bare_relay(peer.url, connections=1) as relay:
        first = asyncio.create_task(relay.deliver(SENDER, ADDRESS, MAIL))
        await asyncio.wait_for(slow.reached.wait(), 5)
        second = asyncio.create_task(relay.deliver(SENDER, ADDRESS, b"second\r\n"))
        await asyncio.sleep(0)
        second.cancel()
        slow.release.set()
        await first
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, peer.mails) == (1, [MAIL, MAIL])


async def test_cancelled_while_going_over_to_tls(peer: SmtpPeer) -> None:
    late = Held("220 go on")
    peer.say("EHLO", "250-peer\r\n250 STARTTLS")
    peer.say("STARTTLS", late)
    async with bare_relay(peer.url, connections=1) as plain:
        async with bare_relay(peer.url.replace("+insecure", ""), connections=1) as relay:
            task = asyncio.create_task(relay.deliver(SENDER, ADDRESS, b"first\r\n"))
            await asyncio.wait_for(late.reached.wait(), 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        late.release.set()
        await plain.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, peer.mails) == (2, [MAIL])
