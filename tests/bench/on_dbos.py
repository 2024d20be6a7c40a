"""The same pipeline on DBOS: a workflow whose steps are each written down when they are done, the document too.

The transaction is read again before the capture, as ours is.
"""

import asyncio
import json
import sys
from typing import Any

from dbos import DBOS, SetWorkflowID

from tests.bench.front import Peers, open_peers, serve
from tests.bench.naive import AT_ONCE, capture, fetch, read, send
from tests.bench.peers import Found

_QUEUE = "deliveries"
_peers: list[Peers] = []  # steps are looked up by name, long after they were made


async def _read(transaction_id: str) -> dict[str, Any]:
    return await read(_peers[0].shop, transaction_id)


async def _fetch(url: str) -> bytes:
    return await fetch(_peers[0].shop, url)


async def _send(transaction: dict[str, Any], pdf: bytes) -> None:
    relays = _peers[0].relays
    smtp = await relays.get()
    try:
        await send(smtp, transaction, pdf)
    finally:
        relays.put_nowait(smtp)


async def _capture(transaction: dict[str, Any]) -> None:
    await capture(_peers[0].shop, transaction)


_read_step, _fetch_step, _send_step, _capture_step = (DBOS.step()(step) for step in (_read, _fetch, _send, _capture))


async def _deliver(transaction_id: str) -> None:
    transaction = await _read_step(transaction_id)
    pdf = await _fetch_step(transaction["metadata"]["kravia:invoice_url"])
    await _send_step(transaction, pdf)
    await _capture_step(await _read_step(transaction_id))


_workflow = DBOS.workflow()(_deliver)


async def _enqueue(transaction_id: str) -> None:
    with SetWorkflowID(transaction_id):
        await DBOS.enqueue_workflow_async(_QUEUE, _workflow, transaction_id)


async def _main(found: Found, port: int, url: str) -> None:
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "WARNING"})
    DBOS.launch()
    await DBOS.register_queue_async(_QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=0.1)
    try:
        async with open_peers(found) as peers:
            _peers.append(peers)
            await serve(found, port, _enqueue)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(_main(Found(**json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3]))
