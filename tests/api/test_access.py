"""Who may call what: 401 before 403 before 400 before 404 before 409, on every route."""

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from redrive.api.routes import routes
from redrive.clock import SystemClock
from redrive.domain.access import Permission
from redrive.engine.runtime import Limits
from redrive.telemetry.metrics import Metrics
from tests.api.loops import until
from tests.api.receiver import Receiver
from tests.api.service import DELIVER, EDIT, EVENTS, INTEGRATIONS, OPERATE, VIEW, Partner, Service
from tests.api.shapes import EVENT, PROBLEM
from tests.api.storage import Storage
from tests.api.test_system import count
from tests.api.wire import JSON, Caller, a_request, every_reply

DENIED = "platform.integration.access_denied"
ROUTES = [route for route in routes(Metrics()) if route.permission is not None]
_numbers = itertools.count(1)
OPEN = [route.path for route in routes(Metrics()) if route.permission is None]
NAMED = [pytest.param(route.method, route.path, route.permission, id=route.summary) for route in ROUTES]
CALLS = {
    "GET POST /platform/integrations": [VIEW, OPERATE],
    "GET PATCH /platform/integrations/{integration_id}": [VIEW, OPERATE],
    "POST /platform/integrations/{integration_id}/deliveries": [DELIVER],
    "POST /platform/integrations/{integration_id}/deliveries/batch": [DELIVER],
    "GET POST /platform/integrations/{integration_id}/recovery/queue": [VIEW, DELIVER],
    "GET /platform/integrations/{integration_id}/recovery/queue/{recovery_id}": [VIEW],
    "POST /platform/integrations/{integration_id}/recovery/queue/{recovery_id}/replay": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/queue/{recovery_id}/resolve": [OPERATE],
    "POST /platform/integrations/{integration_id}/secrets/rotate": [OPERATE],
    "GET POST /platform/integrations/{integration_id}/containment": [VIEW, OPERATE],
    "POST /platform/integrations/{integration_id}/containment/release": [OPERATE],
    "POST /platform/integrations/{integration_id}/probe": [OPERATE],
    "GET /platform/integrations/{integration_id}/health": [VIEW],
    "POST /platform/integrations/{integration_id}/recovery/queue/{recovery_id}/erase": [OPERATE],
    "GET /platform/integrations/{integration_id}/recovery/groups": [VIEW],
    "GET /platform/integrations/{integration_id}/recovery/groups/{group_id}": [VIEW],
    "POST /platform/integrations/{integration_id}/recovery/groups/{group_id}/acknowledge": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/groups/{group_id}/resolve": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/groups/{group_id}/reopen": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/groups/{group_id}/mute": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/groups/{group_id}/comment": [OPERATE],
    "GET /platform/integrations/{integration_id}/recovery/replays": [VIEW],
    "POST /platform/integrations/{integration_id}/recovery/replays": [OPERATE],
    "GET /platform/integrations/{integration_id}/recovery/replays/{replay_id}": [VIEW],
    "GET /platform/integrations/{integration_id}/recovery/replays/{replay_id}/items": [VIEW],
    "POST /platform/integrations/{integration_id}/recovery/replays/{replay_id}/pause": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/replays/{replay_id}/resume": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/replays/{replay_id}/cancel": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/replays/{replay_id}/rate": [OPERATE],
    "POST /platform/integrations/{integration_id}/recovery/queue/{recovery_id}/edit": [EDIT],
    "GET /platform/integrations/{integration_id}/recovery/queue/{recovery_id}/evidence": [VIEW],
    "GET POST /platform/integrations/{integration_id}/recovery/replays": [VIEW, OPERATE],
    "GET /platform/audit/events": [VIEW],
    "GET /platform/audit/export": [VIEW],
}


def test_every_call_needs_the_permission_the_contract_says() -> None:
    promised = {
        (method, path): permission
        for call, permissions in CALLS.items()
        for *methods, path in [call.split()]
        for method, permission in zip(methods, permissions, strict=True)
    }

    assert {(route.method, route.path): route.permission for route in ROUTES} == promised
    assert sorted(OPEN) == ["/healthz", "/metrics", "/openapi.json", "/readyz"]


@pytest.fixture(scope="module")
def holders(service: Service) -> dict[Permission, Caller]:
    return {permission: service.caller(permission) for permission in Permission}


@pytest.mark.parametrize(("method", "path", "permission"), NAMED)
def test_a_caller_without_a_valid_token_is_answered_401_before_anything_is_looked_at(
    service: Service, method: str, path: str, permission: Permission
) -> None:
    wrong = Caller(lambda: service.port, "no-such-token")

    for caller in (service.nobody, wrong):
        reply = caller.send(method, path, b"not json")  # {integration_id} breaks the id's grammar, too

        assert (reply.status, reply.error_code) == (401, "AUTH-401-UNAUTHENTICATED")
        assert reply.header("www-authenticate") == 'Bearer realm="redrive"'


@pytest.mark.parametrize(("method", "path", "permission"), NAMED)
def test_no_permission_stands_in_for_another(
    service: Service, holders: dict[Permission, Caller], method: str, path: str, permission: Permission
) -> None:
    for held, caller in holders.items():
        request_id = f"matrix-{next(_numbers)}"
        reply = caller.send(method, path, b"not json", JSON, ("X-Request-Id", request_id))
        events = service.events(request_id=request_id)

        if held is permission:
            assert reply.status in (200, 400)  # the path and the body are invalid, where there is one
            assert events == []
        else:
            assert (reply.status, reply.error_code) == (403, "AUTH-403-FORBIDDEN")
            [event] = events
            assert (event["event_type"], event["actor"]["id"]) == (DENIED, caller.subject)
            assert event["metadata"] == {"permission": permission.value}
            assert event["target_id"] == f"{method} {path}"


def test_a_denial_is_audited_with_everything_an_event_has(service: Service, quiet: Partner) -> None:
    viewer = service.caller(VIEW)
    trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    reply = viewer.post(quiet.deliveries, {}, ("X-Request-Id", "denied-1"), trace)

    [event] = service.events(request_id="denied-1")
    assert reply.json().keys() == PROBLEM
    assert event.keys() == EVENT
    assert event["result"] == "denied"
    assert event["target_type"] == "route"
    assert event["target_id"] == "POST /platform/integrations/{integration_id}/deliveries"
    assert event["integration_id"] == quiet.id
    assert event["traceparent"] == trace[1]
    assert event["actor"]["type"] == "token"
    assert event["actor"]["session_id"].startswith("tok_")
    assert event["before_state"]
    assert event["after_state"]
    assert str(viewer.token) not in str(event)


def test_a_401_is_counted_and_not_stored(service: Service) -> None:
    before = count(service, "authentication_failures_total")

    service.nobody.get(INTEGRATIONS, ("X-Request-Id", "unknown-1"))

    assert service.events(request_id="unknown-1") == []
    until(lambda: count(service, "authentication_failures_total") == before + 1)


@pytest.mark.parametrize(
    "authorization",
    [
        "{token}",
        "Basic {token}",
        "Bearer",
        "Bearer ",
        "Bearer {token}x",
        "Bearer {token} {token}",
        "Bearer \u00e9",
        "Bearer " + "x" * 5000,
    ],
)
def test_authorization_that_is_no_token_is_401(service: Service, authorization: str) -> None:
    header = ("Authorization", authorization.format(token=service.admin.token))

    assert service.nobody.get(INTEGRATIONS, header).status == 401


def test_two_authorizations_are_none(service: Service) -> None:
    header = ("Authorization", f"Bearer {service.admin.token}")

    assert service.nobody.get(INTEGRATIONS, header, header).status == 401


def test_the_scheme_of_authorization_ignores_case(service: Service) -> None:
    assert service.nobody.get(INTEGRATIONS, ("authorization", f"bEARER {service.admin.token}")).status == 200


def test_a_revoked_token_is_refused_within_seconds(service: Service) -> None:
    caller = service.caller(VIEW)
    assert caller.get(INTEGRATIONS).status == 200

    [token] = [one for one in service.run(service.store.tokens.all()) if one.subject == caller.subject]
    service.run(service.store.tokens.revoke(token.token_id, SystemClock().now()))

    until(lambda: caller.get(INTEGRATIONS).status == 401)


@pytest.fixture
def limited(receiver: Receiver, new_storage: Callable[[], Storage]) -> Iterator[Service]:
    service = Service(
        new_storage(), receiver, limits=Limits(auth_failures_per_minute=10, calls_per_second=30)
    )
    yield service
    service.stop()


def test_guesses_end_in_429_and_known_callers_go_on(limited: Service) -> None:
    assert limited.admin.get(EVENTS).status == 200
    guesses = [Caller(lambda: limited.port, f"guess-{n}").get(EVENTS) for n in range(40)]
    refused = guesses[-1]

    assert guesses[0].status == 401
    assert (refused.status, refused.error_code) == (429, "INT-429-RATE-LIMITED")
    assert 1 <= int(str(refused.header("retry-after"))) <= 6
    assert limited.admin.get(EVENTS).status == 200, "it shares its address with whoever guesses"
    assert limited.nobody.get(EVENTS).status == 401, "that was no guess"


def test_one_that_calls_too_often_is_told_and_others_are_answered(limited: Service) -> None:
    busy, other = limited.caller(VIEW, subject="busy"), limited.caller(VIEW, subject="other")
    call = a_request("GET", EVENTS, None, (("Authorization", f"Bearer {busy.token}"),))
    last = a_request("GET", "/healthz", None, (("Connection", "close"),))

    replies = every_reply(limited.port, call * 99 + last)

    statuses = [reply.status for reply in replies]
    assert (statuses[0], statuses[-1]) == (200, 200)
    assert 429 in statuses
    assert other.get(EVENTS).status == 200


def test_an_expired_token_is_refused(service: Service) -> None:
    expired = service.caller(VIEW, lasts=timedelta(seconds=-1))

    assert expired.get(INTEGRATIONS).status == 401


UNKNOWN = "/platform/integrations/unknown"
SOME_ITEM = "rec_0000000000000"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/platform/integrations/NO/deliveries", b"{", 400),
        ("POST", f"{UNKNOWN}/deliveries", b"{", 400),
        ("POST", f"{UNKNOWN}/deliveries", b'{"event_type":"a","payload":1}', 404),
        ("POST", f"{UNKNOWN}/deliveries/batch", b"{", 400),
        ("POST", f"{UNKNOWN}/deliveries/batch", b'{"deliveries":[{}]}', 404),
        ("POST", f"{UNKNOWN}/recovery/queue", b"{}", 400),
        ("POST", f"{UNKNOWN}/recovery/queue", b'{"event_type":"a","payload":1,"status":"dlq"}', 404),
        ("POST", f"{UNKNOWN}/recovery/queue/{SOME_ITEM}/replay", b'{"reason":" "}', 400),
        ("POST", f"{UNKNOWN}/recovery/queue/{SOME_ITEM}/replay", b'{"reason":"a"}', 404),
        ("POST", f"{UNKNOWN}/recovery/queue/{SOME_ITEM}/resolve", b'{"reason":"a"}', 404),
        ("PATCH", UNKNOWN, b'{"jitter":7}', 400),
        ("PATCH", UNKNOWN, b'{"name":"a"}', 404),
        ("GET", f"{UNKNOWN}/recovery/queue?limit=0", None, 400),
        ("GET", f"{UNKNOWN}/recovery/queue?cursor=x", None, 400),
        ("GET", f"{UNKNOWN}/recovery/queue", None, 404),
        ("GET", f"{UNKNOWN}/recovery/queue/{SOME_ITEM}?a=b", None, 400),
        ("GET", f"{UNKNOWN}/recovery/queue/{SOME_ITEM}", None, 404),
        ("GET", UNKNOWN, None, 404),
    ],
)
def test_what_is_invalid_is_400_before_what_is_unknown_is_404(
    service: Service, method: str, path: str, body: bytes | None, status: int
) -> None:
    reply = service.admin.send(method, path, body, JSON)

    assert reply.status == status
    assert reply.error_code == ("INT-400-INVALID-PAYLOAD" if status == 400 else "INT-404-NOT-FOUND")


def test_an_invalid_reason_is_400_before_a_conflict_is_409(service: Service, quiet: Partner) -> None:
    recovery_id = quiet.deliver()

    assert quiet.replay(recovery_id, " ").status == 400
    assert quiet.replay(recovery_id, "good").status == 409
