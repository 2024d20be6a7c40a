"""A delivery as JSON, in the words of the public contract."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from service.delivery import Delivery, Entry, Send


def delivery_json(delivery: Delivery, history: Sequence[Entry] | None = None) -> dict[str, Any]:
    """Return what `deliveries list --json` says of a delivery; with `history`, what `show --json` says."""
    said: dict[str, Any] = {
        "transaction_id": delivery.transaction_id,
        "account_id": delivery.account_id,
        "kind": delivery.kind.value,
        "outcome": delivery.outcome.value,
        "progress": list(delivery.progress),
        "reason": delivery.reason,
        "invoice_number": delivery.invoice_number,
        "channel": delivery.channel,
        "recipient": delivery.recipient,
        "delivery_proof": delivery.delivery_proof and delivery.delivery_proof.value,
        "decided_by": delivery.decided_by and delivery.decided_by.value,
        "amount": delivery.amount,
        "currency": delivery.currency,
        "merchant_reference": delivery.merchant_reference,
        "attempt": delivery.attempt,
        "due_at": time_text(delivery.due_at),
        "received_at": time_text(delivery.received_at),
        "delivered_at": None if delivery.bounced else time_text(delivery.delivered_at),
        "captured_at": time_text(delivery.captured_at),
        "voided_at": time_text(delivery.voided_at),
        "closed_at": time_text(delivery.closed_at),
        "erased_at": time_text(delivery.erased_at),
        "source": delivery.source,
        "delivery_id": delivery.id,  # the transaction's, or a grouped invoice's own
    }
    if history is not None:
        said["history"] = [_entry_json(entry) for entry in history]
    return said


def send_json(send: Send) -> dict[str, Any]:
    """Return what is said of one attempt to reach a recipient over a channel."""
    return {
        "channel": send.channel,
        "recipient": send.recipient,
        "purpose": send.purpose.value,
        "outcome": send.outcome.value,
        "proof": send.proof and send.proof.value,
        "answer": send.answer,
        "message_id": send.message_id,
        "remote_id": send.remote_id,
        "begun_at": time_text(send.begun_at),
        "settled_at": time_text(send.settled_at),
        "reported_at": time_text(send.reported_at),
    }


def time_text(at: datetime | None) -> str | None:
    """Return an aware time in UTC to the second, as `2026-11-22T10:00:00Z`."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "at": time_text(entry.at),
        "step": entry.step.value,
        "result": entry.result.value,
        "channel": entry.channel,
        "detail": entry.detail,
        "message_id": entry.message_id,
    }
