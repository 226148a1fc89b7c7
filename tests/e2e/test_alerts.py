"""Operators hear of trouble through the service itself, also when it is killed while it tells them."""

import json
from collections.abc import Callable
from typing import Any

from tests.e2e.caller import Caller
from tests.e2e.receiver import Answer, Receiver, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

MOST = 2


def test_dead_letters_that_pile_up_are_told_once_whenever_the_service_is_killed(
    a_service: Callable[..., Service],
) -> None:
    service = a_service(alerts_to="ops", alert_dead_letters=str(MOST), lease_seconds="3")
    service.start()
    with (
        receiving(lambda _: Answer(404)) as shop,
        receiving() as ops,
        Caller(service, service.a_token()) as caller,
    ):
        caller.add("ops", ops.url)
        caller.add("shop", shop.url)
        for number in range(MOST + 1):
            caller.delivered("shop", number)
        until(lambda: caller.is_at_rest("shop"), "they are dead")
        service.kill()  # wherever it is with that
        service.start()
        until(lambda: told(ops), "operators are told")
        service.kill()
        service.start()
        last = caller.delivered("ops", "the last")
        until(lambda: ops.sends_of(last), "what comes after it arrives")
        until(lambda: caller.is_at_rest("ops"), "everything ends")

        [message] = told(ops).values()
        assert (message["kind"], message["state"], message["integration"]) == ("dlq_growth", "raised", "shop")
        assert message["facts"]["dead_letters"] == MOST + 1
        assert len(list(caller.queue("ops"))) == 2
    assert service.stop() == 0


def told(ops: Receiver) -> dict[str, dict[str, Any]]:
    """The alerts that arrived, each under its webhook-id, under which it may come twice."""
    bodies = {sent.webhook_id: json.loads(sent.body) for sent in list(ops.ledger) if sent.body is not None}
    return {name: body for name, body in bodies.items() if isinstance(body, dict)}
