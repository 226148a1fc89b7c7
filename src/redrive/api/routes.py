"""The table of calls: what contract §4 promises, and who may ask for it."""

from redrive.api import (
    audit,
    containment,
    deliveries,
    editing,
    evidence,
    groups,
    integrations,
    openapi,
    probes,
    queue,
    replays,
    system,
)
from redrive.api.call import Route
from redrive.domain.access import Permission
from redrive.telemetry.metrics import Metrics

VIEW, OPERATE, DELIVER = Permission.VIEW, Permission.OPERATE, Permission.DELIVER
_ALL = "/platform/integrations"
_ONE = f"{_ALL}/{{integration_id}}"
_QUEUE = f"{_ONE}/recovery/queue"
_ITEM = f"{_QUEUE}/{{recovery_id}}"
_GROUPS = f"{_ONE}/recovery/groups"
_GROUP = f"{_GROUPS}/{{group_id}}"
_REPLAYS = f"{_ONE}/recovery/replays"
_REPLAY = f"{_REPLAYS}/{{replay_id}}"


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
        Route(
            "GET", f"{_ITEM}/evidence", VIEW, evidence.show_evidence, "Hand out all that is known of an item"
        ),
        Route("POST", f"{_ITEM}/replay", OPERATE, queue.replay, "Replay a failed or dlq item"),
        Route("POST", f"{_ITEM}/resolve", OPERATE, queue.resolve, "Close a failed or dlq item for good"),
        Route("POST", f"{_ITEM}/erase", OPERATE, queue.erase, "Erase what an item was delivered with"),
        Route("GET", _GROUPS, VIEW, groups.list_groups, "List groups of failures of one cause"),
        Route("GET", _GROUP, VIEW, groups.show_group, "Show a group with its comments"),
        Route("POST", f"{_GROUP}/acknowledge", OPERATE, groups.acknowledge_group, "Acknowledge a group"),
        Route("POST", f"{_GROUP}/resolve", OPERATE, groups.resolve_group, "Close a group with its items"),
        Route("POST", f"{_GROUP}/reopen", OPERATE, groups.reopen_group, "Open a group again"),
        Route("POST", f"{_GROUP}/mute", OPERATE, groups.mute_group, "Hold alerts of a group back"),
        Route("POST", f"{_GROUP}/comment", OPERATE, groups.comment_on_group, "Write about a group"),
        Route("GET", _REPLAYS, VIEW, replays.list_replays, "List plans and jobs"),
        Route("POST", _REPLAYS, OPERATE, replays.start_replay, "Plan a replay of many, or run the plan"),
        Route("GET", _REPLAY, VIEW, replays.show_replay, "Show a plan or job, and how far it is"),
        Route("GET", f"{_REPLAY}/items", VIEW, replays.list_replay_items, "List what became of its items"),
        Route("POST", f"{_REPLAY}/pause", OPERATE, replays.pause_replay, "Pause a job"),
        Route("POST", f"{_REPLAY}/resume", OPERATE, replays.resume_replay, "Resume a paused job"),
        Route("POST", f"{_REPLAY}/cancel", OPERATE, replays.cancel_replay, "Cancel a job"),
        Route("POST", f"{_REPLAY}/rate", OPERATE, replays.pace_replay, "Change the rate of a job"),
        Route("POST", f"{_ITEM}/edit", Permission.EDIT, editing.edit, "Send a corrected copy of an item"),
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
        Route(
            "POST", f"{_ONE}/probe", OPERATE, probes.probe, "Ask its receiver, or send one item as a trial"
        ),
        Route("GET", f"{_ONE}/health", VIEW, probes.show_health, "Show how its receiver is"),
        Route("GET", "/platform/audit/events", VIEW, audit.list_events, "List audit events"),
        Route("GET", "/platform/audit/export", VIEW, evidence.export_audit, "Export an evidence file"),
        Route("GET", "/healthz", None, system.healthz, "Whether the process lives"),
        Route("GET", "/readyz", None, system.readyz, "Whether the process accepts and sends"),
        Route("GET", "/metrics", None, system.scrape(metrics), "Prometheus metrics"),
    ]
    description = openapi.describe(table)  # of this very route, too
    table.append(Route("GET", "/openapi.json", None, description, "This description"))
    return table
