"""What starts redrive elsewhere, as it is written: Dockerfile, compose.yaml and deploy/kubernetes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from redrive.cli import app
from redrive.config import SETTINGS, Settings, load

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))
MANIFESTS = [
    manifest
    for path in sorted(KUBERNETES.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for manifest in yaml.safe_load_all(path.read_text("utf-8"))
]


@dataclass(frozen=True)
class Process:
    """One way redrive is started: what it is told, and how long its end may take."""

    name: str
    arguments: list[str]
    environ: Mapping[str, str]
    grace_seconds: float | None = None

    @property
    def settings(self) -> Settings:
        """What it makes of them."""
        _, told, _ = app.parse_args(self.arguments, exit_on_error=False, print_error=False)
        names = {setting.name for setting in SETTINGS}
        return load({name: value for name, value in told.arguments.items() if name in names}, self.environ)


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in MANIFESTS if manifest["kind"] == kind]


def pod_of(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    pod: Mapping[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    [container] = pod_of(workload)["containers"]
    found: Mapping[str, Any] = container
    return found


def probes_of(workload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: probe["httpGet"] for name, probe in container_of(workload).items() if name.endswith("Probe")
    }


def selector_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    selector = manifest["spec"]["selector"]
    found: Mapping[str, str] = selector.get("matchLabels", selector)
    return found


def instruction(name: str) -> str:
    """What follows the last one of this name in the Dockerfile."""
    found: str = re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)[-1]
    return found


def processes() -> Iterator[Process]:
    """Every process that any of the files starts."""
    image = _settings(dict(word.split("=", 1) for word in instruction("ENV").split()))
    yield Process("image", yaml.safe_load(instruction("CMD")), image)
    for name, service in COMPOSE["services"].items():
        if service["image"] == "redrive":
            environ = image | _settings(service["environment"])
            yield Process(f"compose {name}", service["command"], environ, _seconds(service))
    [configured] = of_kind("ConfigMap")
    for workload in [*of_kind("Job"), *of_kind("Deployment")]:
        name, arguments = workload["metadata"]["name"], container_of(workload)["args"]
        grace = pod_of(workload).get("terminationGracePeriodSeconds")
        yield Process(f"kubernetes {name}", arguments, image | configured["data"], grace)


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("REDRIVE_")}


def _seconds(service: Mapping[str, Any]) -> float | None:
    text = service.get("stop_grace_period")
    return None if text is None else float(text.removesuffix("s"))
