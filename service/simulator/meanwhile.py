"""What somebody else does to a transaction while the merchant works on it."""

from collections.abc import Callable
from dataclasses import dataclass

from service.simulator.deeds import Meanwhile
from service.simulator.documents import Json, add_event, collection_begun
from service.simulator.provider import Provider


def happen(provider: Provider, point: str, transaction_id: str) -> None:
    """Let happen what is asked for at this point, if it still can."""
    transaction = provider.transactions.get(transaction_id)
    if transaction is None:
        return
    asked = provider.faults.take(Meanwhile, point, transaction_id, fits=lambda it: _DEEDS[it.deed].can(transaction))
    if asked is not None:
        _DEEDS[asked.deed].do(provider, transaction)


def _void(provider: Provider, transaction: Json) -> None:
    provider.void(transaction["id"])


def _part(provider: Provider, transaction: Json) -> None:
    share = transaction["amount"] * 2 // 5
    event = add_event(transaction, "CAPTURE", "PARTIALLY_CAPTURED", provider.clock.now(), provider.random, amount=share)
    provider.tell(transaction, event=event)


def _capture(provider: Provider, transaction: Json) -> None:
    provider.begin_collection(transaction, {"amount": transaction["amount"], "capture_reference": "by hand"})


def _pay(provider: Provider, transaction: Json) -> None:
    if not collection_begun(transaction):
        _capture(provider, transaction)
    if transaction["status"] == "AUTHORIZED":
        provider.pay(transaction["id"])


def _fail(provider: Provider, transaction: Json) -> None:
    error = {"code": "invalid", "message": "Somebody else's capture was not carried out"}
    now, kind = provider.clock.now(), provider.capture_event
    add_event(transaction, kind, transaction["status"], now, provider.random, success=False, error=error, amount=1)


def _authorized(transaction: Json) -> bool:
    return bool(transaction["status"] == "AUTHORIZED")


def _untouched(transaction: Json) -> bool:
    return _authorized(transaction) and not collection_begun(transaction)


@dataclass(frozen=True, slots=True)
class _Deed:
    can: Callable[[Json], bool]
    do: Callable[[Provider, Json], None]


_DEEDS = {
    "void": _Deed(_authorized, _void),
    "part": _Deed(_untouched, _part),
    "capture": _Deed(_untouched, _capture),
    "pay": _Deed(_authorized, _pay),
    "fail": _Deed(_authorized, _fail),
}
