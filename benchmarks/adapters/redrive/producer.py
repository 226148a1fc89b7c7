"""One POST a delivery, each waiting for redrive's durable 202; its load comes from the peers' gen.py."""

import os

import aiohttp
import uvloop
from gen import run_async, spec  # type: ignore[import-not-found]  # the peers' harness puts it on the path

API, TOKEN = os.environ["BENCH_API"], os.environ["BENCH_TOKEN"]
IN_FLIGHT = int(os.environ["BENCH_CONC"]) * int(os.environ["BENCH_PROCS"])
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


async def main() -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for stream in spec()["streams"]:
            await integrate(session, stream["integration"].lower(), stream["url"])

        async def enqueue(_id: str, _url: str, body: str, integration: str) -> None:
            path = f"{API}/platform/integrations/{integration.lower()}/deliveries"
            # By hand, for the body must arrive as it is; it is JSON already.
            envelope = f'{{"event_type":"order.updated","payload":{body}}}'
            async with session.post(path, data=envelope.encode()) as answer:
                if answer.status != 202:
                    raise RuntimeError(f"{answer.status}: {await answer.text()}")

        await run_async(enqueue)


async def integrate(session: aiohttp.ClientSession, name: str, url: str) -> None:
    """Add an integration that signs, as the default is, unless it is there."""
    wanted = {"integration_id": name, "name": name, "url": url, "concurrency": IN_FLIGHT}
    async with session.post(f"{API}/platform/integrations", json=wanted) as answer:
        if answer.status not in (201, 409):
            raise RuntimeError(f"{answer.status}: {await answer.text()}")


uvloop.run(main())
