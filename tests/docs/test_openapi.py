"""The API is what its description says: held by validators that were written by others."""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types
from openapi_spec_validator import validate

from redrive.api import openapi, problems
from redrive.api.routes import routes
from redrive.client import Answer, Client, ProblemError
from redrive.telemetry.metrics import Metrics
from tests.docs.service import PATIENCE, Service, serving
from tests.postgres import a_database

# Every check of schemathesis there is, but two. A dictionary names what is there: chance hardly ever would.
CONFIG = """\
[checks]
enabled = true

[checks.positive_data_acceptance]
enabled = false  # A JSON Schema cannot say that a cursor is one we signed, that a URL is a target, or that
                 # credentials are those of an auth_mode: what it allows may be refused.

[[operations]]
include-operation-id = "deliver_batch"
checks.negative_data_rejection.enabled = false  # a delivery that is not valid fails alone: 202

[dictionaries.integrations]
values = {integrations}

[dictionaries.items]
values = {items}

[dictionaries.urls]
values = ["http://127.0.0.1:9/hooks", "https://partner.example/?a=b"]

[parameters]
"path.integration_id" = {{ dictionary = "integrations", probability = 0.7 }}
"path.recovery_id" = {{ dictionary = "items", probability = 0.7 }}
"body.url" = {{ dictionary = "urls", probability = 0.7 }}
"body.health_url" = {{ dictionary = "urls", probability = 0.7 }}
"""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "REDRIVE_MAX_ATTEMPTS": "2",
        "REDRIVE_BASE_DELAY_SECONDS": "0.01",
        "REDRIVE_ALLOW_HTTP": "true",
        "REDRIVE_ALLOW_TARGETS": "127.0.0.0/8",
    }
    if request.param == "postgres":
        settings["REDRIVE_DATABASE"] = asyncio.run(a_database(request.getfixturevalue("postgres")))
    with serving(tmp_path_factory.mktemp("described"), **settings) as found:
        yield found


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as found:
        yield found


@pytest.fixture(scope="module")
def description(service: Service) -> Any:
    with urllib.request.urlopen(f"{service.url}/openapi.json") as answer:
        assert answer.headers["content-type"] == "application/json"
        return json.load(answer)


def test_the_description_is_valid_openapi(description: Any) -> None:
    validate(description)


def test_the_description_has_every_route_of_the_table(description: Any) -> None:
    described = {
        (method.upper(), path) for path, methods in description["paths"].items() for method in methods
    }

    assert described == {(route.method, route.path) for route in routes(Metrics())}


def test_every_operation_names_its_permission(description: Any) -> None:
    for route in routes(Metrics()):
        operation = description["paths"][route.path][route.method.lower()]
        needed = [] if route.permission is None else [{"bearer": [route.permission.value]}]

        assert operation["security"] == needed


def test_every_error_has_its_schema(description: Any) -> None:
    schemas = description["components"]["schemas"]

    assert schemas["Problem"]["properties"]["error_code"]["enum"] == [k.code for k in problems.STATUS]
    for kind, status in problems.STATUS.items():
        [_, fixed] = schemas[kind.__name__]["allOf"]
        assert fixed["properties"]["status"] == {"const": status}


def test_no_answer_says_more_or_less_than_its_schema(client: Client, description: Any) -> None:
    """Strictly: what an answer holds beyond its schema is a fault here, although a caller may not mind."""
    made = client.create_integration(integration_id="strict", url="http://127.0.0.1:9/hooks")
    client.create_integration(integration_id="unsigned", url="http://127.0.0.1:9/hooks", auth_mode="none")
    accepted = client.deliver("strict", event_type="invoice.paid", payload={"id": 7})
    recovery_id = accepted["recovery_id"]
    dead = _wait_for_status(client, recovery_id, "dlq")
    replayed = client.replay("strict", recovery_id, "the receiver is back")
    _wait_for_status(client, recovery_id, "dlq")
    batch = client.deliver_batch("strict", [{"event_type": "a", "payload": 1}, b'{"payload":1}'])
    imported = client.import_delivery("strict", {"event_type": "a", "payload": 1, "status": "failed"})
    resolved = client.resolve("strict", recovery_id, "not needed any more")

    for name, answer in [
        ("SavedIntegration", made),
        ("Accepted", accepted),
        ("Recovery", dead),
        ("Replayed", replayed),
        ("AcceptedBatch", batch),
        ("Imported", imported),
        ("Resolved", resolved),
        ("RecoveryQueue", client.queue("strict")),
        ("Integrations", client.integrations()),
        ("ShownIntegration", client.integration("strict")),
        ("SavedIntegration", client.update_integration("strict", name="Strictly")),
        ("SavedIntegration", client.update_integration("unsigned", auth_mode="hmac")),
        ("AuditEvents", client.audit_events(integration_id="strict")),
        ("Alive", client.health()),
        ("Ready", client.ready()),
    ]:
        _check(description, name, answer)


def test_a_conflict_is_the_problem_that_is_described(client: Client, description: Any) -> None:
    client.create_integration(integration_id="conflict", url="http://127.0.0.1:9/hooks")
    recovery_id = client.import_delivery("conflict", {"event_type": "a", "payload": 1, "status": "dlq"})[
        "recovery_id"
    ]
    client.replay("conflict", recovery_id, "first")

    with pytest.raises(ProblemError) as refused:
        client.create_integration(integration_id="conflict", url="http://127.0.0.1:9/hooks")

    _check(description, "Conflict", refused.value.problem)


def test_a_refused_body_is_the_problem_that_is_described(client: Client, description: Any) -> None:
    with pytest.raises(ProblemError) as refused:
        client.create_integration(integration_id="-", url="ftp://127.0.0.1")

    _check(description, "InvalidPayload", refused.value.problem)


def test_an_unknown_handler_cannot_join_the_table_undescribed() -> None:
    described = {route.handler.__name__ for route in routes(Metrics())}

    assert described == set(openapi.OPERATIONS)


def test_schemathesis_finds_no_answer_that_is_not_described(service: Service, tmp_path: Path) -> None:
    assert _fuzz(service, tmp_path, seed=1, examples=8) >= 1_000  # on each of two stores


@pytest.mark.long
def test_schemathesis_finds_nothing_in_20_000_cases(service: Service, tmp_path: Path) -> None:
    assert _fuzz(service, tmp_path, seed=2, examples=500) >= 10_000


def _fuzz(service: Service, directory: Path, *, seed: int, examples: int) -> int:
    """How many requests were made, none of which broke anything."""
    config = directory / "schemathesis.toml"
    config.write_text(_config(service, seed))
    words = f"--max-examples {examples} --seed {seed} --generation-database none --no-color"
    found = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(config),
            "run",
            f"{service.url}/openapi.json",
            "--header",
            f"Authorization: Bearer {service.token}",
            *words.split(),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.returncode == 0, found.stdout[-6000:] + found.stderr
    counted = re.search(r"([0-9]+) generated, ([0-9]+) passed", found.stdout)
    assert counted is not None, found.stdout[-1000:]
    assert counted[1] == counted[2]
    return int(counted[2])


def _config(service: Service, seed: int) -> str:
    """With integrations and items to find: some that send, some that hold."""
    lifecycles = {f"fuzzed-{seed}": "active", f"held-{seed}": "paused"}
    items = []
    with service.client() as client:
        for name, lifecycle in lifecycles.items():
            client.create_integration(integration_id=name, url="http://127.0.0.1:9/hooks")
            for status in ("dlq", "failed"):
                made = client.import_delivery(name, {"event_type": "a", "payload": 1, "status": status})
                items.append(made["recovery_id"])
            client.update_integration(name, lifecycle_status=lifecycle)
    return CONFIG.format(integrations=json.dumps(list(lifecycles)), items=json.dumps(items))


def _wait_for_status(client: Client, recovery_id: str, status: str) -> Answer:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = client.item("strict", recovery_id)
        if found["recovery"]["status"] == status:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{recovery_id} is not {status}")


def _check(description: Any, name: str, answer: Any) -> None:
    schemas = description["components"]["schemas"]
    strict = _strictly(schemas) | {"Problem": schemas["Problem"]}  # each error closes itself
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": strict}}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(dict(answer))


def _strictly(schema: Any, *, part: bool = False) -> Any:
    """The same schema with every open object closed; the parts of an allOf close together."""
    if isinstance(schema, list):
        return [_strictly(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: [_strictly(each, part=True) for each in value] if key == "allOf" else _strictly(value)
        for key, value in schema.items()
    }
    if "allOf" in found or ("properties" in found and isinstance(found.get("required"), list) and not part):
        found["unevaluatedProperties"] = False
    return found
