"""What starts redrive elsewhere fits the code."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from redrive.api.routes import routes
from redrive.config import load
from redrive.telemetry.metrics import Metrics
from tests.docs.deployment import (
    COMPOSE,
    DOCKERFILE,
    KUBERNETES,
    KUSTOMIZATION,
    MANIFESTS,
    ROOT,
    Process,
    container_of,
    instruction,
    of_kind,
    pod_of,
    probes_of,
    processes,
    selector_of,
)

LETTING_GO_SECONDS = 15  # beside the drain: preStop, what is still to be written, the database's connections
PROCESSES = list(processes())
WORKLOADS = [*of_kind("Job"), *of_kind("Deployment")]
PORT = load({}, {}).port
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)
every_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])
every_deployment = pytest.mark.parametrize(
    "deployment", of_kind("Deployment"), ids=lambda one: one["metadata"]["name"]
)


@every_process
def test_a_process_is_started_by_a_command_with_settings_that_exist(process: Process) -> None:
    settings = process.settings  # raises for an unknown command, option or variable, and for a bad value

    assert settings.host == "0.0.0.0", "nobody outside its container would reach it"


@every_process
def test_a_process_may_finish_what_is_in_flight_before_it_is_killed(process: Process) -> None:
    if process.arguments[0] == "serve" and process.name != "image":  # an image cannot say it
        assert process.grace_seconds is not None
        assert process.grace_seconds >= process.settings.drain_seconds + LETTING_GO_SECONDS


def test_processes_that_share_their_work_do_so_over_postgresql() -> None:
    shared = [process.settings for process in PROCESSES if process.settings.role != "all"]

    assert {settings.role for settings in shared} == {"api", "worker"}
    assert all(settings.sqlite_path() is None for settings in shared)


def test_no_password_stands_in_an_address() -> None:
    assert of_kind("Secret") == []
    for process in PROCESSES:
        address = process.settings.database_address()
        assert process.settings.database in (address, address.replace("://", "://redrive@"))


def test_the_image_is_made_of_extras_and_files_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    extras = re.findall(r"--extra (\w+)", DOCKERFILE)
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)

    assert set(extras) == project["optional-dependencies"].keys()
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_nothing_comes_into_the_image_without_a_hash() -> None:
    fetching = re.findall(r"(?:pip install|uv build)[^&\n]*", DOCKERFILE)

    assert len(fetching) == 4
    assert all("--require-hashes" in one or "--no-deps /dist/" in one for one in fetching)


def test_health_is_asked_where_it_is_answered_without_a_token() -> None:
    answered = {route.path for route in routes(Metrics()) if route.permission is None}
    in_pods = {probe["path"] for one in of_kind("Deployment") for probe in probes_of(one).values()}

    assert in_pods == {"/healthz", "/readyz"} <= answered
    assert f"HTTPConnection('127.0.0.1', {PORT}" in DOCKERFILE
    assert "'GET', '/healthz'" in DOCKERFILE


@every_deployment
def test_a_database_that_is_away_makes_a_pod_unready_and_restarts_none(deployment: dict[str, Any]) -> None:
    paths = {name: probe["path"] for name, probe in probes_of(deployment).items()}

    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_every_port_is_the_one_that_is_listened_on() -> None:
    ports = [port for one in of_kind("Deployment") for port in container_of(one)["ports"]]
    probed = {probe["port"] for one in of_kind("Deployment") for probe in probes_of(one).values()}
    served = {port["targetPort"] for one in of_kind("Service") for port in one["spec"]["ports"]}
    [published] = COMPOSE["services"]["api"]["ports"]

    assert {process.settings.port for process in PROCESSES} == {PORT}
    assert {port["containerPort"] for port in ports} == {PORT}
    assert probed == served == {port["name"] for port in ports}
    assert instruction("EXPOSE") == published.rpartition(":")[2] == str(PORT)


@every_workload
def test_a_pod_hears_of_no_services_by_variables_that_look_like_settings(workload: dict[str, Any]) -> None:
    assert pod_of(workload)["enableServiceLinks"] is False


@every_workload
def test_a_pod_is_the_image_s_user_and_may_do_next_to_nothing(workload: dict[str, Any]) -> None:
    pod, container = pod_of(workload), container_of(workload)
    user = pod["securityContext"]

    assert instruction("USER") == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert user["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_selector_finds_the_pods_of_one_deployment() -> None:
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in WORKLOADS}

    found = {
        f"{one['kind']} {one['metadata']['name']}": [
            name for name, given in labels.items() if selector_of(one).items() <= given.items()
        ]
        for one in MANIFESTS
        if "selector" in one.get("spec", {})
    }

    assert found == {
        "Deployment redrive-api": ["redrive-api"],
        "Service redrive": ["redrive-api"],
        "PodDisruptionBudget redrive-api": ["redrive-api"],
        "Deployment redrive-worker": ["redrive-worker"],
        "PodDisruptionBudget redrive-worker": ["redrive-worker"],
    }


def test_the_manifests_fit_into_any_namespace() -> None:
    assert "namespace" not in KUSTOMIZATION
    assert all("namespace" not in manifest["metadata"] for manifest in MANIFESTS)


def test_kustomize_knows_every_manifest() -> None:
    known = {*KUSTOMIZATION["resources"], "kustomization.yaml"}

    assert known == {path.name for path in KUBERNETES.iterdir()}
    assert {container_of(one)["image"] for one in WORKLOADS} == {
        one["name"] for one in KUSTOMIZATION["images"]
    }


def test_the_image_starts_the_command_line() -> None:
    assert yaml.safe_load(instruction("ENTRYPOINT")) == ["redrive"]
