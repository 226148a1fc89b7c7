"""One POST a delivery, each waiting for redrive's durable 202; its load comes from the peers' gen.py."""

import asyncio
import os
from itertools import cycle

import aiohttp
import uvloop
from gen import run_async, spec  # type: ignore[import-not-found]  # the peers' harness puts it on the path

APIS, TOKEN = os.environ["BENCH_APIS"].split(), os.environ["BENCH_TOKEN"]
IN_FLIGHT = int(os.environ["BENCH_CONC"]) * int(os.environ["BENCH_PROCS"])
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
# In W3 redrive is killed: a producer that asks again needs a key. `--set key=1` sends it elsewhere too.
IS_KEYED = os.environ["BENCH_WORKLOAD"] == "W3" or "BENCH_KEY" in os.environ
# W5's target refuses everything until all is dead: a breaker would keep the attempts for later.
BREAKER = {"breaker_failure_share": 0} if os.environ["BENCH_WORKLOAD"] == "W5" else {}
PATIENCE_SECONDS = 0.05
SETTLED_SECONDS = 2.5  # until every process knows of a new integration, and its lanes are owned


async def main() -> None:
    apis = cycle(APIS)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for stream in spec()["streams"]:
            await integrate(session, stream["integration"].lower(), stream["url"])
        await asyncio.sleep(SETTLED_SECONDS)

        async def enqueue(number: str, _url: str, body: str, integration: str) -> None:
            path = f"/platform/integrations/{integration.lower()}/deliveries"
            # Put together by hand, for the payload must arrive as it is; it is JSON already.
            envelope = f'{{"event_type":"order.updated","payload":{body}}}'.encode()
            if not IS_KEYED:
                return await accept(session, next(apis) + path, envelope, {})
            while True:
                try:
                    return await accept(session, next(apis) + path, envelope, {"Idempotency-Key": number})
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(PATIENCE_SECONDS)

        await run_async(enqueue)


async def accept(session: aiohttp.ClientSession, url: str, envelope: bytes, headers: dict[str, str]) -> None:
    """Hand one delivery over; return once it is durable."""
    async with session.post(url, data=envelope, headers=headers) as answer:
        told = await answer.text()  # all of it, or the connection could not be used again
        if answer.status != 202:
            raise RuntimeError(f"{answer.status}: {told}")


async def integrate(session: aiohttp.ClientSession, name: str, url: str) -> None:
    """Add an integration that signs, as the default is, unless it is there; a lane of it for each process."""
    wanted = {
        "integration_id": name,
        "name": name,
        "url": url,
        "concurrency": IN_FLIGHT,
        "shards": len(APIS),
        **BREAKER,
    }
    async with session.post(f"{APIS[0]}/platform/integrations", json=wanted) as answer:
        if answer.status not in (201, 409):
            raise RuntimeError(f"{answer.status}: {await answer.text()}")


uvloop.run(main())
