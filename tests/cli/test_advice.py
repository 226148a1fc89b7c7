"""What a person is told to do next about an error of the service."""

from typing import Any

import pytest

from redrive.cli.advice import advice_on
from redrive.client import ProblemError
from redrive.domain.access import Permission
from redrive.domain.errors import Forbidden

PLACE = "/platform/integrations/billing"
NAME = "rpl_0e7xk2m4q9v1c"


def a_conflict(detail: str, place: str, **members: Any) -> ProblemError:
    problem = {"detail": detail, "error_code": "INT-409-CONFLICT", "instance": f"{PLACE}/{place}"}
    return ProblemError(409, problem | members)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (a_conflict("3 have moved on", "recovery/replays", difference={}), "redrive replay plan billing …"),
        (
            a_conflict(f"the plan {NAME} has expired", "recovery/replays"),
            f"`redrive replay show billing {NAME}`",
        ),
        (
            a_conflict(f"it waits in {NAME}", "recovery/queue/rec_1/replay"),
            f"redrive replay watch billing {NAME}",
        ),
        (a_conflict(f"it waits in {NAME}", "probe"), f"redrive replay watch billing {NAME}"),
        (
            a_conflict(f"{NAME} is paused", f"recovery/replays/{NAME}/rate"),
            f"redrive replay show billing {NAME}",
        ),
        (a_conflict("the group is resolved already", "recovery/groups/grp_1/resolve"), None),
    ],
)
def test_a_conflict_names_the_command_that_helps_or_none(problem: ProblemError, told: str | None) -> None:
    advice = advice_on(problem)

    assert advice is None if told is None else str(advice).startswith(told)


@pytest.mark.parametrize(
    ("code", "place", "told"),
    [
        ("INT-404-GROUP-NOT-FOUND", "recovery/groups/grp_1", "`redrive group list billing`"),
        ("INT-404-REPLAY-NOT-FOUND", f"recovery/replays/{NAME}", "`redrive replay list billing`"),
        ("INT-404-RECOVERY-NOT-FOUND", "recovery/queue/rec_1", "`redrive queue list billing`"),
        ("INT-409-CONTAINED", "recovery/queue/rec_1/replay", "`redrive integration containment billing`"),
        (
            "INT-409-RECOVERY-REPLAY-CONFLICT",
            "recovery/queue/rec_1/replay",
            "`redrive queue show billing rec_1`",
        ),
    ],
)
def test_what_to_do_next_has_the_ids_of_the_call(code: str, place: str, told: str) -> None:
    problem = ProblemError(404, {"error_code": code, "instance": f"{PLACE}/{place}"})

    assert str(advice_on(problem)).startswith(told)


def test_a_permission_is_named_as_it_is_given() -> None:
    detail = Forbidden(Permission.OPERATE).detail

    problem = ProblemError(403, {"error_code": "AUTH-403-FORBIDDEN", "detail": detail})

    assert "--permission operate`" in str(advice_on(problem))
