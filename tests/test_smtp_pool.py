"""Connections that are kept: which are used again, which are replaced, and how many there are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.delivery import AccountFailure, MessageTooLarge, PermanentFailure, TransientFailure, UnconfirmedFailure
from tests.fakes import MovedClock
from tests.mails import ADDRESS, SENDER, bare_relay, composed, mail_of, opened
from tests.smtp_peer import DROP, Held, SmtpPeer, smtp_peer

MAIL = mail_of(4000)


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as peer:
        yield peer


async def test_a_connection_is_kept_for_the_next_mail(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        for _ in range(3):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (1, 3)
    assert peer.verbs() == ["EHLO", *["MAIL", "RCPT", "DATA"] * 3, "QUIT"]


@pytest.mark.parametrize(("pause", "connections"), [(19, 1), (21, 2), (301, 2)])
async def test_a_connection_that_idled_is_not_used_again(peer: SmtpPeer, pause: float, connections: int) -> None:
    clock = MovedClock()
    async with bare_relay(peer.url, clock=clock) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        clock.advance(pause)
        await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == connections


async def test_an_old_connection_is_replaced_however_busy(peer: SmtpPeer) -> None:
    clock = MovedClock()
    async with bare_relay(peer.url, clock=clock) as relay:
        for _ in range(16):
            await relay.deliver(SENDER, ADDRESS, MAIL)
            clock.advance(19)
        assert peer.connections == 1
        await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == 2


async def test_a_much_used_connection_is_replaced(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        for _ in range(50):
            await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == 1
        await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == 2


async def test_the_connection_used_last_is_used_next(peer: SmtpPeer) -> None:
    """So that the others grow old and go, where the first in turn would keep all of them alive."""
    clock = MovedClock()
    async with bare_relay(peer.url, clock=clock) as relay:
        slow = Held("250 2.0.0 Ok")
        peer.say("MAIL", slow)
        first = asyncio.create_task(relay.deliver(SENDER, ADDRESS, MAIL))
        await asyncio.wait_for(slow.reached.wait(), 5)
        await relay.deliver(SENDER, ADDRESS, MAIL)
        slow.release.set()
        await first
        assert peer.connections == 2
        for _ in range(3):
            clock.advance(9)
            await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == 2
        assert peer.verbs().count("QUIT") == 1  # the other one, after 20 seconds of idling


async def test_no_more_connections_than_allowed(peer: SmtpPeer) -> None:
    first, second = Held("250 2.0.0 Ok"), Held("250 2.0.0 Ok")
    peer.say("MAIL", first, second)
    async with bare_relay(peer.url, connections=2) as relay, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(relay.deliver(SENDER, ADDRESS, MAIL))
        await first.reached.wait()
        await second.reached.wait()
        assert peer.connections == 2
        first.release.set()
        second.release.set()
    assert (peer.connections, len(peer.mails)) == (2, 5)


@pytest.mark.parametrize("reply", ["421 4.3.2 too many connections", "432 4.3.2 Concurrent connections limit exceeded"])
@pytest.mark.parametrize("step", ["GREETING", "AUTH"])
async def test_a_relay_that_takes_no_further_connection_is_not_out_of_reach(
    peer: SmtpPeer, step: str, reply: str
) -> None:
    """While others of ours work, that is for now; pausing the channel for it would stop those, too."""
    at_work = Held("250 2.0.0 Ok")
    peer.say("EHLO", *["250-peer\r\n250 AUTH PLAIN"] * 4)
    peer.say("MAIL", at_work)
    async with bare_relay(peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")) as relay:
        first = asyncio.create_task(relay.deliver(SENDER, ADDRESS, MAIL))
        await asyncio.wait_for(at_work.reached.wait(), 5)
        peer.say(step, reply)
        with pytest.raises(TransientFailure, match="no further connection: 4") as caught:
            await relay.deliver(SENDER, ADDRESS, MAIL)
        assert type(caught.value) is TransientFailure
        at_work.release.set()
        await first
        assert peer.mails == [MAIL]
        await peer.hang_up()
        peer.say(step, reply)
        with pytest.raises(AccountFailure):
            await relay.deliver(SENDER, ADDRESS, MAIL)


# --- kept, and dead --------------------------------------------------------------------------------------------------


async def test_a_kept_connection_that_the_relay_closed_costs_nothing(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        await peer.hang_up()
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (2, 2)


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("reply", [DROP, "421 4.4.2 idle too long", "not SMTP any more"])
async def test_a_kept_connection_that_dies_before_the_content_is_replaced_at_once(
    peer: SmtpPeer, step: str, reply: str
) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        peer.say(step, reply)
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (2, 2)


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_the_fresh_one_that_fails_as_well_has_failed(peer: SmtpPeer, step: str) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        peer.say(step, DROP, DROP)
        with pytest.raises(TransientFailure):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (2, 1)


async def test_a_kept_connection_to_a_relay_that_is_gone(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        await peer.hang_up()
        peer.say("GREETING", DROP)
        with pytest.raises(AccountFailure):
            await relay.deliver(SENDER, ADDRESS, MAIL)


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "550 5.1.1 unknown", "250 2.0.0 what"])
async def test_an_answer_on_a_kept_connection_is_an_answer(peer: SmtpPeer, reply: str) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        peer.say("DATA", reply)
        with pytest.raises((TransientFailure, PermanentFailure)):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (1, 1)


async def test_a_kept_connection_that_dies_with_the_content_is_not_tried_again(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
        peer.say(".", DROP)
        with pytest.raises(UnconfirmedFailure):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert (peer.connections, len(peer.mails)) == (1, 2)


# --- the largest mail ------------------------------------------------------------------------------------------------


async def test_a_mail_above_the_relays_limit_is_refused_before_it_is_sent(peer: SmtpPeer) -> None:
    peer.say("EHLO", "250-peer\r\n250 SIZE 3000")
    async with opened(peer.url) as channel:
        await channel.send(composed(channel))
        with pytest.raises(MessageTooLarge, match="the relay takes 3000"):
            await channel.send(composed(channel, size=5000))
        await channel.send(composed(channel))
    assert (peer.connections, len(peer.mails)) == (1, 2)


async def test_a_connection_kept_without_having_been_used_is_a_kept_one(peer: SmtpPeer) -> None:
    """It idles as any other: time goes on for it, and when it proves dead it is replaced."""
    clock = MovedClock()
    peer.say("EHLO", *["250-peer\r\n250 SIZE 5000"] * 3)
    async with bare_relay(peer.url, clock=clock) as relay:
        with pytest.raises(MessageTooLarge):
            await relay.deliver(SENDER, ADDRESS, mail_of(6000))
        peer.say("MAIL", DROP)
        await relay.deliver(SENDER, ADDRESS, MAIL)
        assert peer.connections == 2
        for _ in range(2):
            clock.advance(11)
            with pytest.raises(MessageTooLarge):
                await relay.deliver(SENDER, ADDRESS, mail_of(6000))
        assert peer.connections == 3


@pytest.mark.parametrize("offered", ["SIZE", "SIZE 0", "SIZE many", "PIPELINING"])
async def test_a_relay_without_a_limit_takes_all(peer: SmtpPeer, offered: str) -> None:
    peer.say("EHLO", f"250-peer\r\n250 {offered}")
    async with bare_relay(peer.url) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
    size = f" SIZE={len(MAIL)}" if "SIZE" in offered else ""
    assert peer.commands[1] == f"MAIL FROM:<{SENDER}>{size}"


# --- signing in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", ["AUTH LOGIN PLAIN", "AUTH=PLAIN LOGIN"])
@pytest.mark.parametrize("reply", ["535 5.7.8 wrong", "454 4.7.0 later", "504 5.5.4 not PLAIN after all"])
async def test_a_password_is_tried_once(peer: SmtpPeer, offered: str, reply: str) -> None:
    peer.say("EHLO", f"250-peer\r\n250 {offered}")
    peer.say("AUTH", reply)
    async with bare_relay(peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")) as relay:
        with pytest.raises(AccountFailure, match=reply[:3]):
            await relay.deliver(SENDER, ADDRESS, MAIL)
        await asyncio.wait_for(peer.ended.wait(), 5)
    assert peer.commands == ["EHLO client.example", "AUTH PLAIN AG1lAHNlY3JldA=="]


async def test_signing_in_with_login_where_there_is_nothing_else(peer: SmtpPeer) -> None:
    peer.say("EHLO", "250-peer\r\n250 AUTH LOGIN XOAUTH2")
    peer.say("AUTH", "334 VXNlcm5hbWU6")
    peer.say("BWU=", "334 UGFzc3dvcmQ6")
    peer.say("C2VJCMV0", "235 2.7.0 welcome")
    async with bare_relay(peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")) as relay:
        await relay.deliver(SENDER, ADDRESS, MAIL)
    assert peer.commands[1:4] == ["AUTH LOGIN", "bWU=", "c2VjcmV0"]
    assert peer.mails == [MAIL]


@pytest.mark.parametrize("offered", ["SIZE", "AUTH XOAUTH2 CRAM-MD5"])
async def test_no_way_to_sign_in(peer: SmtpPeer, offered: str) -> None:
    peer.say("EHLO", f"250-peer\r\n250 {offered}")
    async with bare_relay(peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")) as relay:
        with pytest.raises(AccountFailure, match="neither PLAIN nor LOGIN"):
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert peer.verbs() == ["EHLO"]


async def test_a_relay_that_quotes_how_we_sign_in_does_not_pass_it_on(peer: SmtpPeer) -> None:
    peer.say("EHLO", "250-peer\r\n250 AUTH PLAIN")
    peer.say("AUTH", "500 5.5.1 unknown: AUTH PLAIN AG1lAHNlY3JldA== (user me, secret c2VjcmV0)")
    async with bare_relay(peer.url.replace("127.0.0.1", "me:secret@127.0.0.1")) as relay:
        with pytest.raises(AccountFailure) as caught:
            await relay.deliver(SENDER, ADDRESS, MAIL)
    assert "500 5.5.1 unknown" in caught.value.reason
    for secret in ("AG1l", "c2Vj", "secret"):
        assert secret not in caught.value.reason


async def test_looking_asks_for_nothing_and_leaves(peer: SmtpPeer) -> None:
    async with bare_relay(peer.url) as relay:
        assert await relay.look() == 36700160
        peer.say("NOOP", "421 4.3.2 no")
        with pytest.raises(AccountFailure, match="421"):
            await relay.look()
        peer.say("GREETING", "554 5.7.1 blocked")
        with pytest.raises(TransientFailure, match="554"):
            await relay.look()
        assert (peer.connections, peer.verbs()) == (3, ["EHLO", "NOOP", "QUIT"] * 2)
