"""The same pipeline on Procrastinate: two jobs, so that a crash before the capture does not send the mail again.

The second reads the transaction again, as ours does. No record is kept, and no intent: a crash between the relay's
answer and the end of the first job does send it again.
"""

import asyncio
import json
import sys

from procrastinate import App, PsycopgConnector

from tests.bench.front import Peers, open_peers, serve
from tests.bench.naive import AT_ONCE, capture, fetch, read, send
from tests.bench.peers import Found


def jobs(app: App, peers: Peers) -> App:
    """Add the two jobs; a failed one is tried again."""

    async def deliver(transaction_id: str) -> None:
        transaction = await read(peers.shop, transaction_id)
        pdf = await fetch(peers.shop, transaction["metadata"]["kravia:invoice_url"])
        smtp = await peers.relays.get()
        try:
            await send(smtp, transaction, pdf)
        finally:
            peers.relays.put_nowait(smtp)
        await app.configure_task("capture").defer_async(transaction_id=transaction_id)

    async def begin_collection(transaction_id: str) -> None:
        await capture(peers.shop, await read(peers.shop, transaction_id))

    app.task(name="deliver", retry=5)(deliver)
    app.task(name="capture", retry=5)(begin_collection)
    return app


async def _main(found: Found, port: int, url: str) -> None:
    app = App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=AT_ONCE))
    async with open_peers(found) as peers, jobs(app, peers).open_async():
        await app.schema_manager.apply_schema_async()
        working = asyncio.create_task(
            app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False, delete_jobs="never")
        )
        deliver = app.configure_task("deliver")
        await serve(found, port, lambda transaction_id: deliver.defer_async(transaction_id=transaction_id))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_main(Found(**json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3]))
