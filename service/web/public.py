"""The public face: what the provider and the load balancer talk to."""

from collections.abc import Callable
from datetime import datetime

from starlette.types import ASGIApp

from service.delivery import Arrival, CallbackRequest, Clock, Store, Unrecorded, WebhookRequest
from service.metrics import Metrics
from service.web.asgi import Handler, application, under
from service.web.callback import Callbacks
from service.web.health import PublicHealth, livez
from service.web.intake import Intake
from service.web.pages import InvoicePages
from service.web.receipts import Receipts
from service.web.webhooks import Webhooks


def public_app(
    *,
    authenticate: Callable[[CallbackRequest, datetime], Arrival | Unrecorded],
    authenticate_webhook: Callable[[WebhookRequest, datetime], Arrival | Unrecorded] | None = None,
    store: Store,
    wake: Callable[[], None],
    metrics: Metrics,
    clock: Clock,
    prefixes: tuple[str, ...],
    pages: InvoicePages | None = None,
    receipts: Receipts | None = None,
) -> ASGIApp:
    """Return the application; without `authenticate_webhook` it has no place for webhooks.

    Both raise `Forged`, `Stale` or `Unusable`, in that order of precedence. `prefixes` are the decoded path prefixes of
    the public URLs (`/delivery`), which a proxy may keep or strip.
    """
    intake = Intake(store=store, wake=wake, metrics=metrics, clock=clock)
    routes: dict[str, dict[str, Handler]] = {
        "/callback": Callbacks(authenticate=authenticate, intake=intake).handlers(),
        "/livez": {"GET": livez},
        "/readyz": {"GET": PublicHealth(store=store).readyz},
    }
    if authenticate_webhook is not None:
        routes["/webhooks/dintero"] = Webhooks(authenticate=authenticate_webhook, intake=intake).handlers()
    if pages is not None:
        routes |= pages.routes()
    if receipts is not None:
        routes |= receipts.routes()
    return application(under(prefixes, routes), metrics.alarm)
