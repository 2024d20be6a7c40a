"""The faces for those who watch: liveness, readiness, metrics."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from service.delivery import Concern, Store, StoreUnavailable
from service.metrics import CONTENT_TYPE, Metrics
from service.privacy import scrub
from service.web.asgi import answer, application


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with one part: `blocking` when the process cannot do its work (a paused channel is not)."""

    part: str  # "store", a channel's name, "provider", "worker"
    detail: str
    blocking: bool


async def _no_trouble() -> tuple[Trouble, ...]:
    return ()


async def _no_concern() -> tuple[Concern, ...]:
    return ()


def admin_app(
    *,
    store: Store,
    metrics: Metrics,
    ready: Callable[[], Awaitable[Sequence[Trouble]]] = _no_trouble,
    concerns: Callable[[], Awaitable[Sequence[Concern]]] = _no_concern,
) -> ASGIApp:
    """Return what only operators and their tools talk to.

    `ready` says what is wrong beside the store, `concerns` what a person should know of its deliveries.
    """
    health = AdminHealth(store=store, metrics=metrics, ready=ready, concerns=concerns)
    return application(
        {
            "/livez": {"GET": livez},
            "/readyz": {"GET": health.readyz},
            "/metrics": {"GET": health.show_metrics},
        },
        metrics.alarm,
    )


async def livez(_request: Request) -> Response:
    """Say that the process runs."""
    return answer(200, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicHealth:
    """What anybody may know: whether the store answers."""

    store: Store

    async def readyz(self, _request: Request) -> Response:
        """Answer 200 or 503, without detail."""
        try:
            await self.store.ping()
        except StoreUnavailable:
            return answer(503, {})
        return answer(200, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminHealth:
    """What an operator may know."""

    store: Store
    metrics: Metrics
    ready: Callable[[], Awaitable[Sequence[Trouble]]]
    concerns: Callable[[], Awaitable[Sequence[Concern]]]

    async def readyz(self, _request: Request) -> Response:
        """Name what is wrong; 503 when something of it keeps the process from its work."""
        troubles = await self._troubles()
        ready = not any(trouble.blocking for trouble in troubles)
        named = [{"part": t.part, "detail": scrub(t.detail), "blocking": t.blocking} for t in troubles]
        return answer(200 if ready else 503, {"ready": ready, "troubles": named})

    async def _troubles(self) -> list[Trouble]:
        try:
            await self.store.ping()
            return list(await self.ready())
        except StoreUnavailable as exc:
            return [Trouble(part="store", detail=str(exc) or "the store does not answer", blocking=True)]

    async def show_metrics(self, _request: Request) -> Response:
        """Show the counters also while the store does not answer: that is when they are looked at."""
        try:
            counts, concerns = await self.store.counts(), await self.concerns()
        except StoreUnavailable:
            counts, concerns = None, ()
        return Response(self.metrics.render(counts, concerns), media_type=None, headers={"content-type": CONTENT_TYPE})
