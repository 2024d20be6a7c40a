"""What every channel is tried for; each test opens a peer and the adapter of its own."""

import asyncio
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest

from service.channels.conformance.cancelling import cancelled_at
from service.channels.conformance.peer import REDIRECT_EMAIL, REDIRECT_PHONE, Peer, Plays
from service.channels.shape import mistakes_of
from service.delivery import (
    AccountFailure,
    CallbackRefused,
    Channel,
    Composed,
    DeliveryFailure,
    Fate,
    Guarantee,
    Intent,
    Line,
    Message,
    Party,
    PermanentFailure,
    Purpose,
    Receipt,
    Report,
    Reporting,
    ReportRequest,
    Standing,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
LINK = "https://shop.example/i/abcdefghijklmnopqrstuv"
PDF = b"%PDF-1.7\n%conformance\n%%EOF\n"
INTENT = Intent(key="0123456789abcdef0123456789abcdef", dated=AT, purpose=Purpose.FIRST)
BUYER = Party(
    first_name="Kari",
    last_name="Nordmann",
    business_name="Nordmann Sykkel AS",
    email="kari.nordmann@nordmann.example",
    phone_number="+4791234567",
    country="NO",
)
TRANSACTION = Transaction(
    id="T12345678.conformance",
    standing=Standing.AUTHORIZED,
    status="AUTHORIZED",
    product="kravia",
    product_type="kravia.invoice_b2b",
    amount=125000,
    currency="NOK",
    read_at=AT,
    merchant_reference="order-98765",
    invoice_number="A1B2C-000042",
    invoice_date=date(2026, 11, 2),
    due_date=date(2026, 11, 16),
    payment_reference="00000000000427",
    billing=BUYER,
    customer=BUYER,
    lines=(Line(line_id="1", amount=125000),),
)
PERSONAL: Final = ("nordmann", "91234567", "A1B2C-000042", "00000000000427", "order-98765", "abcdefghijklmnopqrstuv")
"""What the sample holds of a person or a purchase, as no error may repeat it (in lower case, or as it is)."""
LONGEST_TEST = 120.0
"""Seconds after which a test gives the adapter up: it waits for what the service is there to wait for."""
_MOST_WAITS = 300
_LONGEST_WAIT = 86400.0  # a day; more is no number of seconds
_TIME_AND_CHANCE: Final = (
    *(datetime.now, datetime.utcnow, date.today, time.time, time.time_ns, time.monotonic, time.localtime, time.gmtime),
    *(os.urandom, random.random, random.getrandbits, secrets.randbits),
)
_IMPORTED_ALONE = """
import importlib, os, sys, threading

class Environment(dict):
    def __missing__(self, key):
        raise KeyError(key)
    def get(self, key, default=None):
        refuse_setting(key)
        return super().get(key, default)
    def __getitem__(self, key):
        refuse_setting(key)
        return super().__getitem__(key)

def refuse_setting(key):
    if str(key).startswith("DELIVERY_"):
        raise SystemExit(f"it reads the setting {key} when it is imported")

def watch(event, given):
    doing = {"socket.connect": "opens a connection", "socket.getaddrinfo": "looks an address up",
             "socket.bind": "listens", "subprocess.Popen": "starts a process", "os.system": "starts a process",
             "_thread.start_new_thread": "starts a thread"}
    if event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+"):
        raise SystemExit("it writes a file when it is imported")
    if event in doing:
        raise SystemExit(f"it {doing[event]} when it is imported")

def no_thread(*given):
    raise SystemExit("it starts a thread when it is imported")

os.environ = Environment(os.environ)
threading._start_new_thread = no_thread  # before Python 3.12 no event tells of it
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stand:
    """An adapter, open, and who is on its other side."""

    channel: Channel
    peer: Peer

    def composed(self, intent: Intent = INTENT, *, documented: bool = True) -> Composed:
        """Return the sample as the service would have it composed: with the document, a link, or neither."""
        channel = self.channel
        linked = channel.largest_document is not None and channel.largest_document < len(PDF)
        words = f"Faktura A1B2C-000042 fra Nordlys AS: kr 1 250,00.{f' {LINK}' if linked else ''}"
        message = Message(
            locale="nb",
            subject="Faktura A1B2C-000042 fra Nordlys AS" if channel.template else "",
            text=words if channel.template else "",
            html=f"<p>{words}</p>" if channel.template == "mail" else None,
            document_name="Faktura-A1B2C-000042.pdf",
            link=LINK if linked and documented else None,
            about=TRANSACTION,
        )
        document = None if linked or not documented else PDF
        return channel.compose(message, document, channel.recipient(TRANSACTION), intent)

    async def sends(self, key: str) -> Receipt:
        """Send the sample as an intent of its own to a peer that takes it."""
        receipt = await self.channel.send(self.composed(replace(INTENT, key=key)))
        named = type(receipt).__name__
        assert isinstance(receipt, Receipt), f"`send` returned {named}: return a service.delivery.Receipt, or raise"
        return receipt

    async def failure(self, plays: Plays) -> DeliveryFailure:
        """Send against a peer that plays this; return what the adapter raised."""
        await self.peer.play(plays)
        try:
            receipt = await self.channel.send(self.composed())
        except DeliveryFailure as failure:
            self.keeps_quiet((failure.reason, repr(failure), str(failure)))
            return failure
        except Exception as exc:
            raise AssertionError(
                f"the peer {plays}: the adapter raised {type(exc).__name__}, which the service takes for a bug; "
                "turn it into one of service.delivery's failures (`raise … from exc`)"
            ) from exc
        raise AssertionError(f"the peer {plays}: the adapter returned {type(receipt).__name__}, as if it were accepted")

    def keeps_quiet(self, words: Iterable[str | None]) -> None:
        """Check that words for the log name nobody, and no secret."""
        for word in words:
            said = [name for name in PERSONAL if name.lower() in (word or "").lower()]
            assert not said, f"an error or answer names what is personal: {said}"
            assert not any(secret in (word or "") for secret in self.peer.secrets), "an error or answer names a secret"


class Conformance:
    """Inherit it in a test file, name the adapter as CHANNELS does, and play its other side."""

    factory: str
    """`package.module:factory`"""

    def open_peer(self) -> AbstractAsyncContextManager[Peer]:
        """Open the other side; called anew for each test."""
        raise NotImplementedError("say who is on the other side: `open_http_peer` does for what speaks HTTP")

    # --- what it is

    def test_it_is_a_channel(self) -> None:
        """It has all that the service asks of a channel."""

        async def attempt(stand: _Stand) -> None:
            mistakes = mistakes_of(stand.channel)
            assert not mistakes, "\n".join(mistakes)

        self._run(attempt)

    def test_importing_it_does_nothing(self) -> None:
        """Nothing is opened, started or read before the factory is called."""
        command = [sys.executable, "-B", "-c", _IMPORTED_ALONE, self.factory.partition(":")[0]]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603  # ourselves
        assert done.returncode == 0, done.stderr

    def test_a_repeat_is_the_same_to_the_last_byte(self) -> None:
        """`compose` is a pure function, and another intent makes another message."""

        async def attempt(stand: _Stand) -> None:
            with _observed() as taken:
                first, again = stand.composed(), stand.composed()
            assert not taken, (
                f"`compose` asks for {', '.join(sorted(taken))}, and a repeat must be the same to the last byte: take "
                "times from `intent.dated`, and what must be unique from `intent.key`"
            )
            assert first == again, "the same intent must give the same bytes: take no time and no chance of your own"
            other = stand.composed(replace(INTENT, key="f" * 32))
            assert other.message_id != first.message_id, "message_id must come of the intent's key"
            if stand.channel.template:  # a notice, or word of a cancellation, has neither document nor link
                bare = stand.composed(replace(INTENT, purpose=Purpose.NOTICE), documented=False)
                assert isinstance(bare, Composed), "`compose` must do without a document: of a notice there is none"

        self._run(attempt)

    def test_whom_it_cannot_reach_it_says(self) -> None:
        """A transaction without anybody is refused for good, and what the record may know names nobody."""

        async def attempt(stand: _Stand) -> None:
            known = stand.channel.recipient(TRANSACTION)
            stand.keeps_quiet([known.masked.replace("nordmann.example", ""), known.key])
            nobody = replace(TRANSACTION, billing=None, customer=None)
            try:
                found = stand.channel.recipient(nobody)
            except PermanentFailure:
                return
            assert found == stand.channel.recipient(TRANSACTION), "nobody is there to reach: raise PermanentFailure"

        self._run(attempt)

    def test_what_is_redirected_reaches_no_customer(self) -> None:
        """With REDIRECT_TO every message goes there; what sends data is told that it is a test, and goes on."""

        async def attempt(stand: _Stand) -> None:
            async with stand.peer.open_channel(redirected=True) as channel:
                found = channel.recipient(TRANSACTION)
                assert not channel.template or found.address in (REDIRECT_EMAIL, REDIRECT_PHONE), (
                    "with DELIVERY_REDIRECT_TO it writes to a customer all the same: send to "
                    "`context.redirect_email` or `context.redirect_phone`"
                )
                assert not channel.template or found.redirected_from, "say in `redirected_from` for whom it was, masked"
                stand.keeps_quiet([(found.redirected_from or "").replace("nordmann.example", "")])

        self._run(attempt)

    # --- what each answer means

    def test_accepted(self) -> None:
        """One message is taken, and the receipt names nobody."""

        async def attempt(stand: _Stand) -> None:
            receipt = await stand.sends(INTENT.key)
            stand.keeps_quiet([receipt.answer])
            assert stand.peer.taken() == 1, f"one message was sent, and {stand.peer.taken()} came"

        self._run(attempt)

    def test_refused_for_now(self) -> None:
        """`TransientFailure`, and the delivery's schedule goes on."""
        self._fails(Plays.REFUSES_FOR_NOW, TransientFailure, but=AccountFailure)

    def test_throttled(self) -> None:
        """`TransientFailure`; a wait that is named is in seconds."""
        failure = self._fails(Plays.THROTTLES, TransientFailure, but=AccountFailure)
        assert isinstance(failure, TransientFailure)
        wait = failure.retry_after
        seconds = wait is None or (isinstance(wait, int | float) and 0 < wait <= _LONGEST_WAIT)
        assert seconds, f"`retry_after` is a number of seconds to wait, and not {wait!r}"

    def test_refused_for_good(self) -> None:
        """`PermanentFailure`, and the next channel has its turn."""
        self._fails(Plays.REFUSES_FOR_GOOD, PermanentFailure)

    def test_our_account_at_fault(self) -> None:
        """`AccountFailure`: the channel pauses, and no delivery loses its patience."""
        self._fails(Plays.ACCOUNT_AT_FAULT, AccountFailure)

    def test_nobody_there(self) -> None:
        """Nothing was handed over, so it is not in doubt, and not for good."""
        self._fails(Plays.ABSENT, TransientFailure, mends=False)

    def test_the_answer_is_lost(self) -> None:
        """`UnconfirmedFailure`: it may have been taken, and here it was."""
        self._fails(Plays.LOSES_THE_ANSWER, UnconfirmedFailure, taken=1)

    def test_the_answer_says_neither_yes_nor_no(self) -> None:
        """`UnconfirmedFailure`: what broke inside, or behind a proxy, may have been taken before."""
        self._fails(Plays.GARBLES_THE_ANSWER, UnconfirmedFailure, taken=None)

    # --- when it is interrupted, repeated, reported

    def test_cancelled_at_every_await(self) -> None:
        """A send that is cancelled ends as cancelled, wherever it waits, and the next one is as good as any."""

        async def attempt(stand: _Stand) -> None:
            for nth in range(1, _MOST_WAITS):
                intent = replace(INTENT, key=f"{nth:032x}")
                receipt = await cancelled_at(stand.channel.send(stand.composed(intent)), nth)
                await self._is_sound(stand, nth)
                if receipt is not None:  # it waits less often than that: each await has had its turn
                    assert nth > 1, "it never waits for anything"
                    return
            raise AssertionError(f"it waits more than {_MOST_WAITS} times for one message")

        self._run(attempt)

    async def _is_sound(self, stand: _Stand, nth: int) -> None:
        """Check that what follows a cancelled send gets its own answer, whichever that is."""
        mixed = (
            f"cancelled at its await {nth}, it takes an answer for the next message's: close a connection on which an "
            "answer may still come"
        )
        await stand.peer.play(Plays.REFUSES_FOR_GOOD)
        try:
            await stand.sends(f"{nth + _MOST_WAITS:032x}")
        except PermanentFailure:
            pass  # as it should be
        else:
            raise AssertionError(mixed)
        await stand.peer.play(Plays.ACCEPTS)
        before = stand.peer.taken()
        try:
            await stand.sends(f"{nth + 2 * _MOST_WAITS:032x}")
        except PermanentFailure as exc:
            raise AssertionError(mixed) from exc
        # One that was cancelled may arrive even now.
        assert stand.peer.taken() > before, f"cancelled at its await {nth}, it does not send any more"

    def test_the_guarantee(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Repeated after a lost answer: what it claims of that must hold. Prints what it has earned."""

        async def attempt(stand: _Stand) -> tuple[str, Guarantee, bool, bool]:
            await stand.peer.play(Plays.LOSES_THE_ANSWER)
            with pytest.raises(UnconfirmedFailure):
                await stand.channel.send(stand.composed())
            await stand.peer.play(Plays.ACCEPTS)
            await stand.channel.send(stand.composed())
            channel, once = stand.channel, stand.peer.taken() == 1
            if channel.reports:
                await self._reads_reports(stand)
            return channel.name, channel.guarantee, once, channel.reports

        name, claimed, once, reports = self._run(attempt)
        words = earned_words(name, claimed, once=once, reports=reports)
        with capsys.disabled():
            print(f"\n{words}")  # noqa: T201  # what the suite is run for
        assert once or claimed is not Guarantee.IDEMPOTENT, (
            "it claims to be idempotent, and the peer took the message twice: give it the intent's key, or claim less"
        )

    def test_reports_in_any_order(self) -> None:
        """Each report is of its message, and the same however often and late it comes; what is forged is refused."""

        async def attempt(stand: _Stand) -> None:
            if stand.channel.reports:
                await self._reads_reports(stand)
            else:
                assert not hasattr(stand.channel, "read_reports"), "it reads reports: say `reports = True`"

        self._run(attempt)

    async def _reads_reports(self, stand: _Stand) -> None:
        channel, composed = stand.channel, stand.composed(replace(INTENT, key="d" * 32))
        receipt = await channel.send(composed)
        now = datetime.now(UTC)
        asked = [
            stand.peer.report(composed, receipt, Fate.FAILED, now),
            stand.peer.report(composed, receipt, Fate.DELIVERED, now - timedelta(seconds=60)),
        ]
        told = [await _read(channel, request, now) for request in (*asked, *asked)]
        assert told[:2] == told[2:], "the same report must read the same: its event_id makes it count once"
        fates = [str(one.fate) for one in told[:2]]
        assert fates == [Fate.FAILED, Fate.DELIVERED], (
            f"`failed` was reported, then `delivered` of a minute before, and it read {' and '.join(fates)}: say what "
            "each report says, and leave it to the service which of them counts"
        )
        assert told[0].event_id != told[1].event_id, "different reports need different event_ids"
        later, earlier = (one.at for one in told[:2])
        in_order = later is None or earlier is None or later > earlier
        assert in_order, "`at` must be the time in the report (or None), and not when it came"
        known = {receipt.remote_id, composed.message_id, "d" * 32}
        for one in told:
            assert one.channel == channel.name, "`Report.channel` must be the channel's own name"
            assert one.reference in known, "`reference` must be the remote_id, the message_id or the intent's key"
            stand.keeps_quiet([one.detail])
        for forged in _forged(asked[0]):
            await _refuses(channel, forged, now)

    def test_a_check_sends_nothing(self) -> None:
        """`check` says in a line what it found, and nobody gets a message."""

        async def attempt(stand: _Stand) -> None:
            found = await stand.channel.check()
            is_line = isinstance(found, str) and found.strip() and "\n" not in found
            assert is_line, "`check` returns a line of words on what it found"
            stand.keeps_quiet([found])
            assert stand.peer.taken() == 0, "`check` sent a message: try the settings without"

        self._run(attempt)

    # --- how

    def _fails(
        self,
        plays: Plays,
        kind: type[DeliveryFailure],
        *,
        but: type[DeliveryFailure] | None = None,
        taken: int | None = 0,
        mends: bool = True,
    ) -> DeliveryFailure:
        async def attempt(stand: _Stand) -> DeliveryFailure:
            failure = await stand.failure(plays)
            named = type(failure).__name__
            assert isinstance(failure, kind), f"the peer {plays}: raise {kind.__name__}, not {named}"
            assert but is None or not isinstance(failure, but), f"the peer {plays}: that is no {named}"
            came = stand.peer.taken()
            assert taken is None or came == taken, (
                f"the peer {plays}: one `send` made {came} messages: send once, and leave repeats to the service"
            )
            if mends:
                await stand.peer.play(Plays.ACCEPTS)
                await stand.sends("e" * 32)
                assert stand.peer.taken() == came + 1, f"the peer {plays}, and then the next message does not come"
            return failure

        found: DeliveryFailure = self._run(attempt)
        return found

    def _run(self, attempt: Callable[[_Stand], Coroutine[Any, Any, Any]]) -> Any:
        async def run() -> object:
            try:
                async with asyncio.timeout(LONGEST_TEST) as limit, _stand(self.open_peer()) as stand:
                    return await attempt(stand)
            except TimeoutError as exc:
                if not limit.expired():
                    raise
                raise AssertionError(
                    f"not done after {LONGEST_TEST:.0f} s: wait for an answer only, and leave delays to the service"
                ) from exc

        return asyncio.run(run())


def earned_words(name: str, claimed: Guarantee, *, once: bool, reports: bool) -> str:
    """Say what a channel has earned whose repeat was taken `once`, or twice."""
    fallback = Guarantee.AT_LEAST_ONCE if claimed is Guarantee.IDEMPOTENT else claimed
    earned = Guarantee.IDEMPOTENT if once else fallback
    words = f"{name}: earned {earned.replace('_', ' ')}, {'with' if reports else 'without'} receipts"
    return words if earned is claimed else f"{words} (it claims {claimed.replace('_', ' ')})"


@asynccontextmanager
async def _stand(opening: AbstractAsyncContextManager[Peer]) -> AsyncIterator[_Stand]:
    async with opening as peer, peer.open_channel() as channel:
        yield _Stand(channel=channel, peer=peer)


async def _read(channel: Channel, request: ReportRequest, now: datetime) -> Report:
    reporting: Reporting = channel  # type: ignore[assignment]  # `reports` says so, and shape.py has looked
    (report,) = await reporting.read_reports(request, now=now)
    return report


async def _refuses(channel: Channel, request: ReportRequest, now: datetime) -> None:
    try:
        told = await _read(channel, request, now)
    except CallbackRefused:
        return
    except Exception as exc:
        words = f"a report that proves nothing makes it raise {type(exc).__name__}: raise Forged, Stale or Unusable"
        raise AssertionError(words) from exc
    raise AssertionError(f"it believes a report of `{told.fate}` that proves nothing: verify it, and raise Forged")


@contextmanager
def _observed() -> Iterator[set[str]]:
    """Collect the names of clocks and sources of chance that are asked meanwhile."""
    found: set[str] = set()

    def look(_frame: object, event: str, what: object) -> None:
        if event == "c_call" and any(what == one for one in _TIME_AND_CHANCE):
            found.add(str(getattr(what, "__name__", what)))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _forged(request: ReportRequest) -> list[ReportRequest]:
    """Return the report as somebody would send it who does not know the secret: without what proves it, or guessed."""
    plain = tuple((name, text) for name, text in request.headers if name in ("content-type", "host"))
    bare = replace(request, headers=plain, url=request.url.partition("?")[0])
    guessed = [(name, text if (name, text) in plain else "0" * len(text)) for name, text in request.headers]
    return [
        bare,
        replace(bare, headers=(*plain, ("authorization", "Basic Zm9yZ2VkOmZvcmdlZA=="))),
        replace(bare, headers=tuple(guessed)),
        replace(bare, url=f"{bare.url}?secret=guessed", body=b"\xff no report"),
    ]
