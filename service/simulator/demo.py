"""`demo`: opens a provider, a mail server and the service on this machine, sells something, and tells what happens."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from secrets import token_hex, token_urlsafe
from typing import Any

from service.clock import MovableClock
from service.delivery import Clock
from service.serving import listen, origin, serving
from service.simulator.api import Running, open_provider
from service.simulator.bounces import ESP
from service.simulator.callbacks import Attempt
from service.simulator.collecting import CaptureSeen
from service.simulator.erp import ErpServer, open_erp
from service.simulator.faults import Faults
from service.simulator.keys import Account
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.pages import site
from service.simulator.sms import SmsServer, Text, open_sms_server
from service.simulator.sms_wire import Login
from service.simulator.stage import SHOP, Service, Stage, clock_time, number_of
from service.simulator.ways import PROVIDERS, WAYS, Way, routes_toml

_DEFAULT_PORT = 8080
_PORTS = 20  # tried from the default on, before any free one
_LOGO = Path(__file__).parent / "pages" / "logo.png"
_LOOK = 0.1  # seconds between looks at the record
_INVITATION = "\nOpen {url}/ to see mails, texts and the ERP, and to create more. Ctrl-C ends.\n"

OpenService = Callable[[Mapping[str, str], Clock], AbstractAsyncContextManager[Service]]
"""Opens the service with these settings, on the clock that everything in the demo shares."""

Echo = Callable[[str], None]


async def run_demo(
    *,
    port: int | None,
    host: str = "127.0.0.1",
    exit_after: bool,
    open_service: OpenService,
    echo: Echo,
    patience: float = 60.0,
    ways: Sequence[Way] = tuple(WAYS),
) -> int:
    """Run the demo until Ctrl-C, or with `exit_after` until its invoices are captured; return the exit status.

    A `port` of None is 8080 or the next free one. `patience` is how many seconds `exit_after` waits. An invoice goes
    by each of `ways`.
    """
    try:
        sock = _listen(host, port)
    except OSError as exc:
        echo(f"Cannot listen on {host} port {port}: {exc.strerror or exc}. Choose another with --port.")
        return 1
    with closing(sock), _signals() as stop, tempfile.TemporaryDirectory(prefix="merchant-delivery-") as folder:
        clock, url, random = MovableClock(), origin(sock), Random()  # noqa: S311  what is sold in a demo
        faults, login = Faults(random), ("shop", token_urlsafe(12))
        keys = Keys()
        sms_login = Login(password=keys.sms, signing=keys.sms, gate_url=f"{url}/receipts/sms-link?secret={keys.sms}")
        async with (
            open_mail_server(MailServer(clock=clock, random=random, credentials=login, faults=faults)) as mail,
            open_sms_server(SmsServer(clock=clock, login=sms_login, faults=faults)) as sms,
            open_erp(ErpServer(clock=clock, secret=keys.erp, faults=faults)) as erp,
            open_provider(
                clock=clock,
                account=Account(client_id=token_urlsafe(12), client_secret=token_urlsafe(24)),
                seed=random.getrandbits(64),
                seller=SHOP,
                faults=faults,
            ) as running,
        ):
            running.provider.keys.signature_secret = token_urlsafe(32)
            settings = settings_for(folder, url, running, mail) | channels_for(folder, sms, erp, keys)
            async with open_service(settings, clock) as service:
                stage = Stage(
                    url=url,
                    running=running,
                    mail=mail,
                    sms=sms,
                    erp=erp,
                    service=service,
                    clock=clock,
                    random=random,
                    told=_teller(echo, clock),
                    esp_key=keys.esp,
                )
                async with serving(site(stage), sock):
                    return await _play(stage, stop, echo, ways, patience if exit_after else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What the demo's parties know each other by, made anew each time."""

    sms: str = field(default_factory=token_urlsafe, repr=False)
    erp: str = field(default_factory=token_urlsafe, repr=False)
    esp: str = field(default_factory=token_urlsafe, repr=False)
    links: str = field(default_factory=token_hex, repr=False)


def channels_for(folder: str, sms: SmsServer, erp: ErpServer, keys: Keys) -> dict[str, str]:
    """Return the settings of all channels: each SMS provider's, the ERP's, the links', and which is chosen when."""
    routes = Path(folder) / "routes.toml"
    routes.write_text(routes_toml(), "utf-8")
    settings = {
        "CHANNELS": ",".join(("email", *(f"sms-{kind}" for kind in PROVIDERS.values()), "http")),
        "ROUTES_FILE": str(routes),
        "LINK_KEY": keys.links,
        "RECEIPTS_EMAIL": ESP,
        "RECEIPTS_EMAIL_SECRET": keys.esp,
        "HTTP_URL": erp.url,
        "HTTP_SECRETS": erp.secret,
        "HTTP_ALLOW_PRIVATE": "true",
    }
    return {f"DELIVERY_{name}": value for name, value in settings.items()} | sms_settings(sms)


def sms_settings(sms: SmsServer) -> dict[str, str]:
    """Return the settings of the channels that text through these simulated providers."""
    settings = {
        "SMS_FROM": "Nordlys",
        "RECEIPT_SECRET": sms.login.signing,
        "TWILIO_ACCOUNT_SID": sms.login.user,
        "TWILIO_AUTH_TOKEN": sms.login.password,
        "TWILIO_URL": sms.url,
        "SINCH_SERVICE_PLAN_ID": "demo",
        "SINCH_API_TOKEN": sms.login.password,
        "SINCH_WEBHOOK_SECRET": sms.login.signing,
        "SINCH_URL": sms.url,
        "LINKMOBILITY_URL": f"{sms.url}/sms",
        "LINKMOBILITY_USER": sms.login.user,
        "LINKMOBILITY_PASSWORD": sms.login.password,
        "LINKMOBILITY_PLATFORM_ID": "demo",
        "LINKMOBILITY_PARTNER_ID": "demo",
        "LINKMOBILITY_GATE": "demo",
        "46ELKS_USER": sms.login.user,
        "46ELKS_PASSWORD": sms.login.password,
        "46ELKS_URL": sms.url,
        "GATEWAYAPI_TOKEN": sms.login.password,
        "GATEWAYAPI_WEBHOOK_SECRET": sms.login.signing,
        "GATEWAYAPI_URL": sms.url,
    }
    return {f"DELIVERY_{name}": value for name, value in settings.items()}


def settings_for(folder: str, url: str, running: Running, mail: MailServer) -> dict[str, str]:
    """Return the settings of a service that talks to this provider and this mail server, and mails only."""
    keys = running.provider.keys
    settings = {
        "ACCOUNT_ID": keys.account.id,
        "CLIENT_ID": keys.account.client_id,
        "CLIENT_SECRET": keys.account.client_secret,
        "CHECKOUT_URL": running.url,
        "API_URL": running.url,
        "FILE_HOSTS": "127.0.0.1",
        "SIGNATURE_SECRETS": keys.signature_secret,
        "PUBLIC_URL": url,
        "DATABASE_URL": f"sqlite:///{folder}/deliveries.db",
        "SMTP_URL": mail.url,
        "MAIL_FROM": f"{SHOP} <faktura@nordlys-interior.example>",
        "ALLOW_REAL_RECIPIENTS": "true",
        "BRAND_NAME": SHOP,
        "BRAND_COLOR": "#0f5c5c",
        "BRAND_LOGO": str(_LOGO),
        "BRAND_ORGANIZATION_NUMBER": "999 999 999",
        "BRAND_SUPPORT_EMAIL": "kundeservice@nordlys-interior.example",
        "BRAND_WEBSITE": "https://nordlys-interior.example",
        "RETRY_DELAYS": "1,2,5,10",
        "GROUP_NOTICE": "true",
        "SILENCE_HOURS": "0",  # when the clock is moved nobody calls for days
        "LOG_LEVEL": "error",
    }
    return {f"DELIVERY_{name}": value for name, value in settings.items()}


def _listen(host: str, port: int | None) -> socket.socket:
    """Listen on the port asked for, or on the default, the next free one after it, or any. Raises `OSError`."""
    if port is not None:
        return listen(host, port)
    for candidate in range(_DEFAULT_PORT, _DEFAULT_PORT + _PORTS):
        try:
            return listen(host, candidate)
        except OSError:
            continue
    return listen(host)


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Yield an event that Ctrl-C or a polite kill sets."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _teller(echo: Echo, clock: Clock) -> Callable[[str, str], None]:
    def told(number: str, what: str) -> None:
        now = clock.now()
        day = f"{now.astimezone():%Y-%m-%d} " if clock.offset > timedelta() else ""
        echo(f"  {day}{clock_time(now)}  {number:<14}{what}")

    return told


# --- the play --------------------------------------------------------------------------------------------------------


async def _play(stage: Stage, stop: asyncio.Event, echo: Echo, ways: Sequence[Way], patience: float | None) -> int:
    """Sell by each way and stay until asked to stop; with `patience` stop by ourselves and say whether it worked."""
    _introduce(stage, echo)
    _listen_in(stage)
    async with asyncio.TaskGroup() as group:
        follows: list[asyncio.Task[bool]] = []
        reports: list[asyncio.Task[None]] = []
        stage.sold = lambda transaction_id: follows.append(group.create_task(_follow(stage, transaction_id)))

        def texted(text: Text) -> None:
            stage.texted(text)
            reports.append(group.create_task(stage.report_by_itself(text)))

        stage.sms.arrived = texted
        for way in ways:
            stage.create(way=way)
        work = asyncio.ensure_future(stage.service.run())
        stopping = group.create_task(stop.wait())
        through = asyncio.ensure_future(_through(stage, tuple(follows), reports))
        if patience is None:
            through.add_done_callback(lambda _: echo(_INVITATION.format(url=stage.url)))
        try:
            until = {work, stopping, *((through,) if patience is not None else ())}
            await asyncio.wait(until, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()  # raises what stopped it
                echo("The service stopped by itself.")
                return 1
            return _verdict(through, stop, echo, patience)
        finally:
            for task in (stopping, work, through, *follows, *reports):
                task.cancel()
            await asyncio.wait((work, through))


async def _through(stage: Stage, follows: Sequence[asyncio.Task[bool]], reports: Sequence[asyncio.Task[None]]) -> bool:
    """Wait until all deliveries are closed and all texts reported; return whether all went well, and is in the record.

    `reports` grows while deliveries are open.
    """
    done = await asyncio.gather(*follows)
    await asyncio.gather(*reports)
    texted = [standing for standing in await stage.standings() if standing.text]
    for standing in texted:
        stage.told(standing.number, f"the record says of it: {(standing.proof or 'no proof').replace('_', ' ')}")
    return all(done) and all(standing.proof == "confirmed_by_report" for standing in texted)


def _introduce(stage: Stage, echo: Echo) -> None:
    echo(f"{SHOP} delivers its own invoices. All of it runs on this machine, and nothing leaves it.\n")
    echo(f"  Provider  {stage.running.url}  (simulated, account {stage.running.provider.keys.account.id})")
    echo(f"  Mail      smtp://{stage.mail.host}:{stage.mail.port}  (simulated, whoever the mail is for)")
    echo(f"  SMS       {stage.sms.url}  (simulated: {', '.join(PROVIDERS.values())})")
    echo(f"  ERP       {stage.erp.url}  (simulated)")
    echo(f"  Service   {stage.url}/callback\n")


def _listen_in(stage: Stage) -> None:
    """Have everything told that happens at the provider and the mail server."""
    provider = stage.running.provider
    stage.mail.arrived = stage.arrived
    stage.erp.arrived = stage.posted

    def heard(attempt: Attempt) -> None:
        number = next(
            (number_of(t) for t in provider.transactions.values() if f"transaction_id={t['id']}&" in attempt.url), ""
        )
        answer = attempt.error if attempt.status is None else f"the service answered {attempt.status}"
        what = "callback signed and sent" if attempt.number else "a stranger sent a callback"
        stage.told(number, f"{what}: {answer}")

    def captured(seen: CaptureSeen) -> None:
        stage.told(number_of(provider.transaction(seen.transaction_id)), "captured: the collection has begun")

    stage.running.caller.heard = heard
    provider.captured = captured


async def _follow(stage: Stage, transaction_id: str) -> bool:
    """Watch the record until the delivery is closed, and tell; return whether it was completed and captured."""
    while (record := await _closed(stage, transaction_id)) is None:
        await stage.running.provider.clock.sleep(_LOOK)
    transaction = stage.running.provider.transaction(transaction_id)
    done = ", ".join(record.get("progress") or ()) or "nothing done"
    reason = f" ({record['reason']})" if record.get("reason") else ""
    stage.told(number_of(transaction), f"{record['outcome']}: {done}{reason}")
    began = stage.running.provider.begun(transaction_id)
    return began and record["outcome"] == "completed" and "captured" in record["progress"]


async def _closed(stage: Stage, transaction_id: str) -> dict[str, Any] | None:
    record = await stage.record(transaction_id)
    return None if record is None or record["outcome"] == "open" else record


def _verdict(through: asyncio.Future[bool], stop: asyncio.Event, echo: Echo, patience: float | None) -> int:
    if patience is None:
        echo("\nStopping.")
        return 0
    if through.done() and through.result():
        echo("\nDone: every invoice was delivered and captured.")
        return 0
    if through.done():
        echo("\nIt did not work: a delivery ended otherwise, as its line says.")
    elif stop.is_set():
        echo("\nStopped before the invoices were through.")
    else:
        echo(f"\nIt did not work: a delivery was still open after {patience:g} seconds.")
    return 1
