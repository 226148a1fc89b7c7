"""What the guides name exists: commands with their options, settings, metrics."""

import re
import shlex
from pathlib import Path

import pytest

from redrive.audit.record import EventType
from redrive.cli import app
from redrive.config import SETTINGS
from redrive.domain.alerting import BEGINS, ENDS, Alert, Kind, Message
from redrive.domain.replay_judging import Skip
from redrive.engine.runtime import Limits
from redrive.incoming import MAX_HEAD, MAX_HEADERS, PATIENCE
from redrive.server import IDLE_SECONDS
from tests.factories import NOW

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted((DOCS / "guides").glob("*.md"))
OF_THE_COMMAND_LINE = {"REDRIVE_URL", "REDRIVE_TOKEN", "REDRIVE_CONFIG"}
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)


@every_guide
def test_its_commands_are_understood(guide: Path) -> None:
    shell = "\n".join(_SHELL.findall(guide.read_text("utf-8"))).replace("\\\n", " ")
    commands = [line for line in shell.splitlines() if re.search(r"(^| )redrive [a-z]", line)]

    assert commands
    for line in commands:
        command = re.sub(r"^export \w+=\$\((.*)\)$", r"\1", line).partition(" > ")[0]
        words = shlex.split(command.strip("()").removesuffix(" &"), comments=True)
        app.parse_args(words[words.index("redrive") + 1 :], exit_on_error=False, print_error=False)


def test_the_limits_that_callers_are_told_are_those_in_force() -> None:
    told = (DOCS / "guides" / "behind-a-proxy.md").read_text("utf-8")

    for limit in (
        f"{MAX_HEAD // 1024} KiB, {MAX_HEADERS} headers",
        (
            f"{PATIENCE.for_a_request:.0f} seconds, and a second more for each "
            f"{PATIENCE.bytes_per_second // 1024:.0f} KiB that came; {PATIENCE.at_most:.0f} seconds at most"
        ),
        f"{PATIENCE.for_an_answer:.0f} seconds without a byte",
        f"kept for {IDLE_SECONDS} seconds",
        f"{Limits().auth_failures_per_minute} a minute (`auth_failures_per_minute`)",
    ):
        assert limit in told


@pytest.mark.parametrize("kind", Kind)
def test_the_commands_that_an_alert_names_are_understood(kind: Kind) -> None:
    alert = Alert(kind, "billing", NOW, is_on=True, facts={})
    command = Message("key", alert, is_over=False).payload()["act"]["command"]

    program, *words = shlex.split(command)
    app.parse_args(words, exit_on_error=False, print_error=False)

    assert program == "redrive"


def test_the_guide_to_alerts_tells_of_every_kind() -> None:
    told = (DOCS / "guides" / "alerts.md").read_text("utf-8")

    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) - {"kind"} == set(Kind)


def test_the_guide_to_replays_tells_every_reason_to_skip_an_item() -> None:
    guide = (DOCS / "guides" / "replay-many.md").read_text("utf-8")
    table = re.search(r"^\| reason \|.*?\n\n", guide, re.MULTILINE | re.DOTALL)
    while_it_runs = re.search(r"A job may skip more while it runs:.*?\. The plan", guide, re.DOTALL)

    assert table is not None
    assert while_it_runs is not None
    first_column = "\n".join(line.split("|")[1] for line in table[0].strip().splitlines())
    told = [*re.findall(r"`(\w+)`", first_column), *re.findall(r"`(\w+)`", while_it_runs[0])]
    assert sorted(told) == sorted(Skip)


def test_every_event_that_begins_or_ends_an_alert_is_written() -> None:
    assert set(BEGINS) | set(ENDS) <= set(EventType)


@every_guide
def test_its_settings_exist(guide: Path) -> None:
    named = set(re.findall(r"REDRIVE_[A-Z_]+", guide.read_text("utf-8")))

    assert named <= {setting.variable for setting in SETTINGS} | OF_THE_COMMAND_LINE


@every_guide
def test_its_metrics_exist(guide: Path) -> None:
    known = (DOCS / "reference" / "telemetry.md").read_text("utf-8")

    for name in re.findall(r"\bredrive_[a-z_]+", guide.read_text("utf-8")):
        assert f"`{name}`" in known
