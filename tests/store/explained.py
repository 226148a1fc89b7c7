"""The plans of a store's own statements as the server ran them, by its own settings, and what they read."""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redrive.store.postgres.connection import Database

_EXPLAIN: Final = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_buffers = on;
SET auto_explain.log_format = json;
SET client_min_messages = log;
"""


@dataclass(frozen=True)
class Plan:
    """What one statement did."""

    sql: str
    root: Mapping[str, Any]

    @property
    def pages(self) -> int:
        """How many it touched, in memory or not."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def scans(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each table that was read, with the step that did it; a partition counts as its table."""
        for step in _steps(self.root):
            if "Relation Name" in step and step["Node Type"] != "ModifyTable":
                yield re.sub(r"_w\d+$", "", step["Relation Name"]), step

    def rows_read(self, table: str) -> int:
        """How many rows of *table* were looked at, wanted or not."""
        return sum(_rows(step) for name, step in self.scans() if name == table)

    def indexes(self, table: str) -> set[str]:
        """Those by which *table* was read."""
        return {step["Index Name"] for name, step in self.scans() if name == table}

    def walked(self) -> set[str]:
        """The tables that were read from end to end."""
        return {name for name, step in self.scans() if step["Node Type"] == "Seq Scan"}


class ExplainedDatabase(Database):
    """Keeps the plan of each statement that runs on it."""

    plans: list[Plan]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        def keep(_: object, message: Any) -> None:
            told = json.loads(message.message.partition("plan:\n")[2])
            self.plans.append(Plan(told["Query Text"], told["Plan"]))

        async with super()._session() as session:
            session.add_log_listener(keep)
            try:
                await session.execute(_EXPLAIN)
                yield session
            finally:
                session.remove_log_listener(keep)


def _steps(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield step
    for below in step.get("Plans", ()):
        yield from _steps(below)


def _rows(step: Mapping[str, Any]) -> int:
    of_each = step["Actual Rows"] + step.get("Rows Removed by Filter", 0)
    return int(of_each * step["Actual Loops"] + 0.5)
