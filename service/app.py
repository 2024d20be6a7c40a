"""Opens, wires and closes every part; the only file that knows them all."""

import asyncio
import importlib
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp

from service.alarms import Alarms
from service.alert_url import open_poster
from service.alerting import LOOK_EVERY, ByMail, Lookout, Outage, Telling
from service.batch import Row
from service.batching import Batch, unchanged
from service.channels import BUILT_IN, UnusableSettings
from service.channels.gsm7 import plain, size
from service.channels.mime import Envelope, build
from service.channels.notices import open_notices
from service.channels.oauth import Grant
from service.channels.shape import mistakes_of
from service.chores import Chore, Chores
from service.clock import SystemClock
from service.comparing import EVERY as COMPARED_EVERY
from service.comparing import Comparison
from service.concerns import findings
from service.decide import Promise, Rules
from service.delivery import (
    PROVIDER_LANE,
    CaptureOrder,
    Channel,
    ChannelContext,
    Clock,
    Condition,
    Delivery,
    DeliveryFailure,
    Explained,
    Intent,
    Members,
    Message,
    Payments,
    PermanentFailure,
    Recipient,
    Reporting,
    Route,
    Store,
    StoreUnavailable,
    Transaction,
    Vault,
)
from service.dintero.asking import explain_document
from service.dintero.callback import Authenticator
from service.dintero.client import Dintero, open_dintero
from service.dintero.creating import CREATE_TIMEOUT, Creating
from service.dintero.effects import CAPTURE_TIMEOUT
from service.dintero.transaction import parse_transaction
from service.dintero.webhook import WEBHOOK_EVENTS, WEBHOOK_PATH, WebhookAuthenticator
from service.dintero.wire import Timeouts
from service.explaining import Destination, destination
from service.groups import Calendar
from service.groups_json import groups_json
from service.links import EVERY as LINKS_EVERY
from service.links import InvoiceLinks, closing
from service.metrics import Metrics
from service.pdf import open_inspector
from service.pipeline import Parts, Pipeline, Room
from service.preview import KINDS, Previewer, Shown, complete, in_language, previews, sender_of, sold_in
from service.privacy import scrub
from service.receipts import EMAIL, open_email_reports
from service.reconcile import would_be_held
from service.reconciling import LEASE as RECONCILE_LEASE
from service.reconciling import Reconciler
from service.record import open_record
from service.record_json import delivery_json, send_json
from service.render import TemplateError, TemplatePages, TemplateRenderer, open_pages, open_renderer
from service.render.languages import language_of, read_languages
from service.render.samples import FULL
from service.reporting import TRIED_EVERY, Reporter
from service.results import open_results
from service.retention import EVERY as RETENTION_EVERY
from service.retention import retention
from service.routing import Routes, RoutesError, country_of, read_routes
from service.sealing import Seal
from service.serving import listen, serving
from service.setting_values import key_bytes
from service.settings import Need, Settings, SettingsError, load_settings
from service.statement import Auditor
from service.store import SchemaOutdated, open_store, sharing
from service.store import migrate as migrate_store
from service.subscription import JOB as SUBSCRIPTION
from service.subscription import LOOKED_AFTER_EVERY, THERE, Ensured, Wanted, Watch, ensure
from service.template_files import language_tag, template_folders
from service.vault import DatabaseVault, FolderVault
from service.vault_s3 import open_bucket
from service.web.health import Trouble, admin_app
from service.web.pages import NO_PAGE, invoice_pages
from service.web.public import public_app
from service.web.receipts import Receipts
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
    chores: Chores
    outage: Outage
    links: InvoiceLinks | None
    metrics: Metrics
    public: ASGIApp
    admin: ASGIApp


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    jitter: Callable[[], float] = random.random,
    timeouts: Timeouts | None = None,
) -> AsyncIterator[App]:
    """Open the service with these settings; tests enter the same one, with a clock that they move.

    `timeouts` are those of requests to the provider, which tests do not want to wait for.
    """
    clock = clock or SystemClock()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        fitted = await _fit(stack, settings, clock, metrics)
        channels = fitted.channels
        metrics.show_channels(channel.name for channel in channels)
        metrics.show_reporting(fitted.reporting)
        store = await stack.enter_async_context(open_store(settings.database_url.get_secret_value(), clock=clock))
        payments = await stack.enter_async_context(dintero_of(settings, clock, timeouts))
        links = await stack.enter_async_context(open_links(settings, store, clock))
        rules = replace(rules_of(settings), promises=promises_of(channels))
        capture_first = settings.capture_order is CaptureOrder.BEFORE_DELIVERY
        trial = settings.bytes_in_hand // 4 if capture_first else 0
        parts = Parts(
            store=store,
            payments=payments,
            channels=channels,
            renderer=fitted.renderer,
            inspector=await stack.enter_async_context(open_inspector()),
            rules=rules,
            room=Room(limit=settings.bytes_in_hand - trial, largest=settings.max_pdf_bytes),
            trial_room=Room(limit=trial, largest=settings.max_pdf_bytes),
            born_at=await store.born_at(),
            clock=clock,
            jitter=jitter,
            metrics=metrics,
            routes=fitted.routes,
            links=links,
        )
        worker = Worker(
            store=store,
            pipeline=Pipeline(parts),
            rules=rules,
            clock=clock,
            metrics=metrics,
            account_id=settings.account_id,
            tries={**{channel.name: channel.check for channel in channels}, PROVIDER_LANE: payments.check},
            concurrency=settings.concurrency,
            lease=settings.lease_seconds,
            stop_grace=settings.stop_grace,
        )
        chores: tuple[Chore, ...] = ()
        if settings.reconcile_every:
            turn = reconciler_of(settings, store, payments, clock, metrics).turn
            chores += (Chore(name="reconcile", every=settings.reconcile_every, run=turn, lease=RECONCILE_LEASE),)
        forget = retention(store, account_id=settings.account_id, days=settings.retain_personal_days, clock=clock)
        chores += (Chore(name="retention", every=RETENTION_EVERY, run=forget),)
        if links:
            close = closing(store, links.vault, account_id=settings.account_id)
            chores += (Chore(name="links", every=LINKS_EVERY, run=close),)
        reporter = Reporter(store=store, metrics=metrics, account_id=settings.account_id, wake=worker.wake)
        chores += (Chore(name="reports", every=TRIED_EVERY, run=reporter.turn),)
        webhooks = webhook_authenticator_of(settings)
        if webhooks:
            watch = Watch(provider=payments, wanted=wanted_webhooks(settings), metrics=metrics)
            chores += (Chore(name=SUBSCRIPTION, every=LOOKED_AFTER_EVERY, run=watch.look),)
        chores += (Chore(name="groups", every=COMPARED_EVERY, run=comparison_of(settings, store).turn),)
        lookout = lookout_of(settings, store, clock)
        alarms = Alarms(lookout=lookout, metrics=metrics)
        chores += (Chore(name="alarms", every=LOOK_EVERY, run=alarms.turn),)
        tellings = await stack.enter_async_context(open_tellings(settings, lookout, metrics))
        chores += tuple(Chore(name=telling.name, every=LOOK_EVERY, run=telling.turn) for telling in tellings)
        yield App(
            store=store,
            payments=payments,
            channels=channels,
            worker=worker,
            chores=Chores(
                chores,
                store=store,
                clock=clock,
                metrics=metrics,
                account_id=settings.account_id,
                stop_grace=settings.stop_grace,
            ),
            outage=Outage(tellings, store=store, clock=clock, metrics=metrics),
            links=links,
            metrics=metrics,
            public=public_app(
                authenticate=authenticator_of(settings).arrival,
                authenticate_webhook=webhooks.arrival if webhooks else None,
                store=store,
                wake=worker.wake,
                metrics=metrics,
                clock=clock,
                prefixes=prefixes_of(settings),
                pages=invoice_pages(links, fitted.pages, metrics, clock) if links and fitted.pages else None,
                receipts=Receipts(
                    reporting=fitted.reporting,
                    take=reporter.take,
                    metrics=metrics,
                    clock=clock,
                    public_urls=settings.public_url,
                ),
            ),
            admin=admin_app(
                store=store,
                metrics=metrics,
                ready=partial(_troubles, worker, store, settings.account_id),
                concerns=lookout.concerns,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """What settings make that a person may have written wrong: channels, words, rules."""

    channels: tuple[Channel, ...]
    renderer: TemplateRenderer
    pages: TemplatePages | None
    routes: Routes
    reporting: dict[str, Reporting]


async def _fit(stack: AsyncExitStack, settings: Settings, clock: Clock, metrics: Metrics) -> _Fitted:
    """Open these until `stack` ends; raises one `SettingsError` with all that is wrong with any of them."""
    mistakes: list[str] = []
    channels: list[Channel] = []
    renderer, pages, routes, reporting = None, None, None, None
    with _noted(mistakes):
        channels = await open_channels(stack, settings, clock, metrics.alarm)
    outside = any(":" in name for name in settings.channels)
    if channels or not outside:  # what an adapter is called shows when it is open
        with _noted(mistakes):
            routes = routes_of(settings, channels)
    with _noted(mistakes):
        reporting = await stack.enter_async_context(open_reporting(settings, channels))
    with _noted(mistakes):
        renderer = renderer_of(settings, channels)
    with _noted(mistakes):
        pages = pages_of(settings) if settings.link_key else None
    if mistakes or renderer is None or routes is None or reporting is None:
        raise SettingsError(tuple(dict.fromkeys(mistakes)))
    return _Fitted(channels=tuple(channels), renderer=renderer, pages=pages, routes=routes, reporting=reporting)


@contextmanager
def _noted(mistakes: list[str]) -> Iterator[None]:
    """Keep what is wrong with settings for later, when all of it is known."""
    try:
        yield
    except SettingsError as exc:
        mistakes += exc.mistakes


async def _troubles(worker: Worker, store: Store, account_id: str) -> tuple[Trouble, ...]:
    troubles = [
        Trouble(part=pause.lane, detail=f"paused by {pause.by or 'a fault'}: {pause.reason}", blocking=False)
        for pause in await store.pauses(account_id)
    ]
    quiet = worker.quiet_for()
    if quiet is not None and quiet >= QUIET_TOO_LONG:
        troubles.append(Trouble(part="worker", detail=f"has not looked for work for {quiet:.0f} s", blocking=False))
    return tuple(troubles)


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
        min_days_before_due=settings.min_days_before_due,
        timezone=settings.timezone,
        group_give_up_days=settings.group_give_up_days,
        group_addresses=settings.group_addresses,
        group_notice=settings.group_notice,
        holiday_country=settings.holiday_country,
        fallback_after=settings.fallback_after,
        capture_delay=settings.capture_delay,
        content_gate=settings.content_gate,
        cancel_notice=settings.cancel_notice,
    )


def routes_of(settings: Settings, channels: Sequence[Channel] = ()) -> Routes:
    """Return the rules of ROUTES_FILE, or CHANNELS as they are; raises `SettingsError` naming every mistake.

    An adapter of one's own goes by the name it gives itself, once `channels` are open.
    """
    names = tuple(channel.name for channel in channels) or settings.channels
    if settings.routes_file is None:
        return Routes(default=names)
    try:
        text = settings.routes_file.read_text("utf-8")
        return read_routes(text, default=names, known=names)
    except RoutesError as exc:
        raise SettingsError(tuple(f"DELIVERY_ROUTES_FILE: {problem}" for problem in exc.problems)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError((f"DELIVERY_ROUTES_FILE: cannot be read: {exc}",)) from exc


@asynccontextmanager
async def open_reporting(settings: Settings, channels: Sequence[Channel]) -> AsyncIterator[dict[str, Reporting]]:
    """Open who reads the reports that come to /receipts/NAME, by that name; raises `SettingsError`."""
    reporting = {
        channel.name: cast("Reporting", channel)
        for channel in channels
        if channel.reports and hasattr(channel, "read_reports")
    }
    async with AsyncExitStack() as stack:
        if settings.receipts_email and settings.receipts_email_secret:
            secret = settings.receipts_email_secret.get_secret_value()
            copies = [settings.mail_bcc.address] if settings.mail_bcc else []
            try:
                opened = open_email_reports(settings.receipts_email, secret, ignored=copies)
                reporting[EMAIL] = await stack.enter_async_context(opened)
            except ValueError as exc:
                raise SettingsError((f"DELIVERY_RECEIPTS_EMAIL_SECRET: {exc}",)) from exc
        yield reporting


def promises_of(channels: Sequence[Channel]) -> tuple[Promise, ...]:
    """Return what the channels say of what happens to a message that is handed over twice."""
    return tuple(Promise(channel=c.name, guarantee=c.guarantee, reports=c.reports) for c in channels)


def reconciler_of(settings: Settings, store: Store, payments: Dintero, clock: Clock, metrics: Metrics) -> Reconciler:
    """Return what looks for missed callbacks."""
    rules = rules_of(settings)
    return Reconciler(
        store=store,
        payments=payments,
        clock=clock,
        metrics=metrics,
        account_id=settings.account_id,
        holds=lambda transaction, born_at: would_be_held(transaction, settings.account_id, rules, born_at),
        timezone=settings.timezone,
    )


def comparison_of(settings: Settings, store: Store) -> Comparison:
    """Return what holds the grouped invoices against what was expected."""
    return Comparison(
        store=store,
        account_id=settings.account_id,
        timezone=settings.timezone,
        holiday_country=settings.holiday_country,
    )


def lookout_of(settings: Settings, store: Store, clock: Clock) -> Lookout:
    """Return what knows all that a person should know."""
    return Lookout(
        store=store,
        clock=clock,
        account_id=settings.account_id,
        timezone=settings.timezone,
        silence_hours=settings.silence_hours,
    )


@asynccontextmanager
async def open_tellings(settings: Settings, lookout: Lookout, metrics: Metrics) -> AsyncIterator[tuple[Telling, ...]]:
    """Open the ways to tell people that are set: by mail, over a webhook."""
    tell = partial(Telling, lookout=lookout, metrics=metrics, merchant=settings.brand_name)
    tellings = []
    async with AsyncExitStack() as stack:
        if settings.alert_to:
            assert settings.smtp_url is not None
            assert settings.mail_from is not None
            opened = open_notices(
                smtp_url=settings.smtp_url.get_secret_value(),
                mail_from=settings.mail_from,
                to=settings.alert_to,
                clock=lookout.clock,
                grant=grant_of(settings),
            )
            tellings.append(tell(ByMail(mails=await stack.enter_async_context(opened), metrics=metrics)))
        if settings.alert_url:
            poster = open_poster(settings.alert_url.get_secret_value())
            tellings.append(tell(await stack.enter_async_context(poster)))
        yield tuple(tellings)


def renderer_of(settings: Settings, channels: Sequence[Channel]) -> TemplateRenderer:
    """Read and try all templates that these channels use; raises `SettingsError`."""
    with _templates_by_their_setting():
        return open_renderer(
            brand=settings.brand,
            templates_dir=settings.templates_dir,
            locale=settings.locale,
            timezone=settings.timezone,
            folders=sorted({channel.template for channel in channels} - {""}),
            notices=settings.group_notice,
            cancelled=settings.cancel_notice,
        )


@contextmanager
def _templates_by_their_setting() -> Iterator[None]:
    """Raise what is wrong with a template as a `SettingsError`, after the setting that leads to it."""
    try:
        yield
    except TemplateError as exc:
        named = str(exc).startswith("DELIVERY_")
        raise SettingsError((str(exc) if named else f"DELIVERY_TEMPLATES_DIR: {exc}",)) from exc


def grant_of(settings: Settings) -> Grant | None:
    """Return what tokens for the mail server are asked for with; None where it takes a password, or nothing."""
    if settings.smtp_oauth_token_url is None or settings.smtp_oauth_client_id is None:
        return None
    secret, refresh = settings.smtp_oauth_client_secret, settings.smtp_oauth_refresh_token
    return Grant(
        token_url=settings.smtp_oauth_token_url,
        client_id=settings.smtp_oauth_client_id,
        client_secret=secret.get_secret_value() if secret else None,
        refresh_token=refresh.get_secret_value() if refresh else None,
        scope=settings.smtp_oauth_scope,
    )


def pages_of(settings: Settings) -> TemplatePages:
    """Read and try the templates of the invoice pages; raises `SettingsError`."""
    with _templates_by_their_setting():
        return open_pages(brand=settings.brand, templates_dir=settings.templates_dir, locale=settings.locale)


@asynccontextmanager
async def open_links(settings: Settings, store: Store, clock: Clock) -> AsyncIterator[InvoiceLinks | None]:
    """Open the invoice pages; None without LINK_KEY. Raises `SettingsError` when their documents cannot be kept."""
    if settings.link_key is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        vault: Vault = DatabaseVault(store=store)
        if settings.link_store.startswith("s3://"):
            try:
                vault = await stack.enter_async_context(open_bucket(settings.link_store))
            except PermanentFailure as exc:
                raise SettingsError((f"DELIVERY_LINK_STORE: {exc.reason}",)) from exc
        elif settings.link_store != "database":
            vault = FolderVault(folder=Path(settings.link_store))
        yield InvoiceLinks(
            store=store,
            vault=vault,
            seal=Seal(key=key_bytes(settings.link_key.get_secret_value())),
            clock=clock,
            public_url=settings.public_url[0],
            days=settings.link_days,
            timezone=settings.timezone,
        )


def dintero_of(
    settings: Settings, clock: Clock, timeouts: Timeouts | None = None
) -> AbstractAsyncContextManager[Dintero]:
    """Return the provider's client, not yet open."""
    return open_dintero(
        account_id=settings.account_id,
        client_id=settings.client_id,
        client_secret=settings.client_secret.get_secret_value(),
        checkout_url=settings.checkout_url,
        api_url=settings.api_url,
        file_hosts=settings.file_hosts,
        max_pdf_bytes=settings.max_pdf_bytes,
        invoice_channel=settings.said_channel,
        group_terms=settings.group_terms,
        clock=clock,
        version=version("merchant-delivery"),
        timeouts=timeouts,
    )


def authenticator_of(settings: Settings) -> Authenticator:
    """Return what tells an authentic callback from a forged one."""
    return Authenticator(
        account_id=settings.account_id,
        secrets=tuple(secret.get_secret_value() for secret in settings.signature_secrets),
        public_urls=settings.public_url,
        tolerance=settings.signature_tolerance,
    )


def webhook_authenticator_of(settings: Settings) -> WebhookAuthenticator | None:
    """Return what tells an authentic account webhook from a forged one; None when there are to be none."""
    secrets = tuple(secret.get_secret_value() for secret in settings.webhook_secrets)
    return WebhookAuthenticator(account_id=settings.account_id, secrets=secrets) if secrets else None


def wanted_webhooks(settings: Settings) -> Wanted:
    """Return the account webhooks that must be there."""
    return Wanted(urls=tuple(f"{url}{WEBHOOK_PATH}" for url in settings.public_url), events=WEBHOOK_EVENTS)


def prefixes_of(settings: Settings) -> tuple[str, ...]:
    """Return the path prefixes, decoded as a server sees them, that a proxy may keep or strip."""
    paths = ("/" + unquote(url.split("://", 1)[1].partition("/")[2]) for url in settings.public_url)
    return tuple(path.rstrip("/") for path in paths if path != "/")


async def open_channels(
    stack: AsyncExitStack, settings: Settings, clock: Clock, alarm: Callable[[str], None] = lambda _: None
) -> list[Channel]:
    """Open all of CHANNELS until `stack` ends; raises `SettingsError` with what is wrong with any of them."""
    channels, mistakes = [], list[str]()
    for name in settings.channels:
        try:
            channels.append(await stack.enter_async_context(open_channel(name, settings, clock, alarm)))
        except SettingsError as exc:
            mistakes += exc.mistakes
    mistakes += _namesakes(channels)
    if mistakes:
        raise SettingsError(tuple(dict.fromkeys(mistakes)))
    return channels


def _namesakes(channels: Sequence[Channel]) -> list[str]:
    """Say which names are taken twice: the record, the lanes and the routes know a channel by its name alone."""
    names = [channel.name for channel in channels]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    return [f"DELIVERY_CHANNELS: two channels call themselves {name}" for name in twice]


@asynccontextmanager
async def open_channel(
    name: str, settings: Settings, clock: Clock, alarm: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Channel]:
    """Open one channel by its name in CHANNELS; raises `SettingsError` when it cannot be imported or opened."""
    async with AsyncExitStack() as stack:
        try:
            channel = await stack.enter_async_context(_channel(name, settings, clock, alarm))
        except UnusableSettings as exc:
            raise SettingsError(exc.mistakes) from exc
        except Exception as exc:
            # Whatever somebody's own factory raises, it is about what CHANNELS or its own settings say.
            said = scrub(_trouble_of(exc, name), settings.secret_texts)
            raise SettingsError((f"DELIVERY_CHANNELS: {name} cannot be opened: {said}",)) from exc
        mistakes = mistakes_of(channel)
        if mistakes:
            raise SettingsError(tuple(f"DELIVERY_CHANNELS: {name} is no channel: {mistake}" for mistake in mistakes))
        if channel.largest_document == 0 and settings.link_key is None:
            raise SettingsError((f"DELIVERY_LINK_KEY: is required for the channel {name}, which carries links only",))
        yield channel


def _trouble_of(exc: Exception, name: str) -> str:
    """Say what kept somebody's own factory from its work, and how that is mended where it is plain."""
    module, _, factory = name.partition(":")
    if isinstance(exc, ModuleNotFoundError) and exc.name is not None and f"{module}.".startswith(f"{exc.name}."):
        return f"there is no module {exc.name} where Python looks; put the folder that it is in on PYTHONPATH"
    if isinstance(exc, AttributeError) and exc.name == factory:
        return f"{module} has no {factory}"
    if isinstance(exc, KeyError) and str(exc.args[0]).startswith("DELIVERY_"):
        return f"it needs {exc.args[0]}, which is not set"
    return str(exc) if isinstance(exc, ValueError | OSError | ImportError) else f"{type(exc).__name__}: {exc}"


def _channel(
    name: str, settings: Settings, clock: Clock, alarm: Callable[[str], None]
) -> AbstractAsyncContextManager[Channel]:
    module, _, factory = BUILT_IN.get(name, name).partition(":")
    opener = getattr(importlib.import_module(module), factory)
    opened: AbstractAsyncContextManager[Channel]
    if name != "email":
        made: object = opener(
            ChannelContext(
                account_id=settings.account_id,
                clock=clock,
                environ=settings.channel_settings,
                redirect_email=settings.redirect_to.email if settings.redirect_to else None,
                redirect_phone=settings.redirect_to.phone if settings.redirect_to else None,
                public_url=settings.public_url[0] if settings.public_url else None,
                brand=settings.brand,
            )
        )
        if not isinstance(made, AbstractAsyncContextManager):
            if isinstance(made, Coroutine):
                made.close()  # or Python complains that nobody waited for it
            raise TypeError(
                "a factory returns an async context manager: decorate it with contextlib.asynccontextmanager"
            )
        return made
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
        pace=settings.smtp_rate,
        largest=settings.max_attachment_bytes,
        grant=grant_of(settings),
        reported_by=settings.receipts_email,
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
            await _until(stop, app.worker, app.chores, app.outage)
        else:
            await stop.wait()
    _log.info("service.stopped")
    return 0


async def _until(stop: asyncio.Event, *parts: Worker | Chores | Outage) -> None:
    """Let these run until they are asked to stop; callbacks are still taken while they finish what is in hand."""
    running = [asyncio.create_task(part.run()) for part in parts]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({*running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for part in parts:
        part.stop()
    await asyncio.wait(running)
    for ended in running:
        ended.result()


def _stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


# --- single commands -------------------------------------------------------------------------------------------------


async def channel_names(settings: Settings) -> tuple[str, ...]:
    """Return what the channels are called in the record; raises `SettingsError` when one cannot be opened."""
    async with AsyncExitStack() as stack:
        return tuple(channel.name for channel in await open_channels(stack, settings, SystemClock()))


@asynccontextmanager
async def open_payments(settings: Settings) -> AsyncIterator[Payments]:
    """Open the provider alone, as `deliveries cancel --void` wants it."""
    async with dintero_of(settings, SystemClock()) as payments:
        yield payments


@asynccontextmanager
async def open_creating(settings: Settings) -> AsyncIterator[Creating]:
    """Open the provider alone, as what creates sessions and invoices wants it."""
    async with dintero_of(settings, SystemClock()) as payments:
        yield payments.creating


@asynccontextmanager
async def open_batch(
    settings: Settings, rows: Sequence[Row], result: Path, *, retry_failed: bool
) -> AsyncIterator[Batch]:
    """Open a batch and its result file; raises `Mistaken` for what was sent otherwise before, and `Unusable`."""
    async with dintero_of(settings, SystemClock()) as payments:
        with open_results(result) as results:
            unchanged(rows, results.of)
            yield Batch(
                rows=rows,
                results=results,
                invoices=payments.creating,
                clock=SystemClock(),
                settled=CREATE_TIMEOUT,
                retry_failed=retry_failed,
            )


async def explain(
    settings: Settings, transaction_id: str, delivery: Delivery | None = None
) -> tuple[Transaction, Explained, Destination]:
    """Read a transaction and what each level of configuration says of it; raises as `Payments.read` and `resolve`."""
    async with dintero_of(settings, SystemClock()) as dintero:
        transaction = await dintero.read(transaction_id)
        explained = await dintero.explain(transaction)
    return transaction, explained, destination(explained, transaction, settings.channels, delivery=delivery)


async def explain_file(
    settings: Settings, document: object, read_at: datetime
) -> tuple[tuple[Transaction, Explained, Destination], ...]:
    """Return the same of a document, asking nobody, for each of its products; raises `ValueError` when it has none."""
    found = await explain_document(
        document, read_at=read_at, default=settings.said_channel, group_terms=settings.group_terms
    )
    return tuple((asked, said, destination(said, asked, settings.channels)) for asked, said in found)


def preview(
    settings: Settings, *, kind: str | None, locale: str | None, document: object | None, read_at: datetime
) -> tuple[Shown, ...]:
    """Render what a customer would get, in every language or one.

    Raises `SettingsError` of templates that will not do, `ValueError` of a locale, and `DeliveryFailure`.
    """
    with _templates_by_their_setting():
        there = read_languages(template_folders(settings.templates_dir), language_tag(settings.locale))
    if locale is not None and language_tag(locale) not in there:
        raise ValueError(f"{locale} has no catalogue; there are {', '.join(sorted(there))}")
    sample = FULL if document is None else complete(parse_transaction(document, read_at=read_at), FULL)
    if document is not None and locale is None:
        return previews(_previewer(settings), sample, (kind,) if kind else KINDS)
    tags = [language_tag(locale)] if locale else sorted(there)
    return tuple(
        shown
        for tag in tags
        for shown in previews(
            _previewer(settings.model_copy(update={"locale": tag})),
            in_language(sample) if document is not None else sold_in(tag, sample),
            (kind,) if kind else KINDS,
        )
    )


def _previewer(settings: Settings) -> Previewer:
    sender = sender_of(settings.mail_from, settings.brand_name)

    def mail(message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> bytes:
        envelope = Envelope(
            sender=sender,
            reply_to=settings.mail_reply_to,
            to=recipient.address,
            dated=intent.dated,
            key=intent.key,
            message_id=f"<{intent.key}@{sender.address.rpartition('@')[2]}>",
        )
        return build(envelope, message, document)

    def text(words: str) -> tuple[str, str]:
        said = plain(words).strip()
        cost = size(said)
        parts = "1 part" if cost.parts == 1 else f"{cost.parts} parts"
        return said, f"{parts}, {cost.units} units of {'GSM-7' if cost.gsm7 else 'UCS-2'}"

    with _templates_by_their_setting():
        renderer = open_renderer(
            brand=settings.brand,
            templates_dir=settings.templates_dir,
            locale=settings.locale,
            timezone=settings.timezone,
            folders=("mail", "sms"),
        )
    return Previewer(renderer=renderer, pages=pages_of(settings), mail=mail, text=text)


def explain_route(settings: Settings, transaction: Transaction, today: date) -> Route:
    """Return by which channels an invoice goes; raises `SettingsError` for a ROUTES_FILE that will not do."""
    fallback = language_tag(settings.locale)
    languages = read_languages(template_folders(settings.templates_dir), fallback)
    language = language_of(country_of(transaction), fallback, languages).tag
    return routes_of(settings).choose(transaction, language=language, today=today)


@asynccontextmanager
async def open_reconciler(settings: Settings) -> AsyncIterator[Reconciler]:
    """Open the record and the provider, as `reconcile` by hand wants them; the schema must be there."""
    clock = SystemClock()
    async with open_record(settings) as store, dintero_of(settings, clock) as payments:
        yield reconciler_of(settings, store, payments, clock, Metrics())


@asynccontextmanager
async def open_auditor(settings: Settings) -> AsyncIterator[Auditor]:
    """Open the record and the provider, as `statement` wants them; the schema must be there."""
    async with open_record(settings) as store, dintero_of(settings, SystemClock()) as payments:
        yield Auditor(store=store, payments=payments)


async def ensure_webhooks(settings: Settings) -> Ensured:
    """Create the account's webhook subscription unless it is there; raises `SettingsError` and as the provider does."""
    if not settings.webhook_secrets:
        raise SettingsError(("DELIVERY_WEBHOOK_SECRETS: is required for webhooks",))
    async with dintero_of(settings, SystemClock()) as provider:
        ensured = await ensure(provider, wanted_webhooks(settings), settings.webhook_secrets[0].get_secret_value())
    with suppress(StoreUnavailable):  # a record that is not there yet has nothing to be put right
        await _write_that_it_is_there(settings)
    return ensured


async def _write_that_it_is_there(settings: Settings) -> None:
    """Leave the note that the next hourly look would leave, so that nobody is told of one that is gone."""
    clock = SystemClock()
    async with open_record(settings) as store:
        for _ in range(20):  # a worker may be looking just now, and have seen that it was not there
            job = await store.take_job(f"{settings.account_id}:{SUBSCRIPTION}", every=0, lease=60)
            if job is not None:
                await store.end_job(job, done=True, note=THERE)
                return
            await clock.sleep(0.5)


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
    results = [await tried("store", _check_store(settings)), *_check_sharing(settings)]
    async with AsyncExitStack() as stack:
        payments = await stack.enter_async_context(dintero_of(settings, clock))
        results.append(await tried("token", payments.check()))
        channels = []
        for name in settings.channels:
            try:
                channels.append(await stack.enter_async_context(open_channel(name, settings, clock)))
            except SettingsError as exc:
                results.append(CheckResult(name=f"channel {name}", ok=False, detail="; ".join(exc.mistakes)))
        results += [CheckResult(name="channels", ok=False, detail=one) for one in _namesakes(channels)]
        results.extend([await tried(f"channel {channel.name}", channel.check()) for channel in channels])
        results.append(await tried("templates", _check_templates(settings, channels)))
        if settings.routes_file:
            results.append(await tried("routes", _check_routes(settings, channels)))
        if settings.receipts_email:
            results.append(await tried("receipts", _check_reports(settings)))
        results.extend([await _check_public_url(settings, payments, url) for url in settings.public_url])
        if settings.link_key is not None:
            url = settings.public_url[0]  # where every link leads
            results.append(
                await tried("invoice page", payments.reach(f"{url}{NO_PAGE}", method="POST", refused_by=(405,)))
            )
            results.append(await tried("link store", _check_vault(settings, clock)))
        if settings.webhook_secrets:
            urls = wanted_webhooks(settings).urls
            results.extend([await tried("webhook URL", payments.reach(url, method="POST")) for url in urls])
            results.append(await tried("webhooks", _check_webhooks(settings, payments)))
    return [*results, _who_is_told(settings), *await _check_record(settings, clock)]


_MEND = {
    "store": "see DELIVERY_DATABASE_URL",
    "token": "DELIVERY_CLIENT_ID and DELIVERY_CLIENT_SECRET must be of a Checkout API client of DELIVERY_ACCOUNT_ID",
    "channel email": "see DELIVERY_SMTP_URL: smtp:// is STARTTLS, mostly on port 587, smtps:// is TLS from the start, "
    "mostly on 465; user and password are percent-encoded",
    "public URL": "see DELIVERY_PUBLIC_URL; `serve` must be running, and the proxy must pass /callback on to it",
    "invoice page": "see DELIVERY_PUBLIC_URL; `serve` must be running with DELIVERY_LINK_KEY set, and the proxy must "
    "pass everything below /i/ on to it, from everywhere: customers open it",
    "link store": "see DELIVERY_LINK_STORE",
    "webhook URL": "`serve` must be running with DELIVERY_WEBHOOK_SECRETS set, and the proxy must pass "
    "/webhooks/dintero on to it",
}


async def _check_public_url(settings: Settings, payments: Dintero, url: str) -> CheckResult:
    found = await _tried(settings, "public URL", payments.reach(f"{url}/callback"))
    if found.ok or settings.silence_hours or not settings.reconcile_every:
        return found
    alone = "not reached, so invoices are found by looking alone. With DELIVERY_SILENCE_HOURS=0 that is taken as meant"
    return CheckResult(name=found.name, ok=True, detail=f"{alone}. {found.detail}")


async def _check_webhooks(settings: Settings, payments: Dintero) -> str:
    """Ask the provider itself: what the record knows of it may be an hour old."""
    coverage = wanted_webhooks(settings).covered(await payments.subscriptions())
    if coverage.missing:
        missing = " or ".join(coverage.missing)
        raise PermanentFailure(f"nothing at Dintero calls us for {missing}: `merchant-delivery webhooks ensure`")
    return f"Dintero calls {' and '.join(sorted({one.url for one in coverage.active}))}"


async def _tried(settings: Settings, name: str, trying: Awaitable[str]) -> CheckResult:
    try:
        return CheckResult(name=name, ok=True, detail=await trying)
    except SchemaOutdated as exc:  # it says by itself what is to be done
        return CheckResult(name=name, ok=False, detail=str(exc))
    except SettingsError as exc:
        found = scrub("; ".join(exc.mistakes), settings.secret_texts)
    except (DeliveryFailure, StoreUnavailable) as exc:
        found = scrub(str(exc), settings.secret_texts)
    except Exception as exc:  # noqa: BLE001 - somebody's own channel; the other results are wanted all the same
        found = f"{type(exc).__name__}: {scrub(str(exc), settings.secret_texts)}"
    mend = f" To mend it: {_MEND[name]}." if name in _MEND else ""
    return CheckResult(name=name, ok=False, detail=f"{found.rstrip('.')}.{mend}")


async def _check_templates(settings: Settings, channels: Sequence[Channel]) -> str:
    if not channels:
        raise PermanentFailure("not tried, for no channel could be opened")
    renderer_of(settings, channels)
    if settings.link_key:
        pages_of(settings)
    return "every template renders in every language"


async def _check_routes(settings: Settings, channels: Sequence[Channel]) -> str:
    if len(channels) < len(settings.channels):
        raise PermanentFailure("not tried, for a channel could not be opened")
    count = len(routes_of(settings, channels).rules)
    return f"{count} rule{'' if count == 1 else 's'}, then CHANNELS"


async def _check_reports(settings: Settings) -> str:
    async with open_reporting(settings, ()) as reporting:
        return f"taken at /receipts/{', '.join(reporting)}"


async def _check_vault(settings: Settings, clock: Clock) -> str:
    """Keep a document, read it again and delete it, where those behind links are kept."""
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        store = await stack.enter_async_context(open_store(url, clock=clock, migrate=False))
        links = await stack.enter_async_context(open_links(settings, store, clock))
        assert links is not None
        await links.probe(settings.account_id)
    return "keeps what is behind links, and returns it"


def _who_is_told(settings: Settings) -> CheckResult:
    ways = [f"{len(settings.alert_to)} mail addresses"] if settings.alert_to else []
    ways += ["DELIVERY_ALERT_URL"] if settings.alert_url else []
    told = " and ".join(ways) or "nobody is told when something needs a person: see DELIVERY_ALERT_TO"
    return CheckResult(name="alerts", ok=True, detail=told)


async def _check_record(settings: Settings, clock: Clock) -> list[CheckResult]:
    """Return what the record says of how it goes; nothing when it does not answer, which is a line of its own."""
    try:
        async with open_store(settings.database_url.get_secret_value(), clock=clock, migrate=False) as store:
            concerns = await lookout_of(settings, store, clock).concerns()
    except StoreUnavailable:
        return []
    found = findings([one for one in concerns if one.condition is not Condition.SUBSCRIPTION], settings.timezone)
    return [CheckResult(name=finding.name, ok=finding.ok, detail=finding.detail) for finding in found]


async def _check_store(settings: Settings) -> str:
    """Write and commit, but leave the schema as it is: a newer release may be trying an older record."""
    async with open_store(settings.database_url.get_secret_value(), clock=SystemClock(), migrate=False) as store:
        await store.ping()
    return "answers and commits"


def _check_sharing(settings: Settings) -> list[CheckResult]:
    """Warn of a file that several processes work on where that can harm it; the service itself may be the one other."""
    found = sharing(settings.database_url.get_secret_value())
    if found is None or found.harmless or len(found.others) <= 1:
        return []
    detail = (
        f"{len(found.others)} processes have the SQLite file open ({', '.join(map(str, sorted(found.others)))}), and "
        f"with SQLite {found.version} (before 3.51.3, 3.50.7 and 3.44.6) two that write at the same instant can damage "
        "it. To mend it: let one `serve` do everything, with no `worker` beside it, or use a newer SQLite or PostgreSQL"
    )
    return [CheckResult(name="sharing", ok=False, detail=detail)]


# --- the demo's view -------------------------------------------------------------------------------------------------


class DemoService:
    """The service as the demo runs it, in its process and on its port."""

    def __init__(self, app: App, settings: Settings, clock: Clock) -> None:
        self._app = app
        self._settings = settings
        self._clock = clock
        self.asgi = app.public

    async def record(self, transaction_id: str) -> str | None:
        """Return a delivery with its history as JSON text."""
        found = await self._app.store.find(transaction_id)
        if not found:
            return None
        history = await self._app.store.history(found[0].id)
        sends = [send_json(send) for send in await self._app.store.sends(found[0].id)]
        return json.dumps(delivery_json(found[0], history) | {"sends": sends}, ensure_ascii=False)

    def previews(self) -> tuple[Shown, ...]:
        """Return every kind of message in every language; nothing of the store is touched, so any thread may ask."""
        return preview(self._settings, kind=None, locale=None, document=None, read_at=self._clock.now())

    async def groups(self) -> str:
        """Return what is expected of each group, and what of it was billed otherwise, as JSON text."""
        zone, holidays = self._settings.timezone, self._settings.holiday_country
        calendar = Calendar(now=self._clock.now(), zone=zone, holiday_country=holidays)
        return json.dumps(groups_json(await self._app.store.members(Members()), calendar), ensure_ascii=False)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await asyncio.gather(self._app.worker.run(), self._app.chores.run())
        finally:
            self._app.worker.stop()
            self._app.chores.stop()


@asynccontextmanager
async def demo_service(env: Mapping[str, str], clock: Clock) -> AsyncIterator[DemoService]:
    """Open the service with these settings and nothing of the caller's environment, on the demo's clock."""
    settings = load_settings(env, need=Need.SERVE)
    async with open_app(settings, clock=clock) as app:
        yield DemoService(app, settings, clock)
