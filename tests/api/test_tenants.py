"""A caller that is bound to a tenant: every route of the description, its own integrations and others'."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from redrive.api import openapi
from redrive.api.routes import routes
from redrive.domain.access import Permission
from redrive.telemetry.metrics import Metrics
from tests.api.service import EVENTS, EVERYTHING, INTEGRATIONS, OPERATE, VIEW, Partner, Service, a_delivery
from tests.api.wire import JSON, Caller, Reply

_numbers = itertools.count(1)
DESCRIPTION = openapi.document(routes(Metrics()))
BODIES: dict[str, Any] = {
    "deliver": a_delivery(),
    "deliver_batch": {"deliveries": [a_delivery()]},
    "hand_over": a_delivery(status="dlq"),
    "replay": {"reason": "it is back"},
    "resolve": {"reason": "it is obsolete"},
    "erase": {"reason": "request 4711"},
    "acknowledge_group": {},
    "resolve_group": {"reason": "it is obsolete"},
    "reopen_group": {"reason": "it is not"},
    "mute_group": {"until": None},
    "comment_on_group": {"text": "hm"},
    "update_integration": {"name": "Renamed"},
    "rotate_secrets": {},
    "contain": {"reason": "it is down"},
    "probe": {},
    "release": {"reason": "it is back", "dry_run": True},
    "edit": {"reason": "it was wrong", "payload": {"order": 2}},
    "start_replay": {"filter": {"status": "dlq"}},
    "pause_replay": {},
    "resume_replay": {},
    "cancel_replay": {},
    "pace_replay": {"rate": 2},
}


class Described(NamedTuple):
    """A call of the description that names an integration."""

    method: str
    path: str
    operation: str
    permission: Permission

    def ask(self, caller: Caller, integration_id: str, names: Mapping[str, str]) -> Reply:
        """*names*: what else stands in the path."""
        url = self.path.format(integration_id=integration_id, **names)
        body = json.dumps(BODIES[self.operation]).encode() if self.operation in BODIES else b""
        return caller.send(self.method, url, body, *([JSON] if body else []))


def described() -> Iterator[Described]:
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            if "{integration_id}" in path:
                [permission] = set(re.findall("|".join(Permission), json.dumps(operation)))
                yield Described(method.upper(), path, operation["operationId"], Permission(permission))


CALLS = list(described())
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.operation)


class Scene(NamedTuple):
    """Two tenants, each with an integration and two dead items; of acme, a caller for each permission."""

    own: Partner
    foreign: Partner
    names: dict[str, dict[str, str]]  # of its own, for each operation
    foreign_names: dict[str, str]
    members: dict[Permission, Caller]


@pytest.fixture(scope="module")
def scene(service: Service) -> Scene:
    own, foreign = (
        service.partner(
            integration_id=f"{name}.billing-{next(_numbers)}",
            health_url=f"http://127.0.0.1:{service.receiver.port}/health",
        )
        for name in ("acme", "globex")
    )
    members = {permission: service.caller(permission, tenant="acme") for permission in Permission}
    names = {call.operation: named_in(call.path, own, call.operation) for call in CALLS}
    service.admin.post(f"{own.url}/recovery/groups/{names['reopen_group']['group_id']}/acknowledge", {})
    foreign_names = {
        "recovery_id": foreign.hand_over(),
        "group_id": a_group(foreign, "foreign"),
        "replay_id": a_replay(foreign, "show_replay"),
    }
    return Scene(own, foreign, names, foreign_names, members)


def named_in(path: str, partner: Partner, operation: str) -> dict[str, str]:
    """What stands in the path of an operation beside the integration, each for this operation alone."""
    found = {}
    if "{recovery_id}" in path:
        found["recovery_id"] = partner.hand_over()
    if "{group_id}" in path:
        found["group_id"] = a_group(partner, operation)
    if "{replay_id}" in path:
        found["replay_id"] = a_replay(partner, operation)
    return found


def a_replay(partner: Partner, operation: str) -> str:
    """A plan, or a job that has nothing to send for long, as the operation wants it."""
    admin, url = partner.service.admin, f"{partner.url}/recovery/replays"
    planned = admin.post(url, {"filter": {"recovery_ids": [partner.hand_over()]}}).json()["replay"]
    replay_id: str = planned["replay_id"]
    if operation not in ("show_replay", "list_replay_items"):
        options = {"reason": "it is back", "canary": {"size": 0, "share": 1}, "rate": 0.001}
        admin.post(url, {"plan_digest": planned["plan"]["digest"], **options})
    if operation == "resume_replay":
        admin.post(f"{url}/{replay_id}/pause", {})
    return replay_id


def a_group(partner: Partner, words: str) -> str:
    """A group of one failure, that *words* tell from others."""
    item = partner.hand_over(failure_code="ECONNRESET", failure_detail=words)
    group_id: str = partner.item(item)["group_id"]
    return group_id


@every_call
@pytest.mark.parametrize("held", Permission)
def test_a_foreign_integration_cannot_be_told_from_one_that_is_not_there(
    scene: Scene, call: Described, held: Permission
) -> None:
    caller = scene.members[held]

    foreign = call.ask(caller, scene.foreign.id, scene.foreign_names)
    missing = call.ask(caller, "globex.nothing", scene.foreign_names)

    is_held = held is call.permission
    expected = (404, "INT-404-NOT-FOUND") if is_held else (403, "AUTH-403-FORBIDDEN")
    assert (foreign.status, foreign.error_code) == expected
    assert told(foreign, scene.foreign.id) == told(missing, "globex.nothing")


@every_call
def test_a_member_may_do_with_its_own_what_its_permission_says(scene: Scene, call: Described) -> None:
    reply = call.ask(scene.members[call.permission], scene.own.id, scene.names[call.operation])

    assert 200 <= reply.status < 300, reply


def told(reply: Reply, integration_id: str) -> str:
    """All of the answer but what is of the call alone."""
    document = reply.json() | {"request_id": None}
    return json.dumps([reply.status, document]).replace(integration_id, "…")


def test_every_call_on_an_integration_is_covered_here() -> None:
    named = {call.operation for call in CALLS}

    assert named - BODIES.keys() == {
        "show_integration", "list_queue", "show_item", "show_containment", "show_health", "list_groups",
        "show_group", "list_replays", "show_replay", "list_replay_items", "show_evidence",
    }  # fmt: skip
    assert BODIES.keys() <= named


def test_a_list_has_its_own_alone(service: Service, scene: Scene) -> None:
    service.partner()

    listed = [one["integration_id"] for one in scene.members[VIEW].get(INTEGRATIONS).json()["integrations"]]

    assert scene.own.id in listed
    assert all(name.startswith("acme.") for name in listed)


def test_audit_events_are_of_its_own_integrations_alone(service: Service, scene: Scene) -> None:
    for partner in (scene.own, scene.foreign):
        partner.change(name="Changed")
        service.admin.patch(partner.url, {"name": "By one call"}, ("X-Request-Id", "tenants-both"))

    viewer = scene.members[VIEW]
    everything = viewer.get(f"{EVENTS}?limit=200").json()
    both = viewer.get(f"{EVENTS}?request_id=tenants-both").json()
    foreign = viewer.get(f"{EVENTS}?integration_id={scene.foreign.id}").json()

    assert everything["events"]
    assert {event["integration_id"].partition(".")[0] for event in everything["events"]} == {"acme"}
    assert everything["total"] == len(everything["events"])
    assert [event["integration_id"] for event in both["events"]] == [scene.own.id]
    assert both["total"] == 1
    assert (foreign["events"], foreign["total"]) == ([], 0)


def test_nobody_writes_into_the_audit_log_of_another_tenant(service: Service, scene: Scene) -> None:
    url = f"{scene.foreign.url}/secrets/rotate"
    before = service.events(integration_id=scene.foreign.id)

    denied = scene.members[VIEW].post(url, {}, ("X-Request-Id", "tenants-denied"))

    assert denied.status == 403
    assert service.events(integration_id=scene.foreign.id) == before
    [event] = service.events(request_id="tenants-denied")
    assert event["integration_id"] is None
    assert event["actor"]["tenant"] == "acme"


def test_a_cursor_of_another_caller_is_none(service: Service, scene: Scene) -> None:
    cursor = service.admin.get(f"{EVENTS}?limit=1").json()["next_cursor"]

    assert scene.members[VIEW].get(f"{EVENTS}?limit=1&cursor={cursor}").status == 400


@pytest.mark.parametrize("name", ["globex.new", "acme", "acmex.new", "new"])
def test_what_it_adds_is_its_own(service: Service, scene: Scene, name: str) -> None:
    before = service.rows()

    refused = scene.members[OPERATE].post(INTEGRATIONS, {"integration_id": name, "url": "https://a.example/"})

    assert (refused.status, refused.error_code) == (400, "INT-400-INVALID-PAYLOAD")
    assert refused.json()["errors"] == [{"pointer": "/integration_id", "detail": "must begin with acme."}]
    assert service.rows() == before


def test_a_member_adds_an_integration(scene: Scene) -> None:
    document = {"integration_id": f"acme.new-{next(_numbers)}", "url": "https://a.example/"}

    assert scene.members[OPERATE].post(INTEGRATIONS, document).status == 201
    assert scene.members[OPERATE].post(INTEGRATIONS, document).status == 409


def test_an_idempotency_key_of_another_tenants_namesake_is_another_key(service: Service) -> None:
    """What was answered holds a secret."""
    key = ("Idempotency-Key", f"tenants-{next(_numbers)}")
    callers = [service.caller(*EVERYTHING, subject="ops", tenant=name) for name in ("acme", "globex", None)]
    document = {"integration_id": f"acme.keyed-{next(_numbers)}", "url": "https://a.example/"}

    acme, globex, nobodys = (caller.post(INTEGRATIONS, document, key) for caller in callers)

    assert (acme.status, globex.status, nobodys.status) == (201, 400, 409)
    assert acme.json()["secret"]
    assert "secret" not in json.dumps([globex.json(), nobodys.json()])


def test_who_is_bound_to_none_sees_all(service: Service, scene: Scene) -> None:
    for partner in (scene.own, scene.foreign):
        assert service.admin.get(partner.url).status == 200
