"""What is created at the provider: sessions and invoices. A lost answer is looked up, and never asked for again."""

import asyncio
from collections.abc import Collection
from urllib.parse import urlencode

from service.delivery import (
    AccountFailure,
    Clock,
    DeliveryFailure,
    PermanentFailure,
    Standing,
    Transaction,
    TransientFailure,
)
from service.dintero.access import Access, is_success, parsed
from service.dintero.reading import document, identifier, members, objects, text
from service.dintero.transaction import parse_transaction
from service.dintero.wire import Answer, AnswerLost, place, segment
from service.ordering import Created, Creation, NotCreated, Opened, Result, Way
from service.privacy import scrub

CREATE_TIMEOUT = 60.0
"""Seconds after a creation was begun from which a look shows whether it took effect; our own time-out is shorter."""

_LOOKS = (1.0, 4.0, 10.0)  # seconds before each look for what an answer was lost of
_FAILED = (Standing.FAILED, Standing.DECLINED)
_LISTED = 100
_OPENING, _CREATING, _LOOKING = "creating the session", "creating the invoice", "looking up the merchant reference"


class Creating:
    """Creates. What is created once, under one merchant reference, is never created again."""

    def __init__(self, access: Access, clock: Clock, *, checkout_url: str, bound: float = CREATE_TIMEOUT - 10) -> None:
        """`bound`: the most seconds that a creation takes, without the looks after it."""
        self._access = access
        self._clock = clock
        self._url = checkout_url
        self._bound = bound

    async def open(self, creation: Creation) -> Opened:
        """Create a checkout session; raises `NotCreated`. No invoice comes of one that nobody pays."""
        return await self._open(creation, creation.toggles())

    async def invoice(self, creation: Creation, *, again: bool = False, but: Collection[str] = ()) -> Created:
        """Create an invoice under a merchant reference that none has yet, and return what came of it.

        `again`: that no success has yet; `but` are the failures that are known to have it. Raises `NotCreated` when it
        is certain that nothing was, and the same may be asked another time.
        """
        # One bound around all of it, both calls of two and also a second try after a 401: CREATE_TIMEOUT rests on it.
        ends = asyncio.get_running_loop().time() + self._bound
        path = creation.paths[-1]
        if creation.way is Way.TWO_STEP:
            first = await self._first(creation, but, ends)
            if isinstance(first, Created):
                return first
            path = path.format(id=segment(first.id))
        body = document((creation.pay or creation.body).encode())
        try:
            async with asyncio.timeout_at(ends):
                answer = await self._post(path, body, _CREATING, creation.toggles(again=again))
        except AnswerLost as exc:
            return await self._lost(creation, but, exc.reason)
        except TimeoutError:
            return await self._lost(creation, but, f"Dintero did not answer in time when {_CREATING}")
        except TransientFailure as exc:  # no token, or no connection
            raise NotCreated(exc.reason, ours=True) from exc
        return await self._judged(creation, answer, but)

    async def look(self, creation: Creation, *, but: Collection[str] = ()) -> Created | None:
        """Return what has this merchant reference; None when nothing has. Raises as reading does.

        Of several, a success counts before a failure. What is not the same invoice, or no more one, is a failure of
        this one, also where it is among `but`: only what failed leaves the reference to another.
        """
        query = urlencode({"merchant_reference": creation.reference, "limit": _LISTED})
        answer = await self._access.exchange("GET", place(f"{self._url}/transactions?{query}"), doing=_LOOKING)
        if not is_success(answer.status):
            raise self._access.refused(answer, _LOOKING)
        listed = parsed(answer, _LOOKING)
        if not isinstance(listed, list):
            raise TransientFailure(f"Dintero answered with something that is no list when {_LOOKING}")
        read_at = self._clock.now()
        found = [(parse_transaction(one, read_at=read_at), one) for one in objects(listed)]
        fitting = [
            (transaction, one)
            for transaction, one in found
            if transaction.merchant_reference == creation.reference
            and not (transaction.id in but and transaction.standing in _FAILED)
        ]
        if not fitting:
            return None
        transaction, one = min(fitting, key=lambda pair: _rank(pair[0].standing))
        return self._found(creation, transaction, one)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _first(self, creation: Creation, but: Collection[str], ends: float) -> Opened | Created:
        """Return the session that is paid next, or what has the reference already.

        Dintero documents its strictness for /sessions/pay only, so that nothing but a look keeps two steps from being
        taken twice.
        """
        try:
            async with asyncio.timeout_at(ends):
                if (found := await self.look(creation, but=but)) is not None:
                    return found
                return await self._open(creation, creation.toggles(opening=True))
        except TimeoutError as exc:
            raise NotCreated(f"Dintero did not answer in time when {_OPENING}") from exc
        except NotCreated as exc:
            if not exc.for_good:
                raise
            return await self._refused(creation, but, exc.reason)
        except DeliveryFailure as exc:
            raise NotCreated(exc.reason, ours=isinstance(exc, AccountFailure)) from exc

    async def _open(self, creation: Creation, toggles: str | None) -> Opened:
        try:
            answer = await self._post(creation.paths[0], document(creation.body.encode()), _OPENING, toggles)
            if not is_success(answer.status):
                refused = self._access.effect_refused(answer, _OPENING)
                for_good = isinstance(refused, PermanentFailure)
                raise NotCreated(refused.reason, ours=isinstance(refused, AccountFailure), for_good=for_good)
            given = members(parsed(answer, _OPENING))
        except (
            TransientFailure
        ) as exc:  # a session that nobody pays does nothing, nor does it count for what strict-success asks
            raise NotCreated(exc.reason, ours=isinstance(exc, AccountFailure)) from exc
        session_id = identifier(given.get("id"))
        if session_id is None:
            raise NotCreated(f"Dintero answered without a session's id when {_OPENING}")
        return Opened(id=session_id, url=text(given.get("url")))

    async def _post(self, path: str, body: object, doing: str, toggles: str | None) -> Answer:
        at = place(f"{self._url}/{path}")
        return await self._access.exchange("POST", at, doing=doing, json=body, toggles=toggles)

    async def _judged(self, creation: Creation, answer: Answer, but: Collection[str]) -> Created:
        """Return what an answer says; a success may be of an invoice that failed."""
        if is_success(answer.status):
            try:
                given = members(parsed(answer, _CREATING))
                shown = given if "id" in given else members(given.get("transaction"))
                transaction = parse_transaction(shown, read_at=self._clock.now())
            except TransientFailure as exc:
                return await self._lost(creation, but, exc.reason)
            refused = transaction.standing in _FAILED or given.get("success") is False
            return self._outcome(creation, transaction, shown, failed=refused)
        failure = self._access.effect_refused(answer, _CREATING)
        if isinstance(failure, TransientFailure):
            raise NotCreated(failure.reason, ours=isinstance(failure, AccountFailure))
        if isinstance(failure, PermanentFailure):
            return await self._refused(creation, but, failure.reason)
        return await self._lost(creation, but, failure.reason)

    async def _refused(self, creation: Creation, but: Collection[str], reason: str) -> Created:
        """Return why it was refused: it may be that the merchant reference is taken, and by the very same."""
        try:
            found = await self.look(creation, but=but)
        except TransientFailure as exc:
            raise NotCreated(f"{reason.rstrip('.')}; {exc.reason}", ours=isinstance(exc, AccountFailure)) from exc
        return found or Created(result=Result.FAILED, reason=reason)

    async def _lost(self, creation: Creation, but: Collection[str], reason: str) -> Created:
        """Look for what was created while its answer was lost."""
        said = reason
        for wait in _LOOKS:
            await self._clock.sleep(wait)
            try:
                found = await self.look(creation, but=but)
            except DeliveryFailure as exc:
                said = exc.reason
                continue
            if found is not None:  # nobody else uses this reference: it is what we asked for
                result = Result.CREATED if found.result is Result.EXISTED else found.result
                return Created(
                    result=result, transaction_id=found.transaction_id, status=found.status, reason=found.reason
                )
        return Created(result=Result.UNCONFIRMED, reason=said)

    def _found(self, creation: Creation, transaction: Transaction, shown: object) -> Created:
        if transaction.standing in _FAILED:
            return self._outcome(creation, transaction, shown, failed=True)
        words = ""
        if transaction.standing is Standing.VOIDED:
            words = "the merchant reference is a voided transaction's; use another"
        elif other := _differences(creation, transaction):
            words = f"the merchant reference is another transaction's, with another {other}"
        if words:
            return Created(result=Result.FAILED, transaction_id=transaction.id, status=transaction.status, reason=words)
        return Created(result=Result.EXISTED, transaction_id=transaction.id, status=transaction.status)

    def _outcome(self, creation: Creation, transaction: Transaction, shown: object, *, failed: bool) -> Created:
        if not failed:
            return Created(result=Result.CREATED, transaction_id=transaction.id, status=transaction.status)
        words = _error(members(shown)) or f"Dintero says {transaction.status or 'no success'}, and not why"
        hidden = scrub(words, (creation.reference,))
        return Created(result=Result.FAILED, transaction_id=transaction.id, status=transaction.status, reason=hidden)


def _rank(standing: Standing) -> int:
    if standing in _FAILED:
        return 2
    return 1 if standing is Standing.VOIDED else 0


def _differences(creation: Creation, transaction: Transaction) -> str:
    pairs = {
        "amount": (transaction.amount, creation.amount),
        "currency": (transaction.currency, creation.currency),
        "product": (transaction.product_type, creation.product_type or transaction.product_type),
    }
    return ", ".join(name for name, (theirs, ours) in pairs.items() if theirs != ours)


def _error(shown: object) -> str | None:
    """Return code and message of the newest event's error (dintero-api.md, 4)."""
    for event in reversed(list(objects(members(shown).get("events")))):
        error = members(event.get("error"))
        words = [text(error.get(name)) for name in ("code", "message")]
        if said := ": ".join(filter(None, words)):
            return said
    return None
