"""Telling people over ALERT_URL: one JSON document by POST. The address is a secret; no failure names it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2 as httpx

from service.concerns import ABOUT, Notice
from service.delivery import Case, Concern, TransientFailure

_CONNECT = 10.0  # seconds
_WHOLE = 30.0
_SUCCESS = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poster:
    """A way to tell people, opened by `open_poster`."""

    client: httpx.AsyncClient
    url: str
    name: str = "url"

    async def tell(self, notice: Notice, key: str) -> None:
        """Post the notice; raises `TransientFailure` for anything but an answer from 200 to 299."""
        try:
            async with asyncio.timeout(_WHOLE):
                # As a stream that is not read: whatever is answered, only the status matters.
                request = self.client.stream("POST", self.url, json=document(notice, key))
                async with request as answer:
                    status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:  # a time-out is one of the last
            raise TransientFailure(f"ALERT_URL: no answer ({type(exc).__name__})") from exc
        if status not in _SUCCESS:
            raise TransientFailure(f"ALERT_URL answered {status}")


@asynccontextmanager
async def open_poster(url: str) -> AsyncIterator[Poster]:
    """Open the way over a webhook; redirects are not followed, and no proxy is asked."""
    timeout = httpx.Timeout(_WHOLE, connect=_CONNECT)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout) as client:
        yield Poster(client=client, url=url)


def document(notice: Notice, key: str) -> dict[str, object]:
    """Return what is posted. `text` is the whole message, where chat programs look for it."""
    return {
        "text": f"{notice.subject}\n\n{notice.text}",
        "id": key,
        "kind": notice.kind,
        "account_id": notice.account_id,
        "at": _iso(notice.at),
        "subject": notice.subject,
        "concerns": [_concern(concern) for concern in notice.concerns],
    }


def _concern(concern: Concern) -> dict[str, object]:
    about = ABOUT[concern.condition]
    return {
        "name": concern.condition.value,
        "count": concern.count,
        "title": about.title,
        "meaning": about.meaning,
        "commands": [f"merchant-delivery {command}" for command in about.mend],
        "cases": [_case(one) for one in concern.cases],
    }


def _case(one: Case) -> dict[str, object]:
    return {
        "subject": one.subject or None,
        "invoice_number": one.invoice_number,
        "amount": one.amount,
        "currency": one.currency,
        "reason": one.reason,
        "since": _iso(one.since) if one.since else None,
        "by": one.by,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
