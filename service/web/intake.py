"""What callbacks and webhooks share: a bounded body, 200 only once the record is committed, counting and logging."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.delivery import (
    Arrival,
    CallbackRefused,
    Clock,
    Forged,
    Received,
    Stale,
    Store,
    StoreUnavailable,
    Unrecorded,
    Unusable,
)
from service.metrics import Metrics
from service.web.asgi import error, taken

LARGEST_BODY = 1 << 20
"""Bytes of a body above which the answer is 413."""
MOST_READ = 8 << 20
"""Bytes of a body that are read and thrown away before the connection is closed."""

Judge = Callable[[bytes, datetime], Arrival | Unrecorded]
"""Tells what a body at a time amounts to; raises `Forged`, `Stale` or `Unusable`, in that order of precedence."""

_log = structlog.get_logger()


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
class Intake:
    """Takes what the provider tells us, and answers when it is in the record."""

    store: Store
    wake: Callable[[], None]
    metrics: Metrics
    clock: Clock

    async def take(self, request: Request, source: str, judge: Judge) -> Response:
        """Answer one request that came to `source` (`callback`, `webhook`): 200 only when it is in the record."""
        began = self.clock.monotonic()
        try:
            body, size = await read_body(request)
            if size > LARGEST_BODY:
                too_large = _FAR_TOO_LARGE if size > MOST_READ else _TOO_LARGE
                return self._refuse(too_large, source, "too_large", began)
            return await self._accept(judge(body, self.clock.now()), source, began)
        except CallbackRefused as exc:
            return self._refuse(_REFUSALS[type(exc)], source, exc.reason, began)
        except StoreUnavailable:  # a commit in doubt too: the provider calls again, and a duplicate does no harm
            return self._refuse(_UNAVAILABLE, source, "store_unavailable", began)
        except ClientDisconnect:  # it never came whole, and nobody waits for an answer
            raise
        except Exception:  # noqa: BLE001  # a bug of ours must not lose a callback: after a 503 they call again
            return self._refuse(_UNAVAILABLE, source, "unexpected", began, unexpected=True)

    async def _accept(self, arrival: Arrival | Unrecorded, source: str, began: float) -> Response:
        result: str = arrival if isinstance(arrival, Unrecorded) else await self._record(arrival)
        self.metrics.callback(result)
        _log.info(
            "callback.received",
            source=source,
            result=result,
            transaction_id=None if isinstance(arrival, Unrecorded) else arrival.transaction_id,
            duration_ms=self._since(began),
        )
        return taken()

    async def _record(self, arrival: Arrival) -> str:
        received = await self.store.receive(arrival)
        if received is not Received.UNCHANGED:
            self.wake()
        return received

    def _refuse(
        self, refusal: _Refusal, source: str, reason: str, began: float, *, unexpected: bool = False
    ) -> Response:
        self.metrics.callback(refusal.result)
        log = _log.error if unexpected else _log.warning
        log(
            "callback.rejected",
            source=source,
            result=refusal.result,
            reason=reason,
            duration_ms=self._since(began),
            exc_info=unexpected,
        )
        return error(refusal.status, refusal.word, headers={"connection": "close"} if refusal.close else None)

    def _since(self, began: float) -> float:
        return round((self.clock.monotonic() - began) * 1000, 1)


async def read_body(request: Request) -> tuple[bytes, int]:
    """Return a body and its size, or of one that is too large nothing, and the size at which reading stopped."""
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= LARGEST_BODY:
            body += chunk
        else:
            body.clear()
        if size > MOST_READ:
            break
    return bytes(body), size
