"""A service, as one caller sees it: its calls, one method each."""

from redrive.client.answer import Answer
from redrive.client.audit import Audit
from redrive.client.deliveries import Deliveries
from redrive.client.integrations import Integrations
from redrive.client.recovery import Recovery
from redrive.client.replays import Replays


class Client(Integrations, Deliveries, Recovery, Replays, Audit):
    """A redrive service, as one caller sees it. Threads may share a client.

    Every method answers the service's JSON object, or raises ProblemError (the service said no),
    ServiceUnreachable (it said nothing) or BadArgument (nothing was sent). The methods take
    `request_id` and `traceparent` for the call itself.

    A call is sent again, once, only when its connection was lost and a second sending is harmless: it reads,
    or it carries an idempotency key (a batch: every delivery in it does). After a timeout never.

    `timeout` is in seconds and bounds each wait for the service, not the whole call.
    """

    def health(self) -> Answer:
        """The process lives."""
        return self._get("/healthz", {}, {})

    def ready(self) -> Answer:
        """It can take work; ProblemError when it cannot."""
        return self._get("/readyz", {}, {})
