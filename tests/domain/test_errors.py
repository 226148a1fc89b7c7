import re
from typing import get_args

import pytest

from redrive.audit.record import WHEN, EventType
from redrive.domain import errors
from redrive.domain.access import SYSTEM, Call, Permission, Principal
from redrive.domain.delivery import rfc3339
from redrive.domain.errors import Fault, Forbidden, InvalidPayload, RedriveError
from redrive.domain.item import Step
from tests.factories import NOW, TRACEPARENT, a_claim, an_event

ERRORS = [
    error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, RedriveError)
]


@pytest.mark.parametrize("error", [error for error in ERRORS if error is not RedriveError])
def test_every_error_has_its_code_and_a_sentence(error: type[RedriveError]) -> None:
    assert re.fullmatch(r"(INT|AUTH)-[0-9]{3}-[A-Z-]+", error.code)
    assert (error.__doc__ or "").strip().count("\n") == 0
    assert [other for other in ERRORS if getattr(other, "code", "") == error.code] == [error]


def test_an_error_without_a_detail_says_what_its_class_says() -> None:
    assert str(errors.RecoveryNotFound()) == "There is no such recovery item in this integration."


def test_an_invalid_payload_tells_every_fault() -> None:
    error = InvalidPayload(Fault("/a", "is wrong"), Fault("", "so is this"))

    assert str(error) == "/a: is wrong; so is this"


@pytest.mark.parametrize("permission", Permission)
def test_no_permission_implies_another(permission: Permission) -> None:
    others = frozenset(Permission) - {permission}
    call = Call(Principal("shop", "token", None, others), "req-1", TRACEPARENT)

    for other in others:
        call.require(other)
    with pytest.raises(Forbidden, match=re.escape(permission)):
        call.require(permission)


def test_redrive_itself_may_do_nothing_over_the_api() -> None:
    assert not SYSTEM.permissions


def test_every_kind_of_event_says_when_it_is_written() -> None:
    assert set(WHEN) == set(EventType)
    assert all(kind.startswith("platform.integration.") for kind in EventType)


def test_public_names_carry_their_prefix() -> None:
    assert a_claim().recovery_id.startswith("rec_")
    assert an_event().event_id.startswith("evt_")


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [(0, "2026-01-02T03:04:05.000Z"), (999, "2026-01-02T03:04:05.000Z"), (7_000, "2026-01-02T03:04:05.007Z")],
)
def test_an_instant_leaves_with_milliseconds(microsecond: int, text: str) -> None:
    assert rfc3339(NOW.replace(microsecond=microsecond)) == text


def test_every_step_has_a_status() -> None:
    assert all(hasattr(step, "status") for step in get_args(Step))
