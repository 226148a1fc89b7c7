"""What people may say of a group of failures, and what it says of itself."""

from datetime import timedelta
from typing import Any

import pytest

from redrive.domain.errors import Conflict, InvalidPayload
from redrive.domain.failure_group import (
    LONGEST_COMMENT,
    RULES_FOLLOWED,
    FailureGroup,
    GroupState,
    Judgement,
    acknowledged,
    is_comment,
    muted,
    reopened,
    resolved,
    shown,
)
from redrive.domain.ids import ItemId
from tests.factories import NOW, a_cause, an_integration

SECOND = timedelta(seconds=1)
OPEN, ACKNOWLEDGED, RESOLVED = GroupState


def a_group(state: GroupState = OPEN, *, seen: timedelta = -SECOND, **fields: Any) -> FailureGroup:
    """Judged at NOW, and last seen so much later."""
    judged = Judgement() if state is OPEN else Judgement(state, NOW, "ops")
    values: dict[str, Any] = {
        "integration": 1,
        "cause": a_cause(),
        "failures": 3,
        "first_seen_at": NOW - timedelta(days=1),
        "last_seen_at": NOW + seen,
        "sample": ItemId(7),
        "judgement": judged,
        "items": 2,
        "items_is_exact": True,
    }
    return FailureGroup(**values | fields)


REGRESSED = a_group(RESOLVED, seen=SECOND)


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (a_group(), (OPEN, False)),
        (a_group(ACKNOWLEDGED, seen=SECOND), (ACKNOWLEDGED, False)),
        (a_group(RESOLVED), (RESOLVED, False)),
        (a_group(RESOLVED, seen=timedelta()), (RESOLVED, False)),
        (REGRESSED, (OPEN, True)),
    ],
)
def test_a_group_that_failed_after_it_was_resolved_is_open(
    group: FailureGroup, told: tuple[GroupState, bool]
) -> None:
    assert (group.state, group.is_regressed) == told
    assert (group.facts()["state"], group.facts()["regressed"]) == told


@pytest.mark.parametrize("group", [a_group(), REGRESSED])
def test_an_open_group_is_acknowledged(group: FailureGroup) -> None:
    assert acknowledged(group, at=NOW, by="ann").judgement == Judgement(ACKNOWLEDGED, NOW, "ann")


@pytest.mark.parametrize("state", [ACKNOWLEDGED, RESOLVED])
def test_no_other_is_acknowledged(state: GroupState) -> None:
    with pytest.raises(Conflict):
        acknowledged(a_group(state), at=NOW, by="ann")


@pytest.mark.parametrize("group", [a_group(), a_group(ACKNOWLEDGED), REGRESSED, a_group(RESOLVED, items=1)])
def test_a_group_is_resolved_as_long_as_something_waits_in_it(group: FailureGroup) -> None:
    assert resolved(group, at=NOW, by="ann").judgement == Judgement(RESOLVED, NOW, "ann")


def test_a_group_that_is_settled_is_not_resolved_again() -> None:
    settled = a_group(RESOLVED, items=0)

    with pytest.raises(Conflict):
        resolved(settled, at=NOW, by="ann")
    assert resolved(settled, at=NOW, by="ann", is_begun=True).state is RESOLVED


@pytest.mark.parametrize("state", [ACKNOWLEDGED, RESOLVED])
def test_what_is_not_open_is_opened_again(state: GroupState) -> None:
    assert reopened(a_group(state), at=NOW, by="ann").judgement == Judgement(OPEN, NOW, "ann")


@pytest.mark.parametrize("group", [a_group(), REGRESSED])
def test_what_is_open_is_not_opened(group: FailureGroup) -> None:
    with pytest.raises(Conflict):
        reopened(group, at=NOW, by="ann")


@pytest.mark.parametrize("group", [a_group(), a_group(ACKNOWLEDGED), a_group(RESOLVED)])
def test_a_group_is_muted_whatever_its_state_and_keeps_that(group: FailureGroup) -> None:
    quiet = muted(group, NOW + SECOND, at=NOW)

    assert quiet.judgement.muted_until == NOW + SECOND
    assert quiet.state is group.state
    assert muted(quiet, None, at=NOW) == group


@pytest.mark.parametrize("until", [NOW, NOW - SECOND])
def test_nothing_is_muted_until_an_instant_that_is_past(until: Any) -> None:
    with pytest.raises(InvalidPayload):
        muted(a_group(), until, at=NOW)


@pytest.mark.parametrize(
    ("group", "fields", "is_hidden"),
    [
        (a_group(), {}, False),
        (a_group(), {"redact_pointers": ("/a",)}, False),
        (a_group(), {"redact_pointers": ("/a",), "redacts_since": NOW}, True),
        (a_group(seen=RULES_FOLLOWED), {"redact_pointers": ("/a",), "redacts_since": NOW}, True),
        (a_group(seen=RULES_FOLLOWED + SECOND), {"redact_pointers": ("/a",), "redacts_since": NOW}, False),
        (a_group(), {"redact_pointers": (), "redacts_since": NOW}, False),
        (
            a_group(cause=a_cause(failure_class="connect")),
            {"redact_pointers": ("/a",), "redacts_since": NOW},
            False,
        ),
    ],
)
def test_what_was_read_before_more_was_hidden_is_not_shown(
    group: FailureGroup, fields: dict[str, Any], *, is_hidden: bool
) -> None:
    found = shown(group, an_integration(**fields))

    assert found.cause.detail == ("[REDACTED]" if is_hidden else group.cause.detail)
    assert found.cause.fingerprint == group.cause.fingerprint


@pytest.mark.parametrize("text", ["x", "two\nlines\n\tand a tab", "👩‍🚒 on it", "x" * LONGEST_COMMENT])
def test_a_comment_says_something(text: str) -> None:
    assert is_comment(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", " x", "x\n", "a\x00b", "a\rb", "a\u202eb", "a\u2028b", "x" * (LONGEST_COMMENT + 1)],
)
def test_what_says_nothing_or_controls_a_terminal_is_no_comment(text: str) -> None:
    assert not is_comment(text)
