"""What changes a transaction at the provider: capture and void, and what an answer says of whether it took effect."""

import asyncio

from service.delivery import CaptureAnswer, CaptureRequest, Clock, Transaction, TransientFailure, UnconfirmedFailure
from service.dintero.access import Access, is_success, parsed
from service.dintero.transaction import parse_transaction
from service.dintero.wire import Answer, AnswerLost, place, segment

CAPTURE_TIMEOUT = 60.0
"""Seconds after a capture was begun from which a read shows whether it took effect; our own time-out is shorter."""

_OK = 200
_ACCEPTED = 202


class Effects:
    """Asks for effects. Whatever leaves open whether one took place is an `UnconfirmedFailure`."""

    def __init__(self, access: Access, clock: Clock, *, checkout_url: str) -> None:
        self._access = access
        self._clock = clock
        self._checkout_url = checkout_url

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        """Capture; see `Payments`."""
        doing = "capturing"
        answer = await self._ask(request.transaction_id, "capture", doing=doing, json=_capture_body(request))
        if answer.status == _ACCEPTED and answer.event_request_id:
            return CaptureAnswer(event_request_id=answer.event_request_id)
        if answer.status == _OK:
            return CaptureAnswer(transaction=self._shown(request.transaction_id, answer, doing))
        raise self._access.effect_refused(answer, doing)

    async def void(self, transaction_id: str) -> Transaction:
        """Void; see `Payments`. There is no body: one integration sent `null`, and was refused."""
        doing = "voiding"
        answer = await self._ask(transaction_id, "void", doing=doing)
        if is_success(answer.status):
            return self._shown(transaction_id, answer, doing)
        raise self._access.effect_refused(answer, doing)

    async def _ask(self, transaction_id: str, verb: str, *, doing: str, json: object = None) -> Answer:
        at = place(f"{self._checkout_url}/transactions/{segment(transaction_id)}/{verb}")
        try:
            # One bound around all of it, also a second try after a 401: CAPTURE_TIMEOUT rests on it.
            async with asyncio.timeout(CAPTURE_TIMEOUT - 10):
                return await self._access.exchange("POST", at, doing=doing, json=json)
        except AnswerLost as exc:
            raise UnconfirmedFailure(exc.reason) from exc
        except TimeoutError as exc:
            raise UnconfirmedFailure(f"Dintero did not answer in time when {doing}") from exc

    def _shown(self, transaction_id: str, answer: Answer, doing: str) -> Transaction:
        try:
            transaction = parse_transaction(parsed(answer, doing), read_at=self._clock.now())
        except TransientFailure as exc:
            raise UnconfirmedFailure(exc.reason) from exc
        if transaction.id != transaction_id:
            raise UnconfirmedFailure(f"Dintero answered with another transaction when {doing}")
        return transaction


def _capture_body(request: CaptureRequest) -> dict[str, object]:
    body: dict[str, object] = {"amount": request.amount, "capture_reference": request.reference}
    if request.lines:
        body["items"] = [{"line_id": line.line_id, "amount": line.amount} for line in request.lines]
    return body
