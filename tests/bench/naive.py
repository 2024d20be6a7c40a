"""The baseline of a delivery: the four network calls and nothing else, as one would write them in an afternoon.

Nothing is recorded, checked, decided or tried again. Connections are kept, the token is fetched once, the mail is as
large as ours. Run with the JSON of `Found` as its argument, it delivers the ids that each line it reads is a list of.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import httpx2 as httpx

from tests.bench.peers import Found

AT_ONCE = 16
_TEXT = "Hei!\n\nHer er fakturaen {number} for ordren {reference}, på {amount:.2f} {currency}.\n\n"
_HTML = "<p>Hei!</p><p>Her er fakturaen <b>{number}</b> for {reference}, på <b>{amount:.2f} {currency}</b>.</p>"
_FILLING = "Betal til kontonummeret som står i fakturaen, senest på forfallsdagen. Takk for handelen!\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What the script talks to."""

    http: httpx.AsyncClient
    url: str
    headers: dict[str, str]


async def open_shop(http: httpx.AsyncClient, found: Found) -> Shop:
    """Fetch the token."""
    answer = await http.post(
        f"{found.url}/accounts/T12345678/auth/token",
        auth=(found.client_id, found.client_secret),
        json={"grant_type": "client_credentials", "audience": f"{found.url}/accounts/T12345678"},
    )
    answer.raise_for_status()
    return Shop(http=http, url=found.url, headers={"Authorization": f"Bearer {answer.json()['access_token']}"})


async def read(shop: Shop, transaction_id: str) -> dict[str, Any]:
    """Read the transaction."""
    url = f"{shop.url}/transactions/{transaction_id}?includes=session"
    answer = await shop.http.get(url, headers=shop.headers)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


async def fetch(shop: Shop, url: str) -> bytes:
    """Fetch the invoice."""
    answer = await shop.http.get(url, headers=shop.headers)
    answer.raise_for_status()
    return answer.content


async def send(smtp: aiosmtplib.SMTP, transaction: dict[str, Any], pdf: bytes) -> None:
    """Mail the invoice."""
    words = {
        "number": transaction["metadata"]["kravia:invoice_number"],
        "reference": transaction["merchant_reference"],
        "amount": transaction["amount"] / 100,
        "currency": transaction["currency"],
    }
    mail = EmailMessage()
    mail["From"] = "Butikken AS <faktura@butikken.example>"
    mail["To"] = transaction["billing_address"]["email"]
    mail["Subject"] = "Faktura {number}".format(**words)
    mail.set_content(_TEXT.format(**words) + _FILLING * 4)
    mail.add_alternative(_HTML.format(**words) + f"<p>{_FILLING}</p>\n" * 95, subtype="html")
    mail.add_attachment(pdf, maintype="application", subtype="pdf", filename="invoice.pdf")
    await smtp.send_message(mail)


async def capture(shop: Shop, transaction: dict[str, Any]) -> None:
    """Capture all of it."""
    lines = [{"line_id": item["line_id"], "amount": item["amount"]} for item in transaction["items"]]
    body = {"amount": transaction["amount"], "capture_reference": transaction["id"], "items": lines}
    answer = await shop.http.post(
        f"{shop.url}/transactions/{transaction['id']}/capture", headers=shop.headers, json=body
    )
    answer.raise_for_status()


async def open_smtp(smtp_url: str) -> aiosmtplib.SMTP:
    """Connect to the relay."""
    host, _, port = smtp_url.rpartition("/")[2].partition(":")
    smtp = aiosmtplib.SMTP(hostname=host, port=int(port), start_tls=False)
    await smtp.connect()
    return smtp


async def deliver_all(shop: Shop, smtp_url: str, ids: list[str]) -> None:
    """Deliver these, several at once."""
    left = iter(ids)

    async def work() -> None:
        smtp = await open_smtp(smtp_url)
        for transaction_id in left:
            transaction = await read(shop, transaction_id)
            pdf = await fetch(shop, transaction["metadata"]["kravia:invoice_url"])
            await send(smtp, transaction, pdf)
            await capture(shop, transaction)
        await smtp.quit()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def _main(found: Found) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        shop = await open_shop(http, found)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await deliver_all(shop, found.smtp_url, json.loads(line))


if __name__ == "__main__":
    asyncio.run(_main(Found(**json.loads(sys.argv[1]))))
