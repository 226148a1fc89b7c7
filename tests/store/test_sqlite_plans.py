"""At a million rows every hot query and every list goes by an index: work grows with what is asked for."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import fields

from redrive.audit.record import EventType
from redrive.domain.ids import EventId
from redrive.domain.item import Status
from redrive.store.named import load_queries
from redrive.store.port import EventFilter, QueueFilter
from redrive.store.sqlite import read
from redrive.store.sqlite.connection import ask, connect_to_read
from redrive.store.sqlite.schema import prepare
from tests.factories import NOW
from tests.store.under_test import OffsetClock

pytestmark = pytest.mark.xdist_group("plans on sqlite")  # one worker fills the file, not each
SQL = load_queries("redrive.store.sqlite")
ROWS = 1_000_000
GROWING = ("delivery", "live", "dead", "attempt", "audit", "cycle", "imported", "dedupe", "answer", "token")
SCANS_ALLOWED = {
    "orphans": "live",  # documented there: once a start
    "tokens": "token",  # all of them are what is asked for
}

# A tenth of the items is unfinished, a tenth dead, the rest succeeded; ids are a millisecond apart.
FILL = f"""
CREATE TEMP TABLE number (n INTEGER PRIMARY KEY);
INSERT INTO number
  WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {ROWS})
  SELECT n FROM counter;
INSERT INTO integration (number, integration_id, lifecycle, version, config)
  SELECT n, 'partner-' || n, 'active', 1, '{{}}' FROM number WHERE n <= 100;
INSERT INTO delivery
  SELECT n << 22, n % 100 + 1, 'order.paid', 'req-' || n, 't', NULL, NULL, 'shop', 5, 'a/b', NULL, x'7b7d'
    FROM number;
INSERT INTO live
  SELECT n << 22, n % 100 + 1, iif(n % 3 = 0, 'pending', 'retrying'), 1, iif(n % 3 = 0, 0, 1), 5, n, NULL, 2
    FROM number WHERE n % 10 = 0;
INSERT INTO dead (id, integration, status, cycle, attempt, max_attempts, failure_code, died_at, risk,
                  failure_group)
  SELECT n << 22, n % 100 + 1, iif(n % 3 = 0, 'failed', 'dlq'), 1, 1, 5, 'HTTP_503', n, 2, n % 7
    FROM number WHERE n % 10 = 1;
INSERT INTO attempt
  SELECT n << 22, 1, 1, n, 1, iif(n % 10 = 1, 'HTTP_503', NULL), iif(n % 10 = 1, '', NULL),
         iif(n % 10 = 1, 1, NULL), 'answered', NULL, 's', iif(n % 10 = 1, 503, 200), NULL, 0, x'', NULL
    FROM number WHERE n % 10 > 0;
INSERT INTO audit
  SELECT n << 22, iif(n % 2, 'platform.integration.updated', 'platform.integration.created'),
         'req-' || (n / 2), 'partner-' || (n % 100), 'rec_' || (n / 4), iif(n % 50, 'redrive', 'ops'), '{{}}',
         NULL
    FROM number;
"""


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apsw.Connection]:
    """A reader on a million rows; nothing was analysed, as in production."""
    path = tmp_path_factory.mktemp("plans") / "redrive.db"
    prepare(path, OffsetClock())
    filling = apsw.Connection(str(path))
    filling.pragma("synchronous", "off")
    filling.execute("BEGIN; " + FILL + "COMMIT")
    filling.close()
    connection = connect_to_read(Path(path))
    yield connection
    connection.close()


def plan(connection: apsw.Connection, sql: str, values: Any = None) -> list[str]:
    names = re.findall(r":\w+", sql)
    given = values or ({name[1:]: None for name in names} if names else [None] * sql.count("?"))
    return [row[3] for row in ask(connection, f"EXPLAIN QUERY PLAN {sql}", given)]


NAMED = {
    "due": "live_due",
    "next_due_of": "live_due",
    "next_due": "live_due",
    "backlog": "live_due",
    "claimed": "PRIMARY KEY",
    "live": "PRIMARY KEY",
    "dead": "PRIMARY KEY",
    "delivery": "PRIMARY KEY",
    "delivery_without_payload": "PRIMARY KEY",
    "stamp": "PRIMARY KEY",
    "finish": "PRIMARY KEY",
    "retry": "PRIMARY KEY",
    "give_back": "PRIMARY KEY",
    "adopt": "PRIMARY KEY",
    "exhume": "PRIMARY KEY",
    "resolve": "PRIMARY KEY",
    "last_attempt": "PRIMARY KEY",
    "last_attempt_without_body": "PRIMARY KEY",
    "attempts": "PRIMARY KEY",
    "cycles": "PRIMARY KEY",
    "imported": "PRIMARY KEY",
    "imported_without_body": "PRIMARY KEY",
    "queue_of_live": "live_status",
    "queue_of_dead": "dead_status",
    "queue_of_code": "dead_code",
    "queue_of_group": "dead_group",
    "groups": "failure_group_seen",
    "group": "dead_open",
    "unresolved": "dead_open",
    "comments": "comment_of_group",
    "judge": "PRIMARY KEY",
    "forget_comments": "comment_of_group",
    "queue_of_all": "delivery_of_integration",
    "key": "PRIMARY KEY",
    "recall": "PRIMARY KEY",
    "token": "sqlite_autoindex_token_2",
    "prune_keys": "dedupe_age",
    "prune_answers": "answer_age",
    "head": "audit_target",
    "chain": "audit_target",
    "every_chain": "audit_target",
    "next_items": "delivery_of_integration",
    "whereabouts": "audit_target",
    "jobs_of": "replay_item_of",
}


@pytest.mark.parametrize("name", NAMED)
def test_a_query_goes_by_its_index(connection: apsw.Connection, name: str) -> None:
    steps = plan(connection, SQL[name])

    assert any(NAMED[name] in step for step in steps), steps


@pytest.mark.parametrize("name", [name for name in SQL if "migration" not in name])
def test_no_query_walks_or_sorts_a_table_that_grows(connection: apsw.Connection, name: str) -> None:
    steps = plan(connection, SQL[name])

    assert [step for step in steps if walks(step) and SCANS_ALLOWED.get(name) != table_of(step)] == []
    assert name == "tokens" or not [step for step in steps if "TEMP B-TREE" in step], steps


EVENTS: dict[str, Any] = {
    "incident": "INC-7",
    "request_id": "req-7",
    "event_type": EventType.UPDATED,
    "integration_id": "partner-7",
    "target_id": "rec_7",
    "actor": "ops",
    "tenant": "acme",
    "since": NOW,
    "until": NOW,
}
BY_INDEX = {  # the most selective one that is given
    "incident": "audit_incident",
    "request_id": "audit_request",
    "target_id": "audit_target",
    "integration_id": "audit_integration",
    "actor": "audit_actor",
    "event_type": "audit_type",
}


@pytest.mark.parametrize(
    "given",
    [names for size in range(1, len(EVENTS) + 1) for names in combinations(EVENTS, size)],
    ids=" ".join,
)
def test_a_list_of_events_goes_by_the_most_selective_index(
    connection: apsw.Connection, given: tuple[str, ...]
) -> None:
    is_walk_of_each = "tenant" in given and not {
        "incident", "request_id", "target_id", "integration_id",
    } & set(given)  # fmt: skip
    index = next((BY_INDEX[name] for name in BY_INDEX if name in given), "INTEGER PRIMARY KEY")
    wanted = EventFilter(**{name: EVENTS[name] for name in given})
    for steps in (
        plan_of_list(connection, read._matching(wanted, None, 50), "DESC"),
        plan_of_list(connection, read._matching(wanted, EventId(1 << 40), 50), "DESC"),
        plan_of_list(connection, read._matching(wanted, None, 50, above=1 << 30), "ASC"),
    ):
        if is_walk_of_each:
            assert [step for step in steps if "SCAN" in step or "B-TREE" in step] == []
            assert any("INDEX audit_integration (integration_id=?" in step for step in steps), steps
            continue
        assert len(steps) == 1, steps
        assert re.match(rf"SEARCH audit USING .*{index}\b", steps[0]), steps


def plan_of_list(connection: apsw.Connection, matching: tuple[str, Any], order: str) -> list[str]:
    where, values = matching
    sql = f"SELECT id, record FROM audit WHERE {where} ORDER BY id {order} LIMIT 50"
    return plan(connection, sql, values)


def test_a_list_of_all_events_reads_a_page_from_the_newest_end(connection: apsw.Connection) -> None:
    sql = "SELECT id, record FROM audit WHERE 1 ORDER BY id DESC LIMIT 50"

    assert plan(connection, sql) == ["SCAN audit"]  # by the primary key: LIMIT ends it, nothing is sorted
    assert read._matching(EventFilter(), None, 50)[0] == "1"


def test_every_filter_of_events_is_covered_here() -> None:
    assert set(EVENTS) == {field.name for field in fields(EventFilter)}


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("code", [None, "HTTP_503"])
@pytest.mark.parametrize("group", [None, 7])
def test_every_list_of_items_starts_from_a_query_by_an_index(
    status: Status | None, code: str | None, group: int | None
) -> None:
    query, _ = read._narrowest(QueueFilter(status=status, failure_code=code, group=group))

    assert query in NAMED


def test_the_plans_are_those_of_a_filled_database(connection: apsw.Connection) -> None:
    assert ask(connection, "SELECT count(*) FROM delivery") == [(ROWS,)]
    assert ask(connection, "SELECT count(*) FROM attempt") == [(ROWS * 9 // 10,)]


def walks(step: str) -> bool:
    return step.startswith("SCAN") and table_of(step) in GROWING


def table_of(step: str) -> str:
    found = re.match(r"(?:SCAN|SEARCH) (\w+)", step)
    return "" if found is None else found[1]
