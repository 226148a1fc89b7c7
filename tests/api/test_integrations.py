"""The catalogue over HTTP: what an integration has, and that its secrets stay in."""

import base64
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks import Webhook

from redrive.api.integrations import Changes
from tests.api.service import INTEGRATIONS, Partner, Service
from tests.api.shapes import EVENT, EVENT_ID, INSTANT, INTEGRATION, REQUEST_ID, TRACEPARENT, Like

SECRET, ANOTHER_SECRET = ("whsec_" + base64.b64encode(key * 32).decode() for key in (b"s", b"t"))
EVERY_FIELD = {
    "name": "Every é Field",
    "method": "PUT",
    "headers": {"X-Tenant": "t-1"},
    "auth_mode": "hmac",
    "lifecycle_status": "paused",
    "timeout_seconds": 2.5,
    "max_attempts": 9,
    "base_delay_seconds": 0.5,
    "max_delay_seconds": 90.0,
    "jitter": 0.0,
    "retryable_network_codes": ["EPIPE"],
    "concurrency": 3,
    "rate_per_second": 1.5,
    "breaker_failure_share": 0.5,
    "health_url": "https://partner.example/health",
    "shards": 2,
    "redact_pointers": ["/card/number", "/items/*/name"],
    "redact_headers": ["Set-Cookie"],
    "message_signature": True,
}


def test_an_integration_that_says_little_has_the_defaults(service: Service) -> None:
    reply = service.admin.post(
        INTEGRATIONS, {"integration_id": "little", "url": "https://partner.example/hooks"}
    )

    document = reply.json()
    assert reply.status == 201
    assert document == {
        "integration_id": "little",
        "name": "little",
        "url": "https://partner.example/hooks",
        "method": "POST",
        "headers": {},
        "auth_mode": "hmac",
        "signing_secrets": [{"signature_scheme": "v1", "public_key": None, "ends_at": None}],
        "lifecycle_status": "active",
        "timeout_seconds": 15.0,
        "max_attempts": 5,
        "base_delay_seconds": service.defaults.base_delay_seconds,
        "max_delay_seconds": service.defaults.max_delay_seconds,
        "jitter": 0.2,
        "retryable_network_codes": (
            "ECONNRESET ECONNREFUSED ECONNABORTED EPIPE EHOSTUNREACH ENETUNREACH ETIMEDOUT EAI_AGAIN".split()
        ),
        "concurrency": 16,
        "rate_per_second": None,
        "health_url": None,
        "shards": 1,
        "redact_pointers": [],
        "redact_headers": [],
        "message_signature": False,
        "containment": None,
        "release": None,
        "breaker_failure_share": 0.8,
        "breaker": {"state": "closed", "changed_at": None, "until": None, "opened_at": None, "trips": 0},
        "throttled_until": None,
        "created_at": INSTANT,
        "updated_at": document["created_at"],
        "secret": Like(r"whsec_[A-Za-z0-9+/]{43}="),
        "request_id": REQUEST_ID,
    }


def test_every_field_comes_back_as_it_was_given(service: Service) -> None:
    partner = service.partner(**EVERY_FIELD)

    shown = service.admin.get(partner.url).json()

    assert shown.keys() == INTEGRATION | {"request_id"}
    assert {name: shown[name] for name in EVERY_FIELD} == EVERY_FIELD


def test_every_field_can_be_changed_and_put_back_to_the_default(service: Service) -> None:
    partner = service.partner()
    fresh = service.admin.get(partner.url).json()

    changed = partner.change(**EVERY_FIELD, url="https://elsewhere.example/").json()
    assert {name: changed[name] for name in EVERY_FIELD} == EVERY_FIELD
    assert changed["url"] == "https://elsewhere.example/"
    assert changed["updated_at"] >= changed["created_at"] == fresh["created_at"]

    optional = [
        "timeout_seconds", "max_attempts", "base_delay_seconds", "max_delay_seconds", "jitter", "concurrency",
        "retryable_network_codes", "rate_per_second", "health_url", "headers",
    ]  # fmt: skip
    back = partner.change(**dict.fromkeys(optional)).json()
    assert {name: back[name] for name in optional} == {name: fresh[name] for name in optional}
    assert service.admin.get(partner.url).json() | {"request_id": 0} == back | {"request_id": 0}


def test_a_secret_that_was_given_never_comes_out(service: Service) -> None:
    document = {"integration_id": "tight-lipped", "url": "https://partner.example/", "secret": SECRET}
    created = service.admin.post(INTEGRATIONS, document)
    changed = service.admin.patch(f"{INTEGRATIONS}/tight-lipped", {"secret": SECRET[:-2] + "0="})
    shown = service.admin.get(f"{INTEGRATIONS}/tight-lipped")
    listed = service.admin.get(INTEGRATIONS)
    events = str(service.events(integration_id="tight-lipped"))

    assert created.status == 201
    for text in (*(reply.body.decode() for reply in (created, changed, shown, listed)), events):
        assert SECRET[:-2] not in text
        assert '"secret"' not in text


def test_a_secret_that_was_made_is_shown_once(service: Service) -> None:
    partner = service.partner()
    assert partner.secret

    everything = [service.admin.get(partner.url), service.admin.get(INTEGRATIONS), partner.change(name="b")]

    assert not any(partner.secret in reply.body.decode() for reply in everything)
    assert partner.secret not in str(service.events(integration_id=partner.id))


def test_a_secret_that_is_made_when_signing_is_switched_on_is_shown_once(service: Service) -> None:
    partner = service.partner(auth_mode="none")
    assert partner.secret is None

    switched_on = partner.change(auth_mode="hmac")

    secret = switched_on.json()["secret"]
    assert secret == Like(r"whsec_[A-Za-z0-9+/]{43}=")
    everything = [service.admin.get(partner.url), service.admin.get(INTEGRATIONS), partner.change(name="b")]
    assert not any(secret in reply.body.decode() for reply in everything)
    assert secret not in str(service.events(integration_id=partner.id))
    assert_signed(partner, secret)


def test_a_secret_that_is_given_when_signing_is_switched_on_is_not_shown(service: Service) -> None:
    partner = service.partner(auth_mode="none")

    switched_on = partner.change(auth_mode="hmac", secret=SECRET)

    assert (switched_on.status, "secret" in switched_on.json()) == (200, False)
    assert_signed(partner, SECRET)


def test_signing_that_is_switched_off_and_on_again_keeps_its_secret(service: Service) -> None:
    partner = service.partner()
    partner.change(auth_mode="none")

    switched_on = partner.change(auth_mode="hmac")

    assert "secret" not in switched_on.json()
    assert_signed(partner, partner.secret)


def test_secrets_are_redacted_in_the_audit_trail(service: Service) -> None:
    partner = service.partner(secret=SECRET, headers={"Authorization": "Bearer very-secret-indeed"})

    [event] = service.events(integration_id=partner.id)

    assert event["after_state"]["headers"] == {"Authorization": "[REDACTED]"}
    signing = {"secret": "[REDACTED]", "public_key": None, "ends_at": None}
    assert event["after_state"]["signing_secrets"] == [signing]
    assert "very-secret-indeed" not in str(event)
    assert SECRET not in str(event)


def test_everything_that_can_be_changed_is_in_the_audited_state(quiet: Partner) -> None:
    [event] = quiet.service.events(integration_id=quiet.id)

    changeable = set(Changes.__struct_fields__) - {"secret"} | {"signing_secrets"}
    assert event["after_state"].keys() == changeable | {"version"}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"secret": ANOTHER_SECRET}, ["signing_secrets"]),
        ({"headers": {"X-Key": "another"}}, ["headers"]),
        ({"headers": {}}, ["headers"]),
        ({"name": "b", "headers": {"X-Key": "another"}, "secret": SECRET}, ["name", "headers"]),
        ({"lifecycle_status": "paused"}, ["lifecycle_status"]),
        ({"lifecycle_status": "paused", "jitter": 0.5}, ["lifecycle_status", "jitter"]),
        ({"secret": SECRET}, []),
    ],
)
def test_a_change_is_audited_with_the_names_of_what_changed(
    service: Service, changes: dict[str, Any], names: list[str]
) -> None:
    partner = service.partner(secret=SECRET, headers={"X-Key": "one"})

    partner.change(**changes)

    _, *events = service.events(integration_id=partner.id)
    assert events
    for event in events:
        assert event["metadata"] == {"changed": names}
        assert "another" not in str(event)
        assert ANOTHER_SECRET not in str(event)


def test_an_integration_id_is_taken_once(service: Service, quiet: Partner) -> None:
    before = quiet.facts()

    reply = service.admin.post(INTEGRATIONS, {"integration_id": quiet.id, "url": "https://partner.example/"})

    assert (reply.status, reply.error_code) == (409, "INT-409-CONFLICT")
    assert quiet.facts() == before


@pytest.mark.parametrize("integration_id", ["a", "0", "a.b_c-d", "x" * 64])
def test_ids_at_the_edge_of_their_grammar_work(service: Service, integration_id: str) -> None:
    document = {"integration_id": integration_id, "url": "https://partner.example/"}

    assert service.admin.post(INTEGRATIONS, document).status == 201
    assert service.admin.get(f"{INTEGRATIONS}/{integration_id}").json()["integration_id"] == integration_id


def test_the_list_has_every_integration_by_id(service: Service, quiet: Partner) -> None:
    document = service.admin.get(INTEGRATIONS).json()

    ids = [one["integration_id"] for one in document["integrations"]]
    assert document.keys() == {"integrations", "request_id"}
    assert ids == sorted(ids)
    assert quiet.id in ids
    assert all(one.keys() == INTEGRATION for one in document["integrations"])


def test_a_creation_is_audited_with_all_an_event_has(service: Service) -> None:
    document = {"integration_id": "audited", "url": "https://partner.example/", "auth_mode": "none"}
    service.admin.post(INTEGRATIONS, document, ("X-Request-Id", "audited-1"))

    [event] = service.events(request_id="audited-1")

    assert event.keys() == EVENT
    after = event.pop("after_state")
    assert event == {
        "event_id": EVENT_ID,
        "occurred_at": INSTANT,
        "event_type": "platform.integration.created",
        "domain": "platform.integration",
        "request_id": "audited-1",
        "source_request_id": None,
        "traceparent": TRACEPARENT,
        "actor": {"id": "admin", "type": "token", "session_id": Like("tok_[0-9]+")},
        "integration_id": "audited",
        "target_type": "integration",
        "target_id": "audited",
        "result": "success",
        "before_state": {"exists": False},
        "metadata": {},
        "previous": None,
    }
    assert (after["name"], after["lifecycle_status"], after["signing_secrets"]) == ("audited", "active", [])


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"name": "b"}, ["updated"]),
        ({"lifecycle_status": "paused"}, ["lifecycle_changed"]),
        ({"lifecycle_status": "paused", "name": "b"}, ["lifecycle_changed", "updated"]),
    ],
)
def test_a_change_is_audited_with_what_was_and_what_is(
    service: Service, quiet: Partner, changes: dict[str, str], kinds: list[str]
) -> None:
    request_id = f"changed-{quiet.id}"

    service.admin.patch(quiet.url, changes, ("X-Request-Id", request_id))

    events = service.events(request_id=request_id)
    assert [event["event_type"] for event in events] == [f"platform.integration.{kind}" for kind in kinds]
    for event in events:
        differing = {name for name in changes if event["before_state"][name] != event["after_state"][name]}
        assert differing == changes.keys()


def test_changes_made_together_are_all_made(service: Service, quiet: Partner) -> None:

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda n: quiet.change(headers={f"X-{n}": "a"}), range(20)))

    assert {reply.status for reply in replies} == {200}
    events = service.events(integration_id=quiet.id)
    assert [event["after_state"]["version"] for event in events] == list(range(1, 22))
    for earlier, later in pairwise(events):
        assert later["before_state"] == earlier["after_state"]


def test_a_change_takes_effect_on_the_next_attempt(service: Service, partner: Partner) -> None:
    elsewhere = service.partner()
    partner.change(url=f"http://127.0.0.1:{service.receiver.port}/{elsewhere.id}", headers={"X-New": "1"})

    partner.becomes(partner.deliver(), "succeeded")

    assert partner.received == []
    assert [sent.header("x-new") for sent in elsewhere.received] == ["1"]


def test_integrations_survive_a_restart(own_service: Service) -> None:
    partner = own_service.partner(**EVERY_FIELD)
    before = own_service.admin.get(partner.url).json()

    own_service.restart()

    assert own_service.admin.get(partner.url).json() | {"request_id": 0} == before | {"request_id": 0}


def assert_signed(partner: Partner, secret: str | None) -> None:
    """What is sent from now on is signed with *secret* and nothing else."""
    assert secret is not None
    partner.becomes(partner.deliver({"a": 1}), "succeeded")
    sent = partner.received[-1]
    headers = {name.lower(): value for name, value in sent.headers}
    assert " " not in headers["webhook-signature"]
    assert Webhook(secret).verify(sent.body, headers) == {"a": 1}
