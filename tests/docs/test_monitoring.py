"""The rules and the dashboard of deploy/monitoring ask for what a process tells, as it tells it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from redrive.audit.record import EventType
from redrive.docs.metric_families import metric_families
from redrive.domain.alerting import SEVERITY, Kind
from redrive.domain.item import Finish, Status
from redrive.telemetry.bus import Bus
from redrive.telemetry.log import LINES, _name
from redrive.telemetry.metrics import RESULTS, Metrics, Polled
from tests.telemetry.examples import ONE_OF_EACH, OUTAGE, an_attempt

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_SERIES = re.compile(r"\b((?:redrive|process)_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
OF_PROMETHEUS = {"instance", "job", "le"}


def _series() -> set[str]:
    """Every name under which a scrape has a sample."""
    text = Metrics().render(Polled(1, 1, 1.0))[0].decode()
    names = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))
    for quoted, kind, *_ in metric_families():  # also those that are there once something has happened
        name = quoted.strip("`")
        names |= {f"{name}_bucket"} if kind == "histogram" else {name}
    return names


def _labels() -> dict[str, set[str]]:
    return {
        name.strip("`"): {label.strip("`") for label in labels.split()}
        for name, _, _, labels in metric_families()
    }


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (each["expr"] for each in DASHBOARD["annotations"]["list"])


def _busy() -> Metrics:
    """Everything has happened once."""
    bus, metrics = Bus(), Metrics()
    metrics.listen(bus)
    for event in (*ONE_OF_EACH, an_attempt(outcome=OUTAGE, step=Finish(Status.DLQ))):
        bus(event)
    return metrics


def _samples(metrics: Metrics, polled: Polled) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render(polled)[0].decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


BUSY = Polled(1, 1, 1.0, 1, 1)
EXPRESSIONS = list(_expressions())
every_expression = pytest.mark.parametrize("expression", EXPRESSIONS)
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


@every_expression
def test_every_series_exists(expression: str) -> None:
    names = {name for name, _ in _SERIES.findall(expression)}

    assert names <= _series()
    assert names or expression.startswith("up{")


@every_expression
def test_every_label_exists_and_its_values_too(expression: str) -> None:
    known = _labels()
    for name, selector in _SERIES.findall(expression):
        for label, operator, value in _LABEL.findall(selector):
            family = name.removesuffix("_bucket")
            assert label in OF_PROMETHEUS | known.get(family, set())
            if operator == "!~" or label in OF_PROMETHEUS:
                continue
            values: dict[str, set[str]] = {
                "outcome": set(RESULTS),
                "kind": set(Kind),
                "state": {"raised", "resolved"},
                "event_type": set(EventType),
            }
            assert set(value.split("|")) <= values[label]


@every_expression
def test_it_is_well_bracketed_and_groups_by_labels_that_exist(expression: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    labels = set().union(*_labels().values()) | OF_PROMETHEUS
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= labels


@every_rule
def test_what_a_rule_watches_moves_by_itself(rule: dict[str, Any]) -> None:
    before, after = _samples(Metrics(), Polled()), _samples(_busy(), BUSY)
    moved = {key for key, value in after.items() if before.get(key) != value}

    for name, selector in _SERIES.findall(rule["expr"]):
        chosen = [(label, set(value.split("|"))) for label, _, value in _LABEL.findall(selector)]
        assert any(
            name == sample and all(labels.get(label) in values for label, values in chosen)
            for sample, labels in ((sample, dict(labels)) for sample, labels in moved)
        )
        assert name != "redrive_alerts_total"  # which stands still unless webhooks are configured


@every_rule
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in set(SEVERITY.values())
    assert set(rule["annotations"]) == {"summary", "description"}
    known_lines = {_name(kind) for kind in LINES}
    for line in re.findall(r"the log \((\w+)\)", rule["annotations"]["description"].lower()):
        assert line in known_lines
    for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
        assert label in OF_PROMETHEUS | set().union(*_labels().values())


def test_rules_have_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
