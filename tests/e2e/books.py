"""The books of an item: what was sent, what is stored and what was audited must tell one story.

`what_is_wrong` knows the contract (§2, §3, §5) and nothing of how it is met.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tests.e2e.receiver import Sent

UNKNOWN = "LEASE_EXPIRED"  # the process died in the middle: nobody knows whether it was sent
TIMED_OUT = "RESPONSE_TIMEOUT"  # its receiver may have answered later
_PREFIX = "platform.integration.recovery."
_AFTER = {"retry_scheduled": "retrying", "retry_exhausted": "dlq", "reprocess_succeeded": "succeeded"}

Document = dict[str, Any]


class Entry(NamedTuple):
    """One audit event of an item's chain: in which cycle, about which attempt."""

    kind: str
    cycle: int
    attempt: int


def what_is_wrong(item: Document, events: Sequence[Document], sends: Sequence[Sent]) -> Iterator[str]:
    """Every contradiction in the books of one item; *events* are oldest first."""
    yield from what_is_wrong_here(item, events)
    yield from _sends(item, events, sends)


def what_is_wrong_here(item: Document, events: Sequence[Document]) -> Iterator[str]:
    """The same, where what its receiver saw is another story: after an older state was restored."""
    yield from _attempts(item)
    yield from _chain(item, events)
    yield from _states(item, events)


def wrong_items(items: list[Document], events: list[Document], ledger: list[Sent]) -> dict[str, list[str]]:
    """What contradicts itself in the books of which item."""
    chains, sends = defaultdict(list), defaultdict(list)
    for event in reversed(events):
        chains[event["target_id"]].append(event)
    for sent in ledger:
        sends[sent.webhook_id].append(sent)
    strangers = sends.keys() - {item["recovery_id"] for item in items}
    wrong = {name: ["it was sent, but is not stored"] for name in strangers}
    for item in items:
        name = item["recovery_id"]
        if found := list(what_is_wrong(item, chains[name], sends[name])):
            wrong[name] = found
    return wrong


def wrong_bytes(items: list[Document], ledger: list[Sent]) -> list[Sent]:
    payloads = {item["recovery_id"]: item["payload_snapshot"]["body"] for item in items}
    return [sent for sent in ledger if sent.body and json.loads(sent.body) != payloads[sent.webhook_id]]


def _attempts(item: Document) -> Iterator[str]:
    """Numbered without a gap, at most max_attempts a cycle, the last one deciding the status."""
    for cycle in range(1, item["cycle"] + 1):
        numbers = [attempt["attempt"] for attempt in _of_cycle(item, cycle)]
        if numbers != list(range(1, len(numbers) + 1)) or not 1 <= len(numbers) <= item["max_attempts"]:
            yield f"the attempts of cycle {cycle} are {numbers}"
    last = item["attempts"][-1]
    if item["attempt_count"] != last["attempt"]:
        yield f"attempt_count is {item['attempt_count']}, the last attempt {last['attempt']}"
    if item["failure_code"] != last["failure_code"] or item["status"] != _status_after(item, last):
        yield f"it is {item['status']} ({item['failure_code']}) after {last['failure_code']}"


def _status_after(item: Document, attempt: Document) -> str:
    if attempt["outcome"] == "succeeded":
        return "succeeded"
    if not attempt["retryable"]:
        return "failed"
    return "dlq" if attempt["attempt"] == item["max_attempts"] else "retrying"


def _chain(item: Document, events: Sequence[Document]) -> Iterator[str]:
    """Exactly the events the contract asks for, in order."""
    expected, found = list(_due_entries(item)), [_entry(event) for event in events]
    if found != expected:
        yield f"the audit chain is {found} and not {expected}"


def _due_entries(item: Document) -> Iterator[Entry]:
    for cycle in range(1, item["cycle"] + 1):
        if cycle > 1:
            yield Entry("replayed", cycle, 0)
        for attempt in _of_cycle(item, cycle):
            number, status = attempt["attempt"], _status_after(item, attempt)
            if status != "succeeded":
                yield Entry("reprocess_failed", cycle, number)
            if status == "retrying":
                yield Entry("retry_scheduled", cycle, number)
            elif status == "dlq":
                yield Entry("retry_exhausted", cycle, number)
            elif status == "succeeded" and (cycle, number) != (1, 1):
                yield Entry("reprocess_succeeded", cycle, number)


def _entry(event: Document) -> Entry:
    after = event["after_state"]
    return Entry(event["event_type"].removeprefix(_PREFIX), after["cycle"], after["attempt_count"])


def _states(item: Document, events: Sequence[Document]) -> Iterator[str]:
    """Each event begins where the one before ended; those of one attempt tell of one change."""
    status = "pending"
    for _, group in groupby(events, key=lambda event: _entry(event)[1:]):
        told = list(group)
        kinds = {_entry(event).kind for event in told}
        ends = {event["after_state"]["status"] for event in told}
        if {event["before_state"]["status"] for event in told} != {status} or len(ends) != 1:
            yield f"{sorted(kinds)} do not begin in {status}, or end in {sorted(ends)}"
        status = next((_AFTER[kind] for kind in kinds if kind in _AFTER), "failed")
        if kinds == {"replayed"}:
            status = "replayed"
        if ends != {status}:
            yield f"{sorted(kinds)} end in {sorted(ends)} and not in {status}"
    if status not in ("pending", item["status"]) or (status == "pending" and item["status"] != "succeeded"):
        yield f"its events end in {status}, it is {item['status']}"


def _sends(item: Document, events: Sequence[Document], sends: Sequence[Sent]) -> Iterator[str]:
    """Every request belongs to one attempt, and every attempt that was answered to one request."""
    of_cycle = {1: events[0]["source_request_id"] if events else item["request_id"]}
    for event in events:
        if event["request_id"] != of_cycle.setdefault(event["after_state"]["cycle"], event["request_id"]):
            yield f"an event of cycle {event['after_state']['cycle']} is under {event['request_id']}"
    if strangers := {sent.request_id for sent in sends} - set(of_cycle.values()):
        yield f"it was sent under {strangers}"
    for cycle, request_id in of_cycle.items():
        made = _of_cycle(item, cycle)
        received = [sent for sent in sends if sent.request_id == request_id]
        if len(received) > item["max_attempts"]:
            yield f"it was sent {len(received)} times in cycle {cycle}"
        yield from _spans(cycle, made, received)


def _spans(cycle: int, made: Sequence[Document], received: Sequence[Sent]) -> Iterator[str]:
    known = {attempt["span_id"]: attempt for attempt in made if attempt["failure_code"] != UNKNOWN}
    answered = {sent.span_id: sent.answered for sent in received}
    if len(answered) != len(received):
        yield f"one attempt of cycle {cycle} was sent twice"
    unaccounted = len(answered.keys() - known.keys())
    if unaccounted > len(made) - len(known):
        yield f"{unaccounted} sends of cycle {cycle} are no attempt of {[a['failure_code'] for a in made]}"
    for span_id, attempt in known.items():
        if attempt["failure_code"] == TIMED_OUT:
            continue  # its answer came too late, or never
        if answered.get(span_id) != attempt["http_status"]:
            told = f"attempt {attempt['attempt']} of cycle {cycle} says {attempt['http_status']}"
            yield f"{told}, its receiver {answered.get(span_id)}"


def _of_cycle(item: Document, cycle: int) -> list[Document]:
    return [attempt for attempt in item["attempts"] if attempt["cycle"] == cycle]
