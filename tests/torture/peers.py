"""The other ways to a customer in the torture: five SMS providers and an ERP that misbehave, and all their reports."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx

from service.delivery import Clock, Delivery, Fate, Outcome, Report, Send, Settled, Store, StoreUnavailable
from service.simulator.demo import sms_settings
from service.simulator.mail import Mail
from service.simulator.sms import SmsServer, Text, open_sms_server
from service.simulator.sms_wire import KINDS, Call, Login
from tests.promises import Witness
from tests.servers import Reply, Seen, serve

SECRET = "a-secret-of-the-reports"
SMS = tuple(f"sms-{kind}" for kind in KINDS)
CHANNELS = ",".join(("email", *SMS, "http"))
_CONSUMERS = """
[[rule]]
name = "consumers by {channel}"
product = "b2c"
max_amount = {max_amount}
channels = ["{channel}", "email", "http"]
"""
_UP_TO = (600_000, 900_000, 1_400_000, 3_400_000, 100_000_000)  # minor units: each provider gets about a fifth of them
_BUSINESSES = """
[[rule]]
name = "small ones, with a copy for the books"
product = "b2b"
max_amount = 400000
channels = ["email", "sms-link", "http"]
courtesy = ["http"]
"""
ROUTES = _BUSINESSES + "".join(
    _CONSUMERS.format(channel=channel, max_amount=amount) for channel, amount in zip(SMS, _UP_TO, strict=True)
)
SMS_FAULTS = (
    *("sms-503", "sms-500", "sms-500-taken", "sms-502", "sms-504", "sms-lost", "sms-lost", "sms-lost-before"),
    *("sms-401", "sms-bad-number", "sms-400"),
)
ERP_FAULTS = ("500", "500, taken", "broken", "broken, taken", "503", "400", "401", "409, and it has it not")
_BOUNCES, _CONFIRMED = 0.07, 0.2  # of the mails
_NOT_TAKEN_AFTER = 60.0
_OURS, _LATER = 400, 500


@dataclass(slots=True, kw_only=True)
class Erp:
    """An endpoint that takes each key once, and notes what it took."""

    witness: Witness
    bodies: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)  # what must never come
    again: int = 0

    async def handle(self, request: Seen) -> Reply:
        if request.method == "OPTIONS":
            return Reply(status=204)
        key, fault = request.headers.get("idempotency-key", ""), self.faults.pop() if self.faults else ""
        if not key or "delivery-signature" not in request.headers:
            self.odd.append(f"no key, or no signature: {request.headers}")
        if fault == "409, and it has it not" and key not in self.bodies:
            fault = "503"
        if not fault or fault.endswith("taken"):
            return self._take(key, request.body, fault)
        if fault == "broken":
            return Reply(cut=0)
        status = int(fault[:3])
        return Reply(status=status, headers={"retry-after": "1"} if status == 503 else {})

    def _take(self, key: str, body: bytes, fault: str) -> Reply:
        known = self.bodies.get(key)
        if known is None:
            self.bodies[key] = body
            self.witness.took(key)
        elif known != body:
            self.odd.append(f"two contents under {key}: {json.loads(known)} and {json.loads(body)}")
        if fault:
            return Reply(cut=0) if fault.startswith("broken") else Reply(status=500)
        self.again += known is not None
        return Reply(status=201 if known is None else 409)


@dataclass(slots=True, kw_only=True)
class Peers:
    """The SMS providers, the ERP, and the reports on their way: late, twice and out of order."""

    sms: SmsServer
    erp: Erp
    random: Random
    witness: Witness
    url: str  # the service's own
    reports: Counter[str] = field(default_factory=Counter)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def settings(self, folder: Path, erp_url: str) -> dict[str, str]:
        routes = folder / "routes.toml"
        routes.write_text(ROUTES, encoding="utf-8")
        return {
            "DELIVERY_CHANNELS": CHANNELS,
            "DELIVERY_ROUTES_FILE": str(routes),
            "DELIVERY_FALLBACK_AFTER": "12",
            "DELIVERY_LINK_KEY": "0f" * 32,
            "DELIVERY_RECEIPTS_EMAIL": "generic",
            "DELIVERY_RECEIPTS_EMAIL_SECRET": SECRET,
            "DELIVERY_HTTP_URL": f"{erp_url}/invoices",
            "DELIVERY_HTTP_SECRETS": "a-secret-that-signs",
            "DELIVERY_HTTP_ALLOW_PRIVATE": "true",
        } | sms_settings(self.sms)

    def mail(self, mail: Mail) -> None:
        """Note a mail that the relay took; some bounce later, some are confirmed."""
        self.witness.mail(mail)
        drawn = self.random.random()
        kind = "bounced" if drawn < _BOUNCES else "delivered" if drawn < _BOUNCES + _CONFIRMED else None
        if kind is None:
            return
        message_id = str(message_from_bytes(mail.content)["Message-ID"])
        event = {"event_type": kind, "message_id": message_id, "event_id": f"{kind} {len(self.witness.seen)}"}
        url = f"{self.url}/receipts/email?secret={SECRET}"
        headers = {"content-type": "application/json"}
        self._send(kind, [Call(url=url, headers=headers, body=json.dumps(event).encode())])

    def text(self, text: Text) -> None:
        """Note a text that was taken; of most of them it is told what became of it."""
        self.witness.took(key_of(text))
        drawn = self.random.random()
        if drawn < 0.1:
            return
        fate = "delivered" if drawn < 0.85 else "failed"
        self._send(f"text {fate}", [self.sms.call(text, "pending"), self.sms.call(text, fate)])  # type: ignore[arg-type]

    def _send(self, name: str, calls: list[Call]) -> None:
        several = [call for call in calls for _ in range(self.random.choice((1, 1, 2)))]
        self.random.shuffle(several)
        for call in several:
            self._start(self._post(name, call, self.random.choice((0.0, 0.2, 1.0, 4.0, 15.0)) * self.random.random()))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, name: str, call: Call, after: float) -> None:
        """Tell it until it is taken: 200 says that it is in the record."""
        await asyncio.sleep(after)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            while True:
                with suppress(httpx.HTTPError):
                    answer = await client.post(call.url, content=call.body, headers=dict(call.headers))
                    assert not _OURS <= answer.status_code < _LATER, f"a report was refused: {answer.status_code}"
                    if answer.is_success:
                        self.reports[name] += 1
                        return
                await asyncio.sleep(0.5)

    def bend(self, random: Random) -> None:
        """Have some of the next texts or posts go wrong."""
        if random.random() < 0.5:
            self.sms.on(random.choice(SMS_FAULTS), count=random.randint(1, 4))
        else:
            self.erp.faults += [random.choice(ERP_FAULTS)] * random.randint(1, 4)

    def mend(self) -> None:
        self.sms.clear()
        self.erp.faults.clear()

    async def told(self) -> None:
        """Return when every report has come."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def find_out(self, store: Store, account_id: str, deliveries: tuple[Delivery, ...], clock: Clock) -> None:
        """Tell of texts in doubt that hours would be waited for what the provider knows, if only that it has it not."""
        taken = {key_of(text) for text in self.sms.inbox}
        for delivery in deliveries:
            late = delivery.due_at and (delivery.due_at - clock.now()).total_seconds() > _NOT_TAKEN_AFTER
            if delivery.outcome is not Outcome.OPEN or not late:
                continue
            for send in await store.sends(delivery.id):
                if send.channel in SMS and send.outcome is Settled.UNCONFIRMED:
                    await self._find_out(store, account_id, send, Fate.DELIVERED if send.key in taken else Fate.FAILED)

    async def _find_out(self, store: Store, account_id: str, send: Send, fate: Fate) -> None:
        report = Report(channel=send.channel, event_id=f"found out {send.id}", reference=send.key, fate=fate)
        with suppress(StoreUnavailable):
            await store.report(account_id, report)
            self.reports[f"found out {fate}"] += 1

    def judge(self, sends: list[Send]) -> None:
        """Raise `AssertionError` for what a peer has and the record does not know, or that it must never have got."""
        assert not self.erp.odd, self.erp.odd[0]
        known = {(send.channel, send.key) for send in sends}
        assert {("http", key) for key in self.erp.bodies} <= known, "posted, and not in the record"
        texted = {(f"sms-{text.kind}", key_of(text)) for text in self.sms.inbox}
        assert texted <= known, "texted, and not in the record"

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def key_of(text: Text) -> str:
    """Return the intent's key: the text's reference, or in the address that its reports go to."""
    if text.asked.reference is not None:
        return text.asked.reference
    (key,) = parse_qs(urlsplit(text.asked.callback or "").query)["intent"]
    return key


@asynccontextmanager
async def open_peers(witness: Witness, url: str, random: Random, clock: Clock) -> AsyncIterator[tuple[Peers, str]]:
    """Open both, and yield them with the ERP's address."""
    erp = Erp(witness=witness)
    login = Login(password=SECRET, signing=SECRET, gate_url=f"{url}/receipts/sms-link?secret={SECRET}")
    server = SmsServer(clock=clock, login=login)
    async with AsyncExitStack() as stack:
        sms = await stack.enter_async_context(open_sms_server(server))
        posts = await stack.enter_async_context(serve(erp.handle))
        peers = Peers(sms=sms, erp=erp, random=random, witness=witness, url=url)
        sms.arrived = peers.text
        stack.callback(peers.close)
        yield peers, posts.url
