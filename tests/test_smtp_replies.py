"""The table of what relays say: each row, and which of two that fit comes first."""

from itertools import product

import pytest

from service.channels.smtp_replies import Phase, classify, parse_wait
from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    MessageTooLarge,
    PermanentFailure,
    RecipientRefused,
    SendingBlocked,
    TransientFailure,
    UnconfirmedFailure,
)

P = Phase
# In the relays' own words; channels.md 1.5, RFC 3463, 4954, 5248, 7372, and what Postfix, Google and Microsoft say.
SAID: list[tuple[Phase, str, type[DeliveryFailure]]] = [
    # the recipient
    (P.RCPT, "550 5.1.1 <a@b>: Recipient address rejected: User unknown in virtual mailbox table", RecipientRefused),
    (P.RCPT, "550 5.1.2 bad domain", RecipientRefused),
    (P.RCPT, "501 5.1.3 Bad recipient address syntax", RecipientRefused),
    (P.RCPT, "550 5.1.6 moved", RecipientRefused),
    (P.RCPT, "556 5.1.10 null MX", RecipientRefused),
    (P.RCPT, "550 5.1.0 Address rejected.", RecipientRefused),
    (P.RCPT, "550 #5.1.0 Address rejected.", RecipientRefused),
    (P.RCPT, "550 5.4.1 Recipient address rejected: Access denied.", RecipientRefused),
    (P.RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable", RecipientRefused),
    (P.RCPT, "550 no such user here", RecipientRefused),
    (P.RCPT, "551 User not local", RecipientRefused),
    (P.RCPT, "553 mailbox name not allowed here?", SendingBlocked),
    (P.RCPT, "553 sorry, no mailbox by that name", RecipientRefused),
    (P.CONTENT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound", RecipientRefused),
    (P.RCPT, "550 User unknown in relay recipient table", RecipientRefused),
    (P.RCPT, "550 5.7.1 <a@b>: Recipient address rejected: User unknown", RecipientRefused),
    (P.RCPT, "554 no such user", RecipientRefused),
    (P.RCPT, "554 5.0.0 The mailbox does not exist, by local policy", RecipientRefused),
    (P.RCPT, "550 relay.example: mailbox unavailable", RecipientRefused),
    (P.RCPT, "501 bad address syntax", RecipientRefused),
    # this mail
    (P.MAIL, "552 5.3.4 Message size exceeds fixed limit", MessageTooLarge),
    (P.CONTENT, "552 5.3.4 Error: message file too big", MessageTooLarge),
    (P.CONTENT, "552 message exceeds maximum size", MessageTooLarge),
    (P.CONTENT, "550 5.2.3 message too long for the mailbox", MessageTooLarge),
    (P.DATA, "552 message exceeds maximum size", MessageTooLarge),
    (P.MAIL, "552 message exceeds maximum size", MessageTooLarge),
    (P.RCPT, "552 5.3.4 Message size exceeds fixed limit", MessageTooLarge),
    (P.RCPT, "552 5.2.2 Mailbox full", PermanentFailure),
    (P.RCPT, "552 mailbox full", PermanentFailure),
    (P.RCPT, "550 5.2.1 The email account is disabled", PermanentFailure),
    (P.CONTENT, "550 5.6.0 malformed", PermanentFailure),
    (P.DATA, "554 5.5.1 Error: no valid recipients", PermanentFailure),
    (P.CONTENT, "554 5.4.6 too many hops", PermanentFailure),
    (P.CONTENT, "550 no", PermanentFailure),
    # for now
    (P.RCPT, "450 4.7.1 Recipient address rejected: Greylisted for 300 seconds", TransientFailure),
    (P.RCPT, "451 4.7.1 Greylisting in action, please come back in 00:04:59", TransientFailure),
    (P.RCPT, "450 4.2.0 Recipient address rejected: Greylisted, see http://postgrey.example/spam", TransientFailure),
    (P.RCPT, "450 4.7.1 temporarily blocked, try again later", TransientFailure),
    (P.RCPT, "450 4.2.1 The user is receiving mail too quickly", TransientFailure),
    (P.RCPT, "452 4.2.2 mailbox full", TransientFailure),
    (P.MAIL, "432 4.3.2 Concurrent connections limit exceeded", TransientFailure),
    (P.MAIL, "452 4.3.1 Insufficient system storage", TransientFailure),
    (P.CONTENT, "421 4.3.2 shutting down", TransientFailure),
    (P.CONTENT, "421", TransientFailure),
    (P.FURTHER, "421 4.3.2 too many connections", TransientFailure),
    (P.RCPT, "503 bad sequence of commands", TransientFailure),
    (P.RCPT, "503 5.5.1 MAIL first", TransientFailure),
    (P.RCPT, "501 5.5.4 Syntax: RCPT TO:<address>", TransientFailure),
    (P.DATA, "503 5.5.1 Error: need RCPT command", TransientFailure),
    *((P.DATA, f"{code} what", TransientFailure) for code in range(500, 505)),
    # our account
    (P.AUTH, "535 5.7.8 Error: authentication failed", AccountFailure),
    (P.AUTH, "535 5.7.139 Authentication unsuccessful, basic is disabled", AccountFailure),
    (P.AUTH, "534-5.7.14 Please log in with your web browser and then try again", AccountFailure),
    (P.AUTH, "454 4.7.0 Temporary authentication failure", AccountFailure),
    (P.AUTH, "432 4.7.12 A password transition is needed", AccountFailure),
    (P.AUTH, "525 5.7.13 User Account Disabled", AccountFailure),
    (P.AUTH, "554 5.7.1 spam", AccountFailure),
    (P.MAIL, "530 5.7.57 Client not authenticated to send mail", AccountFailure),
    (P.MAIL, "530 Authentication required", AccountFailure),
    (P.RCPT, "530 5.7.0 Must issue a STARTTLS command first", AccountFailure),
    (P.MAIL, "538 5.7.11 Encryption required", AccountFailure),
    (P.CONTENT, "550 5.7.30 Basic authentication is not supported for Client Submission.", AccountFailure),
    (P.MAIL, "454 4.7.0 TLS not available", AccountFailure),
    (P.RCPT, "454 4.7.1 Relay access denied", TransientFailure),
    (P.MAIL, "553 5.7.1 Sender address rejected: not owned by user", AccountFailure),
    (P.RCPT, "553 5.7.1 <a@b>: Sender address rejected: not owned by user", AccountFailure),
    (P.MAIL, "501 5.1.7 Bad sender address syntax", AccountFailure),
    (P.RCPT, "550 5.1.8 <a@b>: Sender address rejected: Domain not found", AccountFailure),
    (P.CONTENT, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", AccountFailure),
    (P.CONTENT, "554 5.2.252 SendAsDenied; not allowed to send as", AccountFailure),
    (P.CONTENT, "550 5.4.5 Daily user sending limit exceeded.", AccountFailure),
    (P.RCPT, "550 5.1.90 you have reached your daily limit for message recipients", AccountFailure),
    (P.MAIL, "550 5.1.1 who are you", AccountFailure),
    (P.MAIL, "555 5.5.4 unsupported parameter", AccountFailure),
    (P.MAIL, "503 5.5.1 bad sequence", AccountFailure),
    (P.CONNECT, "421 4.3.2 too busy", AccountFailure),
    (P.CONNECT, "454 4.7.0 TLS not available due to local problem", AccountFailure),
    (P.CONNECT, "502 5.5.1 what is EHLO", AccountFailure),
    # our sending
    (P.CONNECT, "554 5.7.1 blocked", SendingBlocked),
    (P.CONNECT, "554 no SMTP service here", SendingBlocked),
    (P.CONNECT, "550 5.7.1 bad reputation", SendingBlocked),
    (P.CONNECT, "421 4.7.0 IP on blocklist", SendingBlocked),
    (P.FURTHER, "554 5.7.1 blocked", SendingBlocked),
    (P.MAIL, "554 5.7.1 no", SendingBlocked),
    (
        P.RCPT,
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.example",
        SendingBlocked,
    ),
    (P.RCPT, "554 5.7.1 <a@b>: Relay access denied", SendingBlocked),
    (P.RCPT, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", SendingBlocked),
    (P.RCPT, "550 Relaying denied", SendingBlocked),
    (P.RCPT, "550 relay not permitted", SendingBlocked),
    (P.RCPT, "551 we do not relay", SendingBlocked),
    (P.RCPT, "554 no such user as the sender", SendingBlocked),
    (P.RCPT, "550 no such user is known to send so much spam", SendingBlocked),
    (P.RCPT, "550 rejected: spam source", SendingBlocked),
    (P.DATA, "550 5.7.0 policy", SendingBlocked),
    (P.CONTENT, "554 5.7.1 spam", SendingBlocked),
    (P.CONTENT, "550 5.7.26 This mail is unauthenticated", SendingBlocked),
    (
        P.CONTENT,
        "552 5.7.0 This message was blocked because its content presents a potential security issue",
        SendingBlocked,
    ),
    (P.CONTENT, "550 5.7.705 Access denied, tenant has exceeded threshold", SendingBlocked),
    (P.CONTENT, "554 Message rejected: Email address is not verified", SendingBlocked),
    (P.CONTENT, "554 5.0.0 rejected", SendingBlocked),
    (P.CONTENT, "421 4.7.28 unusual rate of unsolicited mail from your IP", SendingBlocked),
    (P.MAIL, "451 4.7.650 The mail server has been temporarily rate limited due to IP reputation", SendingBlocked),
    (P.RCPT, "450 4.7.25 Client host rejected: cannot find your hostname", SendingBlocked),
    (P.RCPT, "450 4.7.1 Client host [192.0.2.1] blocked using bl.example", SendingBlocked),
    # nobody can tell
    (P.CONTENT, "354 what", UnconfirmedFailure),
    (P.CONTENT, "025 what", UnconfirmedFailure),
    (P.CONTENT, "650 what", UnconfirmedFailure),
    (P.RCPT, "354 what", TransientFailure),
]


@pytest.mark.parametrize(("phase", "said", "failure"), SAID)
def test_what_a_relay_says(phase: Phase, said: str, failure: type[DeliveryFailure]) -> None:
    code, text = said[:3], said[4:]
    assert type(classify(phase, int(code), text)) is failure


@pytest.mark.parametrize("phase", Phase)
def test_no_answer_is_in_doubt_only_after_the_content(phase: Phase) -> None:
    failure = classify(phase, None, "Connection lost")
    assert isinstance(failure, UnconfirmedFailure) == (phase is Phase.CONTENT)
    assert isinstance(failure, AccountFailure) == (phase in (Phase.CONNECT, Phase.FURTHER, Phase.AUTH))
    assert not isinstance(failure, PermanentFailure)
    assert failure.reason.endswith("Connection lost")


@pytest.mark.parametrize("phase", Phase)
def test_every_refusal_has_a_meaning(phase: Phase) -> None:
    """None of them is in doubt, for now stays for now, and what would meet the next mail too is not this mail's."""
    for code, text in product(range(400, 600), ("", "4.0.0 x", "5.0.0 x", "4.3.0 x", "5.3.0 x", "9.9.9 x")):
        failure = classify(phase, code, text)
        assert isinstance(failure, TransientFailure | PermanentFailure)
        if code < 500 or phase in (Phase.CONNECT, Phase.AUTH):
            assert isinstance(failure, TransientFailure)
        if phase is Phase.MAIL:
            assert isinstance(failure, TransientFailure | MessageTooLarge)


def test_a_words_of_an_address_say_nothing_about_us() -> None:
    failure = classify(Phase.RCPT, 550, "<spam@relay.example> unknown", ("spam@relay.example", "spam"))
    assert type(failure) is RecipientRefused


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.7.1 Greylisted, try again in 300 seconds", 300.0),
        ("4.7.1 Greylisted for 60 seconds", 60.0),
        ("please retry after 5 minutes", 300.0),
        ("try again in about 5 minutes", 300.0),
        ("come back in at least 20 s", 20.0),
        ("please come back in 00:04:59", 299.0),
        ("please come back in 01:00:00", 3600.0),
        ("try again in 1 hour", 3600.0),
        ("wait 90 s", 90.0),
        ("retry in 1s", 1.0),
        ("try again in 999999 hours", 86400.0),
        ("try again in 99:59:59", 86400.0),
        ("try again later", None),
        ("please try again, in 5 minutes", 300.0),
        ("in 5 mailboxes", None),
        ("try again at 00:04:59", None),
        ("try again after 14:05:00 UTC", None),
        ("Rate limit: 100 messages in 1 hour exceeded", None),
        ("Rate limit: 100 messages in 1 hour exceeded, try again later", None),
        ("try again later: 100 messages in 1 hour", None),
        ("try again later. Limits are for 24 hours", None),
    ],
)
def test_how_long_a_relay_asks_us_to_wait(text: str, seconds: float | None) -> None:
    """It is passed on as it is: how long we wait at the least is the schedule's business."""
    assert parse_wait(text) == seconds
    for phase, code in ((Phase.RCPT, 450), (Phase.AUTH, 454), (Phase.CONTENT, 554)):
        failure = classify(phase, code, text)
        assert isinstance(failure, TransientFailure)
        assert failure.retry_after == seconds
