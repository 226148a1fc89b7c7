"""One POST a delivery, as the peers' own producer of the ceiling makes it, by our caller."""

import json

import uvloop
from caller import Caller  # type: ignore[import-not-found]  # of the folder above, which the adapter puts on the path
from gen import run_async  # type: ignore[import-not-found]  # the peers' harness puts it on the path


async def main() -> None:
    caller = Caller("http://127.0.0.1:28100")

    async def enqueue(_number: str, url: str, body: str, _integration: str) -> None:
        status, _ = await caller.post("/deliveries", json.dumps({"url": url, "body": body}).encode())
        if status != 202:
            raise RuntimeError(status)

    await run_async(enqueue)


uvloop.run(main())
