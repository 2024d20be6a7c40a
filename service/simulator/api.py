"""The provider over HTTP: which path is which of its verbs, who may come in, and how a refusal looks."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from service.delivery import Clock
from service.serving import listen, origin, serving
from service.simulator.answers import JsonResponse, answer_instead, document_instead, refusal
from service.simulator.callbacks import SCHEDULE, TIMEOUT, Attempt, Caller, open_caller
from service.simulator.deeds import Answer, Document
from service.simulator.documents import Personality, Refusal, instant, invalid
from service.simulator.faults import Faults
from service.simulator.invoices import Invoice, draw
from service.simulator.keys import Account, Keys
from service.simulator.meanwhile import happen
from service.simulator.notices import Notification
from service.simulator.provider import Provider, Seen
from service.simulator.sessions import toggles_of

Handler: TypeAlias = Callable[[Provider, Request], Awaitable[Response]]


async def _body(request: Request) -> Any:
    raw = await request.body()
    try:
        return json.loads(raw) if raw else None
    except ValueError as exc:
        raise invalid("the body is not JSON") from exc


def _query(request: Request) -> dict[str, list[str]]:
    return parse_qs(request.url.query, keep_blank_values=True)


def _toggles(request: Request) -> frozenset[str]:
    return toggles_of(request.headers.get("dintero-feature-toggles", ""))


# --- the endpoints; a function's name is the name by which `_answer` knows its endpoint ------------------------------


async def token(provider: Provider, request: Request) -> Response:
    scheme, _, basic = request.headers.get("authorization", "").partition(" ")
    given = basic if scheme.lower() == "basic" else None
    return JsonResponse(provider.keys.issue(request.path_params["account_id"], given, await _body(request)))


async def create_session(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.open_session(await _body(request), toggles=_toggles(request)))


async def create_session_of_profile(provider: Provider, request: Request) -> Response:
    body = await _body(request)
    return JsonResponse(provider.open_session(body, profile_required=True, toggles=_toggles(request)))


async def pay_session(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.authorize(request.path_params["session_id"], await _body(request)))


async def pay(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.bill(await _body(request), toggles=_toggles(request)))


async def read_session(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.session(request.path_params["session_id"]))


async def cancel_session(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.cancel(request.path_params["session_id"]))


async def read_transaction(provider: Provider, request: Request) -> Response:
    transaction_id = request.path_params["transaction_id"]
    with_session = "session" in _query(request).get("includes", [])
    happen(provider, "before read", transaction_id)
    response = JsonResponse(provider.transaction(transaction_id, with_session=with_session))
    happen(provider, "after read", transaction_id)
    return response


async def list_transactions(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.listing(_query(request)))


async def capture(provider: Provider, request: Request) -> Response:
    transaction_id, body = request.path_params["transaction_id"], await _body(request)
    happen(provider, "before capture", transaction_id)
    asked = provider.ask_capture(transaction_id, body)
    later = asked.request_id is not None
    headers = {"event-request-id": asked.request_id} if asked.request_id is not None else {}
    response = JsonResponse(asked.transaction, 202 if later else 200, headers)
    happen(provider, "after capture", transaction_id)
    return response


async def void(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.void(request.path_params["transaction_id"]))


async def file(provider: Provider, request: Request) -> Response:
    file_id = request.path_params["file_id"]
    way = provider.way_of(file_id)
    if way == "bytes":
        return _bytes(provider, "file bytes", file_id)
    descriptor = provider.descriptor(file_id)
    if provider.faults.take(Document, "descriptor", file_id, provider.file_owners.get(file_id, "")):
        gone = provider.clock.now() - timedelta(minutes=10)
        descriptor |= {"expires_at": instant(gone), "url": f"{descriptor['url']}?expired"}
    return JsonResponse(descriptor) if way == "descriptor" else RedirectResponse(descriptor["url"], 302)


async def cdn(provider: Provider, request: Request) -> Response:
    file_id = request.path_params["file_id"]
    provider.way_of(file_id)  # refuses what is not there
    if request.url.query == "expired":
        raise Refusal(403, "Request has expired")
    return _bytes(provider, "cdn", file_id)


def _bytes(provider: Provider, point: str, file_id: str) -> Response:
    content = provider.files[file_id]
    document = provider.faults.take(Document, point, file_id, provider.file_owners.get(file_id, ""))
    if document is not None:
        return document_instead(document, content)
    return Response(content, media_type="application/pdf")


async def list_subscriptions(provider: Provider, _: Request) -> Response:
    return JsonResponse(provider.webhooks.listed())


async def create_subscription(provider: Provider, request: Request) -> Response:
    return JsonResponse(provider.webhooks.create(await _body(request)), 201)


async def delete_subscription(provider: Provider, request: Request) -> Response:
    provider.webhooks.delete(request.path_params["subscription_id"])
    return Response(status_code=204)


async def ping_subscription(provider: Provider, request: Request) -> Response:
    provider.webhooks.ping(request.path_params["subscription_id"])
    return Response(status_code=204)


async def read_signature(provider: Provider, _: Request) -> Response:
    return JsonResponse(provider.keys.signature())


async def create_signature(provider: Provider, _: Request) -> Response:
    return JsonResponse(provider.keys.rotate())


async def read_checkout(provider: Provider, _: Request) -> Response:
    return JsonResponse(provider.checkout)


async def write_checkout(provider: Provider, request: Request) -> Response:
    body = await _body(request)
    if not isinstance(body, dict):
        raise invalid("a JSON object is required")
    provider.checkout = body
    return JsonResponse(provider.checkout)


async def list_profiles(provider: Provider, _: Request) -> Response:
    return JsonResponse(list(provider.profiles.values()))


_HOOKS = "/v1/accounts/{account_id}/hooks/subscriptions"
_ENDPOINTS: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/accounts/{account_id}/auth/token", token),
    ("POST", "/v1/sessions", create_session),
    ("POST", "/v1/sessions-profile", create_session_of_profile),
    ("POST", "/v1/sessions/pay", pay),
    ("POST", "/v1/sessions/{session_id}/pay", pay_session),
    ("POST", "/v1/sessions/{session_id}/cancel", cancel_session),
    ("GET", "/v1/sessions/{session_id}", read_session),
    ("GET", "/v1/transactions", list_transactions),
    ("GET", "/v1/transactions/{transaction_id}", read_transaction),
    ("POST", "/v1/transactions/{transaction_id}/capture", capture),
    ("POST", "/v1/transactions/{transaction_id}/void", void),
    ("GET", "/v1/files/{file_id}", file),
    ("GET", "/cdn/files/{file_id}", cdn),
    ("GET", _HOOKS, list_subscriptions),
    ("POST", _HOOKS, create_subscription),
    ("DELETE", f"{_HOOKS}/{{subscription_id}}", delete_subscription),
    ("POST", f"{_HOOKS}/{{subscription_id}}/ping", ping_subscription),
    ("GET", "/v1/admin/signature", read_signature),
    ("POST", "/v1/admin/signature", create_signature),
    ("GET", "/v1/admin/checkout", read_checkout),
    ("PUT", "/v1/admin/checkout", write_checkout),
    ("GET", "/v1/admin/session/profiles", list_profiles),
)
_PUBLIC = (token, cdn)
_ADMIN = (read_signature, create_signature, read_checkout, write_checkout, list_profiles)


async def _answer(provider: Provider, endpoint: Handler, request: Request) -> Response:
    """Answer one request. Every request to the provider passes here, known by its endpoint's name.

    It is therefore the one place where another answer than the usual one is looked up and given.
    """
    name = getattr(endpoint, "__name__", "")
    provider.requests.append(
        Seen(
            endpoint=name,
            method=request.method,
            path=request.url.path,
            query=request.url.query,
            headers=dict(request.headers),
        )
    )
    asked = provider.faults.take(Answer, name, *map(str, request.path_params.values()))
    if asked is not None and not asked.after:
        await provider.clock.sleep(asked.delay)
        return answer_instead(asked, None, provider.clock)
    try:
        _admit(provider, endpoint, request)
        usual = await endpoint(provider, request)
    except Refusal as refused:
        usual = refusal(refused)
    if asked is None:
        return usual
    await provider.clock.sleep(asked.delay)
    return answer_instead(asked, usual, provider.clock)


def _admit(provider: Provider, endpoint: Handler, request: Request) -> None:
    if endpoint in _PUBLIC:
        return
    if request.path_params.get("account_id", provider.keys.account.id) != provider.keys.account.id:
        raise Refusal(403, "forbidden")
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not provider.keys.admits(bearer):
        raise Refusal(401, "invalid JWT")
    if endpoint in _ADMIN and not provider.keys.reads_configuration:
        raise Refusal(403, "forbidden")


def _route(provider: Provider, method: str, path: str, endpoint: Handler) -> Route:
    async def handle(request: Request) -> Response:
        return await _answer(provider, endpoint, request)

    return Route(path, handle, methods=[method])


def _unknown_path(_: Request, exc: Exception) -> Response:
    status = getattr(exc, "status_code", 404)
    return JsonResponse({"error": {"message": "Not found" if status == 404 else "Method not allowed"}}, status)  # noqa: PLR2004


def api(provider: Provider) -> Starlette:
    """Return the provider as an ASGI app: both of its hosts' routes under `/v1`, and the files' under `/cdn`."""
    return Starlette(
        routes=[_route(provider, *endpoint) for endpoint in _ENDPOINTS],
        exception_handlers={404: _unknown_path, 405: _unknown_path},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A provider that listens. `url` is for CHECKOUT_URL and API_URL; the cdn is another origin, as the real one is."""

    provider: Provider
    caller: Caller
    url: str
    cdn_url: str


def _unheard(_: Attempt) -> None:
    """Be told, and do nothing."""


@asynccontextmanager
async def open_provider(
    *,
    clock: Clock,
    personality: Personality = "current",
    account: Account | None = None,
    seed: int = 1,
    host: str = "127.0.0.1",
    port: int = 0,
    faults: Faults | None = None,
    callback_schedule: Sequence[float] = SCHEDULE,
    callback_timeout: float = TIMEOUT,
    heard: Callable[[Attempt], None] = _unheard,
    paint: Callable[[Invoice], bytes] = draw,
    **options: Any,
) -> AsyncIterator[Running]:
    """Open a provider on loopback; `options` are further fields of `Provider`. The same seed gives the same ids."""
    async with AsyncExitStack() as stack:
        sock, cdn_sock = listen(host, port), listen(host)
        random = Random(seed)  # noqa: S311  ids of a simulation
        keys = Keys(account=account or Account(), clock=clock, random=random)
        faults = faults or Faults(Random(seed))  # noqa: S311  of its own, so that a fault changes no id
        provider = Provider(
            base_url=f"{origin(sock)}/v1",
            cdn_url=f"{origin(cdn_sock)}/cdn",
            clock=clock,
            random=random,
            personality=personality,
            keys=keys,
            faults=faults,
            draw=paint,
            **options,
        )
        caller = await stack.enter_async_context(
            open_caller(
                account_id=keys.account.id,
                secret=lambda: keys.signature_secret,
                clock=clock,
                random=random,
                faults=faults,
                schedule=callback_schedule,
                timeout=callback_timeout,
                heard=heard,
            )
        )
        provider.webhooks.send = caller.send

        def notify(notification: Notification) -> None:
            caller.notify(notification)
            provider.webhooks.notify(notification)

        provider.notify = notify
        await stack.enter_async_context(serving(api(provider), sock, cdn_sock))
        yield Running(provider=provider, caller=caller, url=provider.base_url, cdn_url=provider.cdn_url)
