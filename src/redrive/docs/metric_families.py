"""The metrics as a scraper meets them: the text of a process that has done a little of everything."""

import re

from redrive.docs.markdown import code
from redrive.telemetry import events
from redrive.telemetry.bus import Bus
from redrive.telemetry.metrics import Metrics, Polled

_HELP = re.compile(r"# HELP (redrive_\w+) (.+)")
_TYPE = re.compile(r"# TYPE (redrive_\w+) (\w+)")
_SAMPLE = re.compile(r"(redrive_\w+?)(?:_bucket|_sum|_count)?\{(.+?)\} ")
_LABEL = re.compile(r'(\w+)="')


def metric_families() -> list[tuple[str, str, str, str]]:
    """Name, type, meaning and labels of each metric of ours."""
    text = _scraped()
    types = dict(_TYPE.findall(text))
    labels: dict[str, list[str]] = {}
    for name, sample in _SAMPLE.findall(text):
        labels[name] = [label for label in _LABEL.findall(sample) if label not in ("le", "version")]
    return [
        (code(name), types[name], meaning, " ".join(code(label) for label in labels.get(name, [])))
        for name, meaning in _HELP.findall(text)
        if not name.endswith("_created")
    ]


def _scraped() -> str:
    """A label is only seen on a sample, so something has to have happened."""
    bus, metrics = Bus(), Metrics()
    metrics.listen(bus)
    bus(events.AuditWritten("an event type"))
    bus(events.RequestHandled("GET", "/healthz", 200, 0.001, "req-42"))
    bus(events.LoopFailed("a loop", RuntimeError()))
    everything = Polled(1, 1, 1.0)
    return metrics.render(everything)[0].decode()
