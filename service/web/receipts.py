"""Delivery reports in: handed on byte for byte to whoever can tell theirs from a forged one, and then recorded."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.delivery import (
    CallbackRefused,
    Clock,
    DeliveryFailure,
    Forged,
    Report,
    Reported,
    Reporting,
    ReportRequest,
    Stale,
    StoreUnavailable,
    Unusable,
)
from service.metrics import Metrics
from service.web.asgi import Handler, error, taken
from service.web.intake import LARGEST_BODY, MOST_READ, read_body

PATH = "/receipts/"
"""Before a channel's name."""

_log = structlog.get_logger()
_STATUS: dict[type[CallbackRefused], tuple[int, str]] = {
    Forged: (401, "forged"),
    Stale: (503, "stale"),
    Unusable: (400, "unusable"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipts:
    """Takes the reports of the channels that have any. `public_urls`: their senders were given one, now or earlier."""

    reporting: Mapping[str, Reporting]
    take: Callable[[Sequence[Report]], Awaitable[tuple[Reported, ...]]]
    metrics: Metrics
    clock: Clock
    public_urls: tuple[str, ...]

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Return who answers at which path: one for each channel, and none besides."""
        return {f"{PATH}{name}": {"POST": self._handler(name)} for name in self.reporting}

    def _handler(self, channel: str) -> Handler:
        async def handle(request: Request) -> Response:
            return await self.handle(channel, request)

        return handle

    async def handle(self, channel: str, request: Request) -> Response:
        """Answer one request: 200 only when all that it tells is in the record, also of what matches nothing yet."""
        try:
            body, size = await read_body(request)
            if size > LARGEST_BODY:
                return self._refuse(channel, 413, "too_large", "too_large", close=size > MOST_READ)
            results = await self.take(await self._read(channel, request, body))
        except CallbackRefused as exc:
            status, result = _STATUS[type(exc)]
            return self._refuse(channel, status, result, exc.reason)
        except DeliveryFailure as exc:  # what is needed to verify it cannot be had just now
            return self._refuse(channel, 503, "unavailable", exc.reason)
        except StoreUnavailable:  # a commit in doubt too: they tell it again, and twice is once
            return self._refuse(channel, 503, "unavailable", "store_unavailable")
        except ClientDisconnect:
            raise
        except Exception:  # noqa: BLE001  # a bug of ours, or of somebody's own channel, must not lose a report
            return self._refuse(channel, 503, "unavailable", "unexpected", unexpected=True)
        _log.info("receipt.received", channel=channel, results=[str(result) for result in results])
        return taken()

    async def _read(self, channel: str, request: Request, body: bytes) -> tuple[Report, ...]:
        """Return what a request tells: some sign the address that they were given, maybe an earlier one."""
        *others, last = (_asked(request, body, f"{url}{PATH}{channel}") for url in self.public_urls)
        for asked in others:
            with suppress(Forged):
                return await self.reporting[channel].read_reports(asked, now=self.clock.now())
        return await self.reporting[channel].read_reports(last, now=self.clock.now())

    def _refuse(
        self, channel: str, status: int, result: str, reason: str, *, close: bool = False, unexpected: bool = False
    ) -> Response:
        self.metrics.report(channel, result)
        log = _log.error if unexpected else _log.warning
        log("receipt.rejected", channel=channel, result=result, reason=reason, exc_info=unexpected)
        return error(status, result, headers={"connection": "close"} if close else None)


def _asked(request: Request, body: bytes, url: str) -> ReportRequest:
    """Return a request as its sender made it: the public address, and the query undecoded."""
    query = request.scope["query_string"].decode("latin-1")
    return ReportRequest(
        method=request.method,
        url=f"{url}?{query}" if query else url,
        headers=tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers.raw),
        body=body,
    )
