import json
from io import StringIO
from typing import Any, get_args

import pytest

from redrive.domain.item import Finish, Status
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import (
    AttemptFinished,
    AuditWritten,
    DeliveriesAccepted,
    Event,
    LoopFailed,
    StoreFailed,
    TargetBlocked,
)
from redrive.telemetry.log import LINES, Format, Level, log_to
from tests.telemetry.examples import (
    DONE,
    LATER,
    ONE_OF_EACH,
    OUTAGE,
    SECRET,
    SUCCESS,
    TIMEOUT,
    TRACE_ID,
    a_claim,
    a_request,
    an_attempt,
)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def written(
    *happened: Event, level: Level = "debug", form: Format = "json", stream: StringIO | None = None
) -> str:
    stream = stream or StringIO()
    bus = Bus()
    log_to(bus, stream, level=level, form=form)
    for event in happened:
        bus(event)
    return stream.getvalue()


def line(event: Event) -> dict[str, Any]:
    [text] = written(event).splitlines()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def level_of(event: Event) -> str:
    return str(line(event)["level"])


def test_every_event_has_its_line() -> None:
    assert set(LINES) == set(get_args(Event))


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_a_line_never_holds_what_must_not_be_logged(event: Event) -> None:
    assert SECRET not in written(event)
    assert SECRET not in written(event, form="console")


def test_an_attempt_line_says_whose_attempt_it_was_and_how_it_ended() -> None:
    said = line(an_attempt(claim=a_claim(attempt=3), outcome=OUTAGE, step=LATER))

    assert said.pop("timestamp").endswith("Z")
    assert said == {
        "level": "info",
        "event": "attempt_finished",
        "recovery_id": a_claim().recovery_id,
        "integration_id": "acme",
        "request_id": "req-1",
        "trace_id": TRACE_ID,
        "cycle": 2,
        "attempt": 3,
        "max_attempts": 5,
        "result": "retrying",
        "code": "HTTP_503",
        "http_status": 503,
        "duration_ms": 125,
        "next_retry_at": "2025-06-01T12:00:02.000Z",
    }


def test_an_attempt_without_an_answer_has_no_http_status() -> None:
    said = line(an_attempt(outcome=TIMEOUT, step=Finish(Status.DLQ)))

    assert (said["code"], said["http_status"], said["result"]) == ("RESPONSE_TIMEOUT", None, "dlq")


@pytest.mark.parametrize(
    ("attempt", "level"),
    [
        (an_attempt(outcome=SUCCESS, step=DONE), "debug"),
        (an_attempt(outcome=OUTAGE, step=LATER), "info"),
        (an_attempt(outcome=OUTAGE, step=Finish(Status.DLQ)), "warning"),
        (an_attempt(outcome=OUTAGE, step=Finish(Status.FAILED)), "warning"),
        (an_attempt(outcome=SUCCESS, step=DONE, recorded=False), "warning"),
    ],
)
def test_an_attempt_is_as_loud_as_it_is_bad(attempt: AttemptFinished, level: str) -> None:
    assert level_of(attempt) == level


def test_a_success_whose_claim_was_lost_is_called_lost() -> None:
    assert line(an_attempt(recorded=False))["result"] == "lost"


@pytest.mark.parametrize(("status", "level"), [(200, "debug"), (404, "info"), (503, "warning")])
def test_a_request_is_as_loud_as_its_answer_is_bad(status: int, level: str) -> None:
    assert level_of(a_request(status=status)) == level


@pytest.mark.parametrize(("again", "level"), [(False, "warning"), (True, "debug")])
def test_a_blocked_target_is_loud_once_in_a_while(again: bool, level: str) -> None:  # noqa: FBT001 - a case
    assert level_of(TargetBlocked("acme", "it is private", again)) == level


def test_nothing_below_the_level_is_written() -> None:
    assert written(an_attempt(), a_request(), DeliveriesAccepted(1, 0), level="info") == ""
    assert "attempt_finished" not in written(an_attempt(outcome=OUTAGE, step=LATER), level="warning")


def test_what_is_never_written_is_not_listened_to() -> None:
    bus = Bus()

    log_to(bus, StringIO(), level="info")

    assert not {DeliveriesAccepted, AuditWritten} & set(bus._listeners)


def test_a_bug_is_located_down_to_its_cause() -> None:
    def fail() -> None:
        try:
            int(SECRET)
        except ValueError as error:
            raise RuntimeError(SECRET) from error

    with pytest.raises(RuntimeError) as raised:
        fail()
    said = line(LoopFailed("worker", raised.value))

    assert said["level"] == "error"
    assert said["error"] == "RuntimeError from ValueError"
    assert said["stack"][-1].startswith(f"{__file__}:")
    assert said["stack"][-1].endswith(" fail")


def test_a_terminal_gets_lines_for_people_and_a_pipe_gets_json() -> None:
    event = StoreFailed("accept", "disk full")

    assert "\x1b[" in written(event, form="auto", stream=Terminal())
    assert json.loads(written(event, form="auto"))["reason"] == "disk full"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("reason", ["\x1b[2Jgone", "one\nforged"])
def test_a_value_cannot_forge_a_line_or_reach_the_terminal(form: Format, reason: str) -> None:
    said = written(StoreFailed("accept", reason), form=form)

    assert said.count("\n") == 1
    assert "\x1b" not in said


@pytest.mark.parametrize("reason", ["caf\u00e9 \x9b2J", "\udcff of a path"])
def test_a_line_of_json_is_ascii_whatever_it_says(reason: str) -> None:
    said = written(StoreFailed("accept", reason), form="json")

    assert said.isascii()
    assert json.loads(said)["reason"] == reason
