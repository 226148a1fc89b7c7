"""Which jobs hold what waits in them, and which release it, is said in SQL as the domain says it."""

import re
from importlib.resources import files

import pytest

from redrive.domain.replay import ACTIVE, RELEASING

LIST = re.compile(r"\bstate IN \(([^)]*)\)", re.IGNORECASE)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_every_list_of_jobs_that_run_is_one_of_the_domain(store: str) -> None:
    texts = [
        file.read_text("utf-8")
        for file in files(f"redrive.store.{store}").iterdir()
        if file.name.endswith(".sql")
    ]

    lists = [
        frozenset(re.findall(r"'(\w+)'", found.group(1))) for text in texts for found in LIST.finditer(text)
    ]

    running = {states for states in lists if states & RELEASING}
    assert running == {ACTIVE, RELEASING}
