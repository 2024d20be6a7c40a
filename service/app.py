"""Opens, wires and closes every part; the only file that knows them all."""

import asyncio
import importlib
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp

from service.channels import BUILT_IN
from service.clock import SystemClock
from service.decide import Rules
from service.delivery import (
    Channel,
    ChannelContext,
    Clock,
    DeliveryFailure,
    PermanentFailure,
    Store,
    StoreUnavailable,
)
from service.dintero.callback import Authenticator
from service.dintero.client import CAPTURE_TIMEOUT, Dintero, open_dintero
from service.metrics import Metrics
from service.pdf import open_inspector
from service.pipeline import Parts, Pipeline
from service.privacy import scrub
from service.record_json import delivery_json
from service.render import TemplateError, TemplateRenderer, open_renderer
from service.serving import listen, serving
from service.settings import Need, Settings, SettingsError, load_settings
from service.store import SchemaOutdated, open_store
from service.store import migrate as migrate_store
from service.web.callback import public_app
from service.web.health import Trouble, admin_app
from service.worker import Worker

QUIET_TOO_LONG = 120.0
"""Seconds without a look for work after which `/readyz` says so."""
_log = structlog.get_logger()


class CannotStart(Exception):
    """The settings are right, but it does not work now; the text says what is wrong and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything that is open."""

    store: Store
    payments: Dintero
    channels: tuple[Channel, ...]
    worker: Worker
    metrics: Metrics
    public: ASGIApp
    admin: ASGIApp


@asynccontextmanager
async def open_app(
    settings: Settings, *, clock: Clock | None = None, jitter: Callable[[], float] = random.random
) -> AsyncIterator[App]:
    """Open the service with these settings; tests enter the same one, with a clock that they move."""
    clock = clock or SystemClock()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        opening = [open_channel(name, settings, clock, metrics.alarm) for name in settings.channels]
        channels = [await stack.enter_async_context(opened) for opened in opening]
        metrics.show_channels(channel.name for channel in channels)
        renderer = renderer_of(settings, channels)
        store = await stack.enter_async_context(open_store(settings.database_url.get_secret_value(), clock=clock))
        payments = await stack.enter_async_context(dintero_of(settings, clock))
        rules = rules_of(settings)
        parts = Parts(
            store=store,
            payments=payments,
            channels=tuple(channels),
            renderer=renderer,
            inspector=await stack.enter_async_context(open_inspector()),
            rules=rules,
            clock=clock,
            jitter=jitter,
            metrics=metrics,
        )
        worker = Worker(
            store=store,
            pipeline=Pipeline(parts),
            rules=rules,
            clock=clock,
            metrics=metrics,
            account_id=settings.account_id,
            channels=tuple(channel.name for channel in channels),
            concurrency=settings.concurrency,
            lease=settings.lease_seconds,
            stop_grace=settings.stop_grace,
        )
        yield App(
            store=store,
            payments=payments,
            channels=tuple(channels),
            worker=worker,
            metrics=metrics,
            public=public_app(
                authenticate=authenticator_of(settings).arrival,
                store=store,
                wake=worker.wake,
                metrics=metrics,
                clock=clock,
                prefixes=prefixes_of(settings),
            ),
            admin=admin_app(store=store, metrics=metrics, ready=partial(_troubles, worker)),
        )


async def _troubles(worker: Worker) -> tuple[Trouble, ...]:
    quiet = worker.quiet_for()
    if quiet is None or quiet < QUIET_TOO_LONG:
        return ()
    return (Trouble(part="worker", detail=f"has not looked for work for {quiet:.0f} s", blocking=False),)


# --- parts from settings ---------------------------------------------------------------------------------------------


def rules_of(settings: Settings) -> Rules:
    """Return what decides, out of the settings."""
    return Rules(
        order=settings.capture_order,
        retry_delays=settings.retry_delays,
        give_up_after=settings.give_up_after,
        capture_give_up_after=settings.capture_give_up_after,
        unconfirmed_retries=settings.unconfirmed_retries,
        unconfirmed_delay=settings.unconfirmed_delay,
        capture_timeout=CAPTURE_TIMEOUT,
    )


def renderer_of(settings: Settings, channels: Sequence[Channel]) -> TemplateRenderer:
    """Read and try all templates that these channels use; raises `SettingsError`."""
    try:
        return open_renderer(
            brand=settings.brand,
            templates_dir=settings.templates_dir,
            locale=settings.locale,
            timezone=settings.timezone,
            folders=sorted({channel.template for channel in channels}),
        )
    except TemplateError as exc:
        named = str(exc).startswith("DELIVERY_")
        raise SettingsError((str(exc) if named else f"DELIVERY_TEMPLATES_DIR: {exc}",)) from exc


def dintero_of(settings: Settings, clock: Clock) -> AbstractAsyncContextManager[Dintero]:
    """Return the provider's client, not yet open."""
    return open_dintero(
        account_id=settings.account_id,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value(),
        checkout_url=settings.checkout_url,
        api_url=settings.api_url,
        file_hosts=settings.file_hosts,
        max_pdf_bytes=settings.max_pdf_bytes,
        invoice_channel=settings.invoice_channel,
        clock=clock,
        version=version("merchant-delivery"),
    )


def authenticator_of(settings: Settings) -> Authenticator:
    """Return what tells an authentic callback from a forged one."""
    return Authenticator(
        account_id=settings.account_id,
        secrets=tuple(secret.get_secret_value() for secret in settings.signature_secrets),
        public_urls=settings.public_url,
        tolerance=settings.signature_tolerance,
    )


def prefixes_of(settings: Settings) -> tuple[str, ...]:
    """Return the path prefixes, decoded as a server sees them, that a proxy may keep or strip."""
    paths = ("/" + unquote(url.split("://", 1)[1].partition("/")[2]) for url in settings.public_url)
    return tuple(path.rstrip("/") for path in paths if path != "/")


@asynccontextmanager
async def open_channel(
    name: str, settings: Settings, clock: Clock, alarm: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Channel]:
    """Open one channel by its name in CHANNELS; raises `SettingsError` when it cannot be imported or opened."""
    async with AsyncExitStack() as stack:
        try:
            channel = await stack.enter_async_context(_channel(name, settings, clock, alarm))
        except Exception as exc:
            # Whatever somebody's own factory raises, it is about what CHANNELS or its own settings say.
            said = scrub(str(exc), settings.secret_texts)
            raise SettingsError((f"DELIVERY_CHANNELS: {name} cannot be opened: {said}",)) from exc
        yield channel


def _channel(
    name: str, settings: Settings, clock: Clock, alarm: Callable[[str], None]
) -> AbstractAsyncContextManager[Channel]:
    module, _, factory = BUILT_IN.get(name, name).partition(":")
    opener = getattr(importlib.import_module(module), factory)
    opened: AbstractAsyncContextManager[Channel]
    if name != "email":
        opened = opener(
            ChannelContext(
                account_id=settings.account_id,
                clock=clock,
                environ=settings.channel_settings,
                redirect_email=settings.redirect_to.email if settings.redirect_to else None,
                redirect_phone=settings.redirect_to.phone if settings.redirect_to else None,
            )
        )
        return opened
    assert settings.smtp_url is not None
    assert settings.mail_from is not None
    opened = opener(
        account_id=settings.account_id,
        smtp_url=settings.smtp_url.get_secret_value(),
        mail_from=settings.mail_from,
        reply_to=settings.mail_reply_to,
        bcc=settings.mail_bcc,
        redirect_to=settings.redirect_to.email if settings.redirect_to else None,
        connections=settings.concurrency,
        clock=clock,
        alarm=alarm,
    )
    return opened


# --- running ---------------------------------------------------------------------------------------------------------


def _listen(face: str, host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as exc:
        given = "DELIVERY_ADMIN_HOST and DELIVERY_ADMIN_PORT" if face == "admin" else "--host and --port"
        raise CannotStart(f"cannot listen on {host} port {port} ({given}): {exc.strerror or exc}") from exc


def serve(settings: Settings, *, host: str, port: int, worker: bool) -> int:
    """Run HTTP and, if asked to, the worker, until SIGTERM or SIGINT; return the exit status."""
    faces = [("public", host, port)]
    return asyncio.run(_run(settings, faces, worker=worker))


def work(settings: Settings) -> int:
    """Run the worker alone, with the admin port if there is one, until SIGTERM or SIGINT; return the exit status."""
    return asyncio.run(_run(settings, [], worker=True))


async def _run(settings: Settings, faces: list[tuple[str, str, int]], *, worker: bool) -> int:
    if settings.admin_port is not None:
        faces = [*faces, ("admin", settings.admin_host, settings.admin_port)]
    async with AsyncExitStack() as stack:
        bound = [(face, stack.enter_context(_listen(face, host, port))) for face, host, port in faces]
        app = await stack.enter_async_context(open_app(settings))
        stop = _stop_on_signals()
        for face, sock in bound:
            await stack.enter_async_context(serving(app.public if face == "public" else app.admin, sock))
        _log.info("service.started", version=version("merchant-delivery"), worker=worker)
        if worker:
            await _until(stop, app.worker)
        else:
            await stop.wait()
    _log.info("service.stopped")
    return 0


async def _until(stop: asyncio.Event, worker: Worker) -> None:
    """Let the worker run until it is asked to stop; callbacks are still taken while it finishes what is in hand."""
    working = asyncio.create_task(worker.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    worker.stop()
    await working


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


# --- single commands -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_record(settings: Settings) -> AsyncIterator[Store]:
    """Open the record alone, as the `deliveries` commands want it; the schema must be there."""
    async with open_store(settings.database_url.get_secret_value(), clock=SystemClock(), migrate=False) as store:
        yield store


def migrate(settings: Settings) -> str:
    """Bring the schema up to date; return a line that says what was done."""
    return migrate_store(settings.database_url.get_secret_value())


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One thing that `check` tried."""

    name: str
    ok: bool
    detail: str


async def check(settings: Settings) -> list[CheckResult]:
    """Try the settings for real: store, token, channels, templates, public URL."""
    clock = SystemClock()
    tried = partial(_tried, settings)
    results = [await tried("store", _check_store(settings))]
    async with AsyncExitStack() as stack:
        payments = await stack.enter_async_context(dintero_of(settings, clock))
        results.append(await tried("token", payments.check()))
        channels = []
        for name in settings.channels:
            try:
                channels.append(await stack.enter_async_context(open_channel(name, settings, clock)))
            except SettingsError as exc:
                results.append(CheckResult(name=f"channel {name}", ok=False, detail="; ".join(exc.mistakes)))
        results.extend([await tried(f"channel {channel.name}", channel.check()) for channel in channels])
        results.append(await tried("templates", _check_templates(settings, channels)))
        results.extend([await tried("public URL", payments.reach(f"{url}/callback")) for url in settings.public_url])
    return results


_MEND = {
    "store": "see DELIVERY_DATABASE_URL",
    "token": "DELIVERY_CLIENT_ID and DELIVERY_CLIENT_SECRET must be of a Checkout API client of DELIVERY_ACCOUNT_ID",
    "channel email": "see DELIVERY_SMTP_URL: smtp:// is STARTTLS, mostly on port 587, smtps:// is TLS from the start, "
    "mostly on 465; user and password are percent-encoded",
    "public URL": "see DELIVERY_PUBLIC_URL; `serve` must be running, and the proxy must pass /callback on to it",
}


async def _tried(settings: Settings, name: str, trying: Awaitable[str]) -> CheckResult:
    try:
        return CheckResult(name=name, ok=True, detail=await trying)
    except SchemaOutdated as exc:  # it says by itself what is to be done
        return CheckResult(name=name, ok=False, detail=str(exc))
    except (DeliveryFailure, StoreUnavailable, SettingsError) as exc:
        found = scrub(str(exc), settings.secret_texts)
    except Exception as exc:  # noqa: BLE001 - somebody's own channel; the other results are wanted all the same
        found = f"{type(exc).__name__}: {scrub(str(exc), settings.secret_texts)}"
    mend = f" To mend it: {_MEND[name]}." if name in _MEND else ""
    return CheckResult(name=name, ok=False, detail=f"{found.rstrip('.')}.{mend}")


async def _check_templates(settings: Settings, channels: Sequence[Channel]) -> str:
    if not channels:
        raise PermanentFailure("not tried, for no channel could be opened")
    renderer_of(settings, channels)
    return "every template renders in every language"


async def _check_store(settings: Settings) -> str:
    """Write and commit, but leave the schema as it is: a newer release may be trying an older record."""
    async with open_store(settings.database_url.get_secret_value(), clock=SystemClock(), migrate=False) as store:
        await store.ping()
    return "answers and commits"


# --- the demo's view -------------------------------------------------------------------------------------------------


class DemoService:
    """The service as the demo runs it, in its process and on its port."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.asgi = app.public

    async def record(self, transaction_id: str) -> str | None:
        """Return a delivery with its history as JSON text."""
        found = await self._app.store.find(transaction_id)
        if not found:
            return None
        history = await self._app.store.history(found[0].id)
        return json.dumps(delivery_json(found[0], history), ensure_ascii=False)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._app.worker.run()
        finally:
            self._app.worker.stop()


@asynccontextmanager
async def demo_service(env: Mapping[str, str]) -> AsyncIterator[DemoService]:
    """Open the service with these settings and nothing of the caller's environment."""
    async with open_app(load_settings(env, need=Need.SERVE)) as app:
        yield DemoService(app)
