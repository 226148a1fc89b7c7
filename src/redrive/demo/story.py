"""The story: what a newcomer should have seen after twenty seconds, each part told once it is true."""

import asyncio
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from time import monotonic
from typing import Any, Final, TypeVar

from redrive.client import ProblemError
from redrive.clock import SystemClock, random_bytes
from redrive.demo.partners import PARTNERS, Partners
from redrive.demo.platform import Platform
from redrive.demo.screen import Screen
from redrive.demo.stage import CannotPlay, Stage
from redrive.domain.delivery import rfc3339

MAX_ATTEMPTS = 3
POLICY: Final = {"max_attempts": MAX_ATTEMPTS, "base_delay_seconds": 0.5, "jitter": 0.2}
REASON = "payments answers again, confirmed by its on-call"
_PATIENCE_SECONDS = 30.0
_STATUS_SECONDS = 3.0
_QUIET_RATE = 2.0
_DEAD_LETTERS = 4
_ATTEMPTS = re.compile(r'redrive_attempts_total\{outcome="(\w+)"\} ([0-9.]+)')
Item = Mapping[str, Any]
Found = TypeVar("Found")


class Story:
    """Tells it. Every line is read from the service; nothing is made up."""

    def __init__(self, screen: Screen, partners: Partners, stage: Stage, *, is_kept: bool) -> None:
        self.screen = screen
        self.partners = partners
        self.stage = stage
        self.client = stage.client
        self.is_kept = is_kept
        self._began = ""

    async def tell(self, *, once: bool) -> None:
        """All of it; then stay, unless *once*."""
        self._began = rfc3339(SystemClock().now())  # as the service writes instants: what is less is older
        self._introduce()
        await self._add_integrations()
        platform = Platform(self.stage)
        streaming = asyncio.create_task(platform.stream())
        try:
            await self._show_success()
            await self._show_retry()
            await self._show_refusal()
            replayed, *waiting = await self._show_dead_letters()
            await self._replay(replayed)
            platform.rate_per_second = _QUIET_RATE
            if once:
                self._end()
            else:
                await self._show_around(replayed, waiting[0])
                await self._stay()
        finally:
            streaming.cancel()
            await asyncio.gather(streaming, return_exceptions=True)

    def _end(self) -> None:
        kept = f"; what there was is kept in {self.stage.data_dir}" if self.is_kept else ""
        self.screen.plain(f"\nThat is the story{kept}. Without --once it stays, for you to play with.")

    def _introduce(self) -> None:
        kept = "" if self.is_kept else ", which go with the demo"
        self.screen.plain("redrive demo: a service, a platform and its partners, all on this machine")
        self.screen.plain(f"  service   {self.stage.url}, its files in {self.stage.data_dir}{kept}")
        self.screen.plain(f"  partners  on 127.0.0.1:{self.partners.port}")
        for partner in PARTNERS:
            self.screen.plain(f"            {partner.integration_id:<11} {partner.habit}")
        self.screen.plain(f"  retries   up to {MAX_ATTEMPTS} attempts, half a second and then a second apart")

    async def _add_integrations(self) -> None:
        for partner in PARTNERS:
            name, url = partner.integration_id, self.partners.url(partner)
            try:
                await self._ask(self.client.create_integration, integration_id=name, url=url, **POLICY)
            except ProblemError as problem:
                if problem.error_code != "INT-409-CONFLICT":  # known from an earlier demo in this data_dir
                    raise
                await self._ask(self.client.update_integration, name, url=url)

    # --- what is seen ----------------------------------------------------------------------------

    async def _show_success(self) -> None:
        await self.screen.scene("The platform makes ten deliveries a second. Most just arrive.")
        item = await self._first("storefront", "succeeded")
        self._say(item, "arrived at the first attempt")

    async def _show_retry(self) -> None:
        await self.screen.scene("warehouse answers 503 now and then. What is worth a retry is retried.")
        item = await self._first("warehouse", "succeeded", lambda each: each["attempt_count"] > 1)
        await self._say_attempts(item)
        self._say(item, "the same payload under the same webhook-id")

    async def _show_refusal(self) -> None:
        await self.screen.scene(
            "crm answers 404. A retry would not change that: it fails for good, and is kept."
        )
        item = await self._first("crm", "failed")
        self._say(item, str(item["failure_detail"]))

    async def _show_dead_letters(self) -> tuple[Item, ...]:
        await self.screen.scene("payments is down. With its attempts used up, a delivery waits for a person.")
        first = await self._first("payments", "dlq")
        await self._say_attempts(first)
        self._say(first, "kept with its payload and every answer")
        dead = await self._several("payments", "dlq", _DEAD_LETTERS)
        self.screen.fact("payments", "dlq", f"{len(dead)} wait in its recovery queue by now")
        return dead

    async def _replay(self, dead: Item) -> None:
        recovery_id = str(dead["recovery_id"])
        request_id = f"demo-replay-{random_bytes(4).hex()}"
        self.partners.is_repaired = True
        await self.screen.scene(
            "payments is repaired. An operator replays the dead letter, once, with a reason."
        )
        self.screen.fact("payments", "repaired", "it answers 200 from now on")
        done = await self._ask(
            self.client.replay,
            "payments",
            recovery_id,
            REASON,
            idempotency_key=request_id,
            request_id=request_id,
        )
        self._say(done["recovery"], f"“{done['reason']}”")
        self._say(await self._until(recovery_id, "succeeded"), "in its second cycle")
        await self._show_audit(request_id)

    async def _show_audit(self, request_id: str) -> None:
        await self.screen.scene(f"The audit trail of that replay, by its request id {request_id}:")
        found = await self._ask(self.client.audit_events, request_id=request_id)
        for event in reversed(found["events"]):
            before, after = event["before_state"]["status"], event["after_state"]["status"]
            kind = event["event_type"].removeprefix("platform.integration.")
            reason = event["metadata"].get("reason")
            self.screen.row(
                (event["occurred_at"][11:23], 12),
                (kind, 29),
                (f"{before} > {after}", 20),
                (f"by {event['actor']['id']}", 10),
                (f"“{reason}”" if reason else "", 0),
            )

    def _say(self, item: Item, told: str) -> None:
        self.screen.fact(
            item["integration_id"], item["status"], f"{item['event_type']:<17} {item['recovery_id']}  {told}"
        )

    async def _say_attempts(self, item: Item) -> None:
        found = await self._ask(self.client.item, item["integration_id"], item["recovery_id"])
        first = _instant(found["attempts"][0])
        for each in found["attempts"]:
            told = each["failure_code"] or f"HTTP_{each['http_status']}"
            later = (_instant(each) - first).total_seconds()
            self.screen.row((f"attempt {each['attempt']}", 9), (f"after {later:4.1f} s", 12), (told, 0))

    # --- afterwards ------------------------------------------------------------------------------

    async def _show_around(self, replayed: Item, waiting: Item) -> None:
        redrive = "redrive" if shutil.which("redrive") else sys.argv[0]
        plain = self.screen.plain
        await self.screen.scene("It goes on until Ctrl-C. Look around, in another terminal:")
        plain(f"  export REDRIVE_URL={self.stage.url}")
        plain(f"  export REDRIVE_TOKEN={self.stage.token}")
        plain(f"  {redrive} queue list payments --status dlq")
        plain(f"  {redrive} queue show payments {replayed['recovery_id']}")
        plain(f'  {redrive} queue replay payments {waiting["recovery_id"]} --reason "payments is back"')
        plain(f"  {redrive} audit list --event-type recovery.replayed")
        path = "/platform/integrations/payments/recovery/queue?status=dlq"
        plain(f'  curl -s -H "Authorization: Bearer $REDRIVE_TOKEN" "$REDRIVE_URL{path}"')
        plain(f"  {self.stage.url}/openapi.json has every call, {self.stage.url}/metrics the figures")
        plain()

    async def _stay(self) -> None:
        with self.screen.live():
            while True:
                self.screen.status(await self._figures())
                await asyncio.sleep(_STATUS_SECONDS)

    async def _figures(self) -> str:
        scraped = await self.stage.metrics()
        return told_attempts({outcome: int(float(count)) for outcome, count in _ATTEMPTS.findall(scraped)})

    # --- asking ----------------------------------------------------------------------------------

    async def _first(
        self, integration_id: str, status: str, is_it: Callable[[Item], bool] = lambda _: True
    ) -> Item:
        """The first item of that kind, as soon as there is one."""
        return (await self._several(integration_id, status, 1, is_it))[0]

    async def _several(
        self, integration_id: str, status: str, count: int, is_it: Callable[[Item], bool] = lambda _: True
    ) -> tuple[Item, ...]:
        """At least *count* of them, oldest first."""

        async def look() -> tuple[Item, ...] | None:
            listed = await self._ask(self.client.queue, integration_id, status=status)
            mine = [item for item in reversed(listed["queue"]) if item["created_at"] >= self._began]
            found = tuple(item for item in mine if is_it(item))
            return found if len(found) >= count else None

        return await self._wait(look, f"{integration_id} has no {count} items that are {status}")

    async def _until(self, recovery_id: str, status: str) -> Item:
        async def look() -> Item | None:
            found: Item = (await self._ask(self.client.item, "payments", recovery_id))["recovery"]
            return found if found["status"] == status else None

        return await self._wait(look, f"{recovery_id} is not {status}")

    async def _wait(self, look: Callable[[], Awaitable[Found | None]], otherwise: str) -> Found:
        deadline = monotonic() + _PATIENCE_SECONDS
        while monotonic() < deadline:
            if (found := await look()) is not None:
                return found
            await asyncio.sleep(0.1)
        raise CannotPlay(f"{otherwise} after {_PATIENCE_SECONDS:g} s; the service's log is {self.stage.log}")

    async def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self.stage.ask(call, *args, **kwargs)


def told_attempts(counts: Mapping[str, int]) -> str:
    """One line that a terminal of 80 columns shows whole."""
    return (
        f"attempts so far: {counts['succeeded']} succeeded, {counts['retrying']} retried, "
        f"{counts['dlq']} to dlq, {counts['failed']} failed"
    )


def _instant(attempt: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(attempt["started_at"])
