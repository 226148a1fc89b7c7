"""A step of a schema that has landed is never edited: some database was made with it."""

from pathlib import Path

import pytest

from redrive.store.migration import migrations

LANDED = Path(__file__).with_name("landed_steps.txt")  # as `sha256sum` writes it: a checksum and a name


def landed() -> list[tuple[str, str, str]]:
    """Store, name and checksum of each."""
    lines = [line.split() for line in LANDED.read_text("utf-8").splitlines()]
    return [(*path.split("/"), checksum) for checksum, path in lines]  # type: ignore[misc] # store and name


@pytest.mark.parametrize(("store", "name", "checksum"), landed())
def test_a_step_is_what_it_was_when_it_landed(store: str, name: str, checksum: str) -> None:
    steps = {step.name: step.checksum for step in migrations(f"redrive.store.{store}")}

    assert steps.get(name) == checksum, (
        f"{store}/{name} has landed and may not be edited: undo that, and make a new step instead"
    )


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_steps_that_have_landed_stand_first(store: str) -> None:
    names = [step.name for step in migrations(f"redrive.store.{store}")]
    fixed = [name for of, name, _ in landed() if of == store]

    assert fixed
    assert names[: len(fixed)] == fixed
