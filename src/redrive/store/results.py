"""The results of a batch, by claim: of several of one claim only one is written, by either store."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from redrive.domain.delivery import Claim
from redrive.domain.item import Finish, RetryAt, Status
from redrive.domain.outcome import Failed
from redrive.store.port import Result
from redrive.store.rows import Row, to_ms

MINUTE_MS = 60_000
FORGOTTEN = "audit_forgotten"  # what is kept under that name: an id from which on no record was forgotten
FORGOTTEN_BYTES = 8
MICROSECOND = timedelta(microseconds=1)

Numbers = tuple[int, int, int]  # an item, its cycle and its attempt


class OutOfOrder(Exception):
    """An event would stand before another of its target that was written before it."""

    def __init__(self, last_event: int) -> None:
        super().__init__(f"event {last_event} was written before")
        self.last_event = last_event


def numbers_of(claim: Claim) -> Numbers:
    """What tells a claim from every other."""
    return (claim.delivery.id, claim.cycle, claim.attempt)


def one_each(results: Sequence[Result]) -> dict[Numbers, Result]:
    """The result of each claim that counts: the first that finishes the item, or else the first."""
    chosen: dict[Numbers, Result] = {}
    for result in results:
        before = chosen.setdefault(numbers_of(result.claim), result)
        if isinstance(before.step, RetryAt) and isinstance(result.step, Finish):
            chosen[numbers_of(result.claim)] = result
    return chosen


def which_are(written: Iterable[Result], results: Sequence[Result]) -> list[bool]:
    """Whether each of *results* is one of those *written*: the very same, not one that equals it."""
    those = {id(result) for result in written}
    return [id(result) in those for result in results]


def tallies(owner: int, results: Iterable[Result]) -> list[Row]:
    """What came of them by integration and minute, as `count_attempts` wants it."""
    succeeded, failed, duration = Counter[tuple[int, int]](), Counter[tuple[int, int]](), Counter[Any]()
    for result in results:
        key = (result.claim.delivery.integration, to_ms(result.finished_at) // MINUTE_MS)
        (failed if isinstance(result.attempt.outcome, Failed) else succeeded)[key] += 1
        duration[key] += result.attempt.duration // MICROSECOND
    return [
        (number, minute, owner, succeeded[number, minute], failed[number, minute], microseconds)
        for (number, minute), microseconds in duration.items()
    ]


def failures_of(results: Iterable[Result]) -> list[Row]:
    """How often each cause was seen and when, as `count_failures` wants it."""
    seen: dict[tuple[int, int], list[Result]] = {}
    for result in results:
        if result.cause is not None:
            seen.setdefault((result.claim.delivery.integration, result.cause.number), []).append(result)
    return [_failures(number, alike) for (number, _), alike in seen.items()]


def told_to_job(result: Result) -> Row:
    """What a job is told of an attempt on an item that it replayed, as `tell_job` wants it."""
    claim, outcome, step = result.claim, result.attempt.outcome, result.step
    state = None
    if isinstance(step, Finish):
        state = "succeeded" if step.status is Status.SUCCEEDED else "failed"
    code = outcome.code if isinstance(outcome, Failed) else None
    return (
        to_ms(result.finished_at), code is not None, state, code,
        claim.delivery.integration, claim.job, claim.delivery.id,
    )  # fmt: skip


def _failures(number: int, alike: Sequence[Result]) -> Row:
    cause, seen = alike[0].cause, [to_ms(result.finished_at) for result in alike]
    assert cause is not None  # noqa: S101 - failures_of chose them by it
    return (
        number, cause.number, cause.fingerprint, cause.failure_class, cause.failure_code, cause.detail,
        len(alike), min(seen), max(seen), alike[-1].claim.delivery.id,
    )  # fmt: skip
