"""Traffic that does not let go: a platform that repeats each call until it is answered, and its operator."""

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.e2e.caller import INTEGRATIONS, Caller, NoAnswer, Reply
from tests.e2e.service import Service
from tests.e2e.waiting import PATIENCE_SECONDS

BATCH = 5  # every so manieth call hands over that many deliveries at once


class Traffic:
    """Calls of several threads for one integration, until `stop`; what was acknowledged is written down."""

    def __init__(
        self,
        service: Service,
        token: str,
        integration_id: str,
        *,
        producers: int = 4,
        pause_seconds: float = 0.0,  # of a producer after each call, where sends cannot keep up
    ) -> None:
        self.acknowledged: dict[int, str] = {}  # the number of a delivery: its recovery_id
        self.replayed: dict[str, int] = {}  # recovery_id: its last cycle that was asked for
        self.surprises: list[str] = []
        self.up = threading.Event()  # cleared while the service is known to be down
        self._service, self._token, self._pause_seconds = service, token, pause_seconds
        self._path = f"{INTEGRATIONS}/{integration_id}"
        self._numbers = count()
        self._stopping = threading.Event()
        works = [self._produce] * producers + [self._operate]
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]

    def start(self) -> None:
        self.up.set()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing new, and return when all that was begun is answered."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a call is still without an answer"

    def _run(self, work: Callable[[Caller], None]) -> None:
        with Caller(self._service, self._token) as caller:
            try:
                while not self._stopping.is_set():
                    work(caller)
            except Exception as error:  # noqa: BLE001 - told by the test, which looks
                self.surprises.append(repr(error))

    def _produce(self, caller: Caller) -> None:
        self._hand_over(next(self._numbers), caller)
        self._stopping.wait(self._pause_seconds)

    def _hand_over(self, number: int, caller: Caller) -> None:
        if number % BATCH:
            body = {"event_type": "e2e.happened", "payload": {"n": number}}
            path, call = f"{self._path}/deliveries", f"call-{number}"
            reply = self._insist(lambda: caller.call("POST", path, body, key=call, request_id=call), 202)
            self.acknowledged[number] = reply.document["recovery_id"]
            return
        numbers = [number, *(10_000_000 + number * BATCH + k for k in range(BATCH - 1))]
        deliveries = [
            {"event_type": "e2e.happened", "payload": {"n": n}, "idempotency_key": f"call-{n}"}
            for n in numbers
        ]
        path, call = f"{self._path}/deliveries/batch", f"call-{number}"
        reply = self._insist(
            lambda: caller.call("POST", path, {"deliveries": deliveries}, request_id=call), 202
        )
        for n, one in zip(numbers, reply.document["deliveries"], strict=True):
            self.acknowledged[n] = one["recovery_id"]

    def _operate(self, caller: Caller) -> None:
        """Replay what is in the dead-letter queue, once."""
        reply = self._insist(
            lambda: caller.call("GET", f"{self._path}/recovery/queue?status=dlq&limit=50"), 200
        )
        fresh = [item for item in reply.document["queue"] if item["cycle"] == 1]
        if not fresh:
            self._stopping.wait(0.05)
        for item in fresh[:3]:
            self._replay(caller, item)

    def _replay(self, caller: Caller, item: dict[str, Any]) -> None:
        recovery_id = item["recovery_id"]
        path, name = f"{self._path}/recovery/queue/{recovery_id}/replay", f"replay-{recovery_id}"
        body = {"reason": "the receiver is well again"}
        self._insist(lambda: caller.call("POST", path, body, key=name, request_id=name), 200)
        self.replayed[recovery_id] = item["cycle"] + 1

    def _insist(self, call: Callable[[], Reply], status: int) -> Reply:
        """Make the same call until it is answered; only a 503 is an answer that may come instead."""
        while True:
            assert self.up.wait(PATIENCE_SECONDS), "the service does not come back"
            try:
                reply = call()
            except NoAnswer:
                self._stopping.wait(0.01)
                continue
            if reply.status == 503:
                self._stopping.wait(0.05)
                continue
            assert reply.status == status, reply.document
            return reply
