"""The table of calls: what contract §4 promises, and who may ask for it."""

from redrive.api import audit, containment, deliveries, integrations, openapi, queue, system
from redrive.api.call import Route
from redrive.domain.access import Permission
from redrive.telemetry.metrics import Metrics

VIEW, OPERATE, DELIVER = Permission.VIEW, Permission.OPERATE, Permission.DELIVER
_ALL = "/platform/integrations"
_ONE = f"{_ALL}/{{integration_id}}"
_QUEUE = f"{_ONE}/recovery/queue"
_ITEM = f"{_QUEUE}/{{recovery_id}}"


def routes(metrics: Metrics) -> list[Route]:
    """Every call there is, the hottest first."""
    table = [
        Route("POST", f"{_ONE}/deliveries", DELIVER, deliveries.deliver, "Accept a delivery"),
        Route(
            "POST",
            f"{_ONE}/deliveries/batch",
            DELIVER,
            deliveries.deliver_batch,
            "Accept up to 1,000 deliveries",
        ),
        Route("GET", _QUEUE, VIEW, queue.list_queue, "List an integration's items"),
        Route("POST", _QUEUE, DELIVER, queue.hand_over, "Hand over a delivery that failed elsewhere"),
        Route("GET", _ITEM, VIEW, queue.show_item, "Show an item with its attempts"),
        Route("POST", f"{_ITEM}/replay", OPERATE, queue.replay, "Replay a failed or dlq item"),
        Route("POST", f"{_ITEM}/resolve", OPERATE, queue.resolve, "Close a failed or dlq item for good"),
        Route("POST", f"{_ITEM}/erase", OPERATE, queue.erase, "Erase what an item was delivered with"),
        Route("GET", _ALL, VIEW, integrations.list_integrations, "List the integrations"),
        Route("POST", _ALL, OPERATE, integrations.create_integration, "Add an integration"),
        Route("GET", _ONE, VIEW, integrations.show_integration, "Show an integration"),
        Route("PATCH", _ONE, OPERATE, integrations.update_integration, "Change an integration"),
        Route(
            "POST", f"{_ONE}/secrets/rotate", OPERATE, integrations.rotate_secrets, "Sign with a new secret"
        ),
        Route("GET", f"{_ONE}/containment", VIEW, containment.show_containment, "Show how it is contained"),
        Route("POST", f"{_ONE}/containment", OPERATE, containment.contain, "Stop all that goes to it"),
        Route("POST", f"{_ONE}/containment/release", OPERATE, containment.release, "Let it send again"),
        Route("GET", "/platform/audit/events", VIEW, audit.list_events, "List audit events"),
        Route("GET", "/healthz", None, system.healthz, "Whether the process lives"),
        Route("GET", "/readyz", None, system.readyz, "Whether the process accepts and sends"),
        Route("GET", "/metrics", None, system.scrape(metrics), "Prometheus metrics"),
    ]
    description = openapi.describe(table)  # of this very route, too
    table.append(Route("GET", "/openapi.json", None, description, "This description"))
    return table
