"""The results of a batch, by claim: of several of one claim only one is written, by either store."""

from collections.abc import Iterable, Sequence

from redrive.domain.delivery import Claim
from redrive.domain.item import Finish, RetryAt
from redrive.store.port import Result

Numbers = tuple[int, int, int]  # an item, its cycle and its attempt


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
