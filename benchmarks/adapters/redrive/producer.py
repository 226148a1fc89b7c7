"""One POST a delivery, each waiting for redrive's durable 202; its load comes from the peers' gen.py."""

import asyncio
import json
import os
from itertools import cycle

import uvloop
from caller import Caller  # type: ignore[import-not-found]  # of the folder above, which the adapter puts on the path
from gen import run_async, spec  # type: ignore[import-not-found]  # the peers' harness puts it on the path

APIS, TOKEN = os.environ["BENCH_APIS"].split(), os.environ["BENCH_TOKEN"]
IN_FLIGHT = int(os.environ["BENCH_CONC"]) * int(os.environ["BENCH_PROCS"])
# In W3 redrive is killed: a producer that asks again needs a key. `--set key=1` sends it elsewhere too.
IS_KEYED = os.environ["BENCH_WORKLOAD"] == "W3" or "BENCH_KEY" in os.environ
# W5's target refuses everything until all is dead: a breaker would keep the attempts for later.
BREAKER = {"breaker_failure_share": 0} if os.environ["BENCH_WORKLOAD"] == "W5" else {}
PATIENCE_SECONDS = 0.05
SETTLED_SECONDS = 2.5  # until every process knows of a new integration, and its lanes are owned


async def main() -> None:
    for stream in spec()["streams"]:
        await integrate(stream["integration"].lower(), stream["url"])
    await asyncio.sleep(SETTLED_SECONDS)
    callers = cycle([Caller(url, TOKEN) for url in APIS])

    async def enqueue(number: str, _url: str, body: str, integration: str) -> None:
        path = f"/platform/integrations/{integration.lower()}/deliveries"
        # Put together by hand, for the payload must arrive as it is; it is JSON already.
        envelope = f'{{"event_type":"order.updated","payload":{body}}}'.encode()
        if not IS_KEYED:
            return await accept(next(callers), path, envelope)
        while True:
            try:
                return await accept(next(callers), path, envelope, f"Idempotency-Key: {number}\r\n")
            except (OSError, EOFError):
                await asyncio.sleep(PATIENCE_SECONDS)

    await run_async(enqueue)


async def accept(caller: Caller, path: str, envelope: bytes, headers: str = "") -> None:
    """Hand one delivery over; return once it is durable."""
    status, told = await caller.post(path, envelope, headers)
    if status != 202:
        raise RuntimeError(f"{status}: {told!r}")


async def integrate(name: str, url: str) -> None:
    """Add an integration that signs, as the default is, unless it is there; a lane of it for each process."""
    wanted = {
        "integration_id": name,
        "name": name,
        "url": url,
        "concurrency": IN_FLIGHT,
        "shards": len(APIS),
        **BREAKER,
    }
    status, told = await Caller(APIS[0], TOKEN).post("/platform/integrations", json.dumps(wanted).encode())
    if status not in (201, 409):
        raise RuntimeError(f"{status}: {told!r}")


uvloop.run(main())
