"""The public face: a session's signed callback in, an answer once the record is committed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from service.delivery import (
    Arrival,
    CallbackRefused,
    CallbackRequest,
    Clock,
    Forged,
    Received,
    Stale,
    Store,
    StoreUnavailable,
    Unusable,
)
from service.metrics import Metrics
from service.web.asgi import Handler, Routes, answer, application, error, under
from service.web.health import PublicHealth, livez

LARGEST_BODY = 1 << 20
"""Bytes of a body above which the answer is 413."""
MOST_READ = 8 << 20
"""Bytes of a body that are read and thrown away before the connection is closed."""

_log = structlog.get_logger()


def public_app(
    *,
    authenticate: Callable[[CallbackRequest, datetime], Arrival | None],
    store: Store,
    wake: Callable[[], None],
    metrics: Metrics,
    clock: Clock,
    prefixes: tuple[str, ...],
) -> ASGIApp:
    """Return what the provider and the load balancer talk to.

    `authenticate` raises `Forged`, `Stale` or `Unusable`, in that order of precedence. `prefixes` are the decoded path
    prefixes of the public URLs (`/delivery`), which a proxy may keep or strip.
    """
    callbacks = Callbacks(authenticate=authenticate, store=store, wake=wake, metrics=metrics, clock=clock)
    routes: Routes = {
        "/callback": callbacks.handlers(),
        "/livez": {"GET": livez},
        "/readyz": {"GET": PublicHealth(store=store).readyz},
    }
    return application(under(prefixes, routes), metrics.alarm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """An answer that is not 200: `result` is counted, `word` is what the caller reads."""

    status: int
    result: str
    word: str
    close: bool = False


_REFUSALS: dict[type[CallbackRefused], _Refusal] = {
    Forged: _Refusal(status=401, result="forged", word="bad_signature"),
    Stale: _Refusal(status=503, result="stale", word="outside_tolerance"),
    Unusable: _Refusal(status=400, result="unusable", word="no_usable_transaction_id"),
}
_TOO_LARGE = _Refusal(status=413, result="too_large", word="too_large")
_FAR_TOO_LARGE = _Refusal(status=413, result="too_large", word="too_large", close=True)
_UNAVAILABLE = _Refusal(status=503, result="unavailable", word="unavailable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Takes callbacks. `authenticate` returns None for an authentic one that reports an error without an id."""

    authenticate: Callable[[CallbackRequest, datetime], Arrival | None]
    store: Store
    wake: Callable[[], None]
    metrics: Metrics
    clock: Clock

    def handlers(self) -> dict[str, Handler]:
        """Return who answers which method."""
        return {"GET": self.handle, "POST": self.handle}

    async def handle(self, request: Request) -> Response:
        """Answer one callback: 200 only when it is in the record."""
        began = self.clock.monotonic()
        try:
            size = await _drain(request)
            if size > LARGEST_BODY:
                return self._refuse(_FAR_TOO_LARGE if size > MOST_READ else _TOO_LARGE, "too_large", began)
            arrival = self.authenticate(_asked(request), self.clock.now())
            return await self._take(arrival, began)
        except CallbackRefused as exc:
            return self._refuse(_REFUSALS[type(exc)], exc.reason, began)
        except StoreUnavailable:  # a commit in doubt too: the provider calls again, and a duplicate does no harm
            return self._refuse(_UNAVAILABLE, "store_unavailable", began)
        except ClientDisconnect:  # it never came whole, and nobody waits for an answer
            raise
        except Exception:  # noqa: BLE001  # a bug of ours must not lose a callback: after a 503 they call again
            return self._refuse(_UNAVAILABLE, "unexpected", began, unexpected=True)

    async def _take(self, arrival: Arrival | None, began: float) -> Response:
        result = "error_report" if arrival is None else await self._record(arrival)
        self.metrics.callback(result)
        _log.info(
            "callback.received",
            result=result,
            transaction_id=arrival and arrival.transaction_id,
            duration_ms=self._since(began),
        )
        return answer(200, {})

    async def _record(self, arrival: Arrival) -> str:
        received = await self.store.receive(arrival)
        if received is not Received.UNCHANGED:
            self.wake()
        return received

    def _refuse(self, refusal: _Refusal, reason: str, began: float, *, unexpected: bool = False) -> Response:
        self.metrics.callback(refusal.result)
        log = _log.error if unexpected else _log.warning
        log(
            "callback.rejected",
            result=refusal.result,
            reason=reason,
            duration_ms=self._since(began),
            exc_info=unexpected,
        )
        return error(refusal.status, refusal.word, headers={"connection": "close"} if refusal.close else None)

    def _since(self, began: float) -> float:
        return round((self.clock.monotonic() - began) * 1000, 1)


async def _drain(request: Request) -> int:
    """Read a body and throw it away; return its size, or the size at which reading stopped."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_READ:
            break
    return size


def _asked(request: Request) -> CallbackRequest:
    signatures = request.headers.getlist("dintero-signature")
    return CallbackRequest(
        method=request.method,
        raw_query=request.scope["query_string"].decode("latin-1"),
        signature=",".join(signatures) if signatures else None,
    )
