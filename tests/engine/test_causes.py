"""How many causes of one integration are told apart."""

import pytest

from redrive.domain.grouping import cause_of
from redrive.domain.outcome import Answer, Failed, Reach
from redrive.engine import causes
from redrive.engine.causes import Causes
from tests.factories import an_integration

ACME, OTHER = an_integration("acme", number=1), an_integration("other", number=2)


def refused(word: str, status: int = 422) -> Failed:
    return Failed(f"HTTP_{status}", "refused", Reach.ANSWERED, Answer(status, (), word.encode()))


def test_past_so_many_new_ones_are_told_apart_by_code_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "MOST", 2)
    known = Causes()
    words = ["alpha", "beta", "gamma", "delta"]

    found = [known.of(ACME, refused(word), reads_answer=True) for word in words]

    assert found[:2] == [cause_of(ACME, refused(word)) for word in words[:2]]
    assert found[2] == found[3] != cause_of(ACME, refused("gamma"))
    assert (found[2].failure_code, found[2].detail) == ("HTTP_422", "(something else each time)")
    assert known.of(ACME, refused("gamma", 409), reads_answer=True).number != found[2].number
    assert known.of(ACME, refused("beta"), reads_answer=True) == found[1], "what is known stays told apart"
    assert known.of(OTHER, refused("gamma"), reads_answer=True) == cause_of(OTHER, refused("gamma"))
