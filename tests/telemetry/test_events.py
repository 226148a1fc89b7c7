from typing import get_args

import pytest

from redrive.telemetry import events
from tests.telemetry.examples import ONE_OF_EACH


@pytest.mark.parametrize("kind", get_args(events.Event))
def test_an_event_says_what_it_means(kind: type) -> None:
    assert kind.__doc__ is not None
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # what a dataclass writes when nobody did


def test_every_class_in_the_catalogue_can_be_announced() -> None:
    written = {kind for kind in vars(events).values() if getattr(kind, "__module__", "") == events.__name__}

    assert written == set(get_args(events.Event))


def test_there_is_an_example_of_every_event() -> None:
    assert [type(event) for event in ONE_OF_EACH] == list(get_args(events.Event))
