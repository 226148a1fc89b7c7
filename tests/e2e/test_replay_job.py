"""A job that is killed again and again: it goes on, and its counts are those of the receiver."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.e2e.caller import Caller
from tests.e2e.receiver import OK, Answer, Receiver, Sent, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

PARTNER = "partner"
ITEMS = 120
KILLS = 3


class Moods:
    """Down at first; then back, but for every tenth item."""

    def __init__(self) -> None:
        self.is_back = False

    def __call__(self, sent: Sent) -> Answer:
        if not self.is_back or sent.body == b"0":
            return Answer(503)
        return OK


def test_a_job_survives_kills_and_counts_what_its_receiver_counts(
    a_service: Callable[..., Service],
) -> None:
    service = a_service(max_attempts="1", lease_seconds="3", timeout_seconds="3")
    service.start()
    token, moods = service.a_token(), Moods()
    with receiving(moods) as receiver, Caller(service, token) as caller:
        caller.add(PARTNER, receiver.url)
        ids = [caller.delivered(PARTNER, n % 10) for n in range(ITEMS)]
        until(lambda: caller.is_at_rest(PARTNER), "all of it is dead")
        first_sends = len(receiver.ledger)
        moods.is_back = True
        planned = _posted(caller, {"filter": {"status": "dlq"}}, 201)
        assert planned["plan"]["eligible"] == ITEMS
        started = _posted(
            caller,
            {
                "plan_digest": planned["plan"]["digest"],
                "reason": "it is back",
                "rate": 40,
                "canary": {"size": 5, "share": 0.2},
            },
            202,
        )
        path = f"{_path()}/{started['replay_id']}"

        chance = random.Random(7)
        for _ in range(KILLS):
            _kill_it(service, receiver, chance.randint(3, 12))
        job = until(lambda: _over(caller, path), "it ends", seconds=90)

        items = list(caller._pages(f"{path}/items", "items"))
        shown = {one: caller.item(PARTNER, one)["status"] for one in ids}
    assert service.stop() == 0
    progress = job["progress"]
    outcomes = Counter(item["state"] for item in items)
    assert outcomes == {name: progress[name] for name in ("succeeded", "failed") if progress[name]}
    assert sum(outcomes.values()) == progress["total"] == ITEMS
    assert Counter(shown.values()) == {"succeeded": outcomes["succeeded"], "dlq": outcomes["failed"]}
    answered = Counter(sent.webhook_id for sent in receiver.ledger[first_sends:] if sent.answered == 200)
    succeeded = {item["recovery_id"] for item in items if item["state"] == "succeeded"}
    assert succeeded <= answered.keys(), "what it counts as succeeded had arrived"
    again = Counter(sent.webhook_id for sent in receiver.ledger[first_sends:])
    assert set(again.values()) == {1}, "with one attempt a cycle, nothing is sent twice"
    unsent = {item["recovery_id"] for item in items} - again.keys()
    reasons = {item["recovery_id"]: item["reason"] for item in items}
    assert all(reasons[one] == "LEASE_EXPIRED" for one in unsent)


def _kill_it(service: Service, receiver: Receiver, more: int) -> None:
    sends = len(receiver.ledger)
    until(lambda: len(receiver.ledger) >= sends + more, "some more arrive")
    service.kill()
    service.spawn()
    service.is_started()


def _over(caller: Caller, path: str) -> dict[str, Any] | None:
    job: dict[str, Any] = caller.get(path)["replay"]
    progress = job["progress"]
    counted = ("waiting", "in_flight", "succeeded", "failed", "skipped", "cancelled")
    assert sum(progress[name] for name in counted) == progress["total"] == ITEMS
    assert job["state"] != "halted", job["because"]
    return job if job["state"].startswith("completed") else None


def _path() -> str:
    return f"/platform/integrations/{PARTNER}/recovery/replays"


def _posted(caller: Caller, body: dict[str, Any], status: int) -> dict[str, Any]:
    reply = caller.call("POST", _path(), body)
    assert reply.status == status, reply
    replay: dict[str, Any] = reply.document["replay"]
    return replay
