"""Who sends to whom when several processes share the work: lanes, and a fair division of them.

A lane is one shard of one integration. Every process computes the same division from the same facts, so none
has to be told; ownership itself is only ever what the store says.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from typing import NamedTuple


class Lane(NamedTuple):
    """Shard *shard* of the *shards* that an integration is split into, with its part of each limit."""

    integration: int
    shards: int
    shard: int

    def of_count(self, whole: int) -> int:
        """Its part of a limit that is counted; the parts of all lanes make the whole, when it is enough."""
        each, rest = divmod(whole, self.shards)
        return max(1, each + (self.shard < rest))

    def of_rate(self, whole: float) -> float:
        """Its part of a limit that is a rate; each part may save up one attempt, so bursts may add up."""
        return whole / self.shards


@cache
def whole(integration: int) -> Lane:
    """The one lane of an integration that is not split."""
    return Lane(integration, 1, 0)


def lane_of(integration: int, shards: int, item_id: int) -> Lane:
    """The lane that an item falls into."""
    return Lane(integration, shards, item_id % shards)


def divide(lanes: Collection[Lane], members: Collection[int]) -> Mapping[Lane, int]:
    """Who should own each lane: rendezvous hashing, with no member above its even share, rounded up.

    One member more or less moves about one member's share of the lanes, and hardly any other. The lanes of
    an integration that is split go to as many members as there are: it is split for nothing else.
    """
    if not members:
        return {}
    most = -(-len(lanes) // len(members))
    load = dict.fromkeys(members, 0)
    parts: Counter[tuple[int, int]] = Counter()  # of an integration, with a member
    owners: dict[Lane, int] = {}
    for lane in sorted(lanes, key=lambda lane: (-lane.shards, lane)):  # the split ones while there is choice
        ranked = sorted(members, key=lambda member: _weight(lane, member), reverse=True)
        free = [member for member in ranked if load[member] < most]
        each = -(-lane.shards // len(members))
        owner = next((member for member in free if parts[lane.integration, member] < each), free[0])
        load[owner] += 1
        parts[lane.integration, owner] += 1
        owners[lane] = owner
    return owners


def _weight(lane: Lane, member: int) -> bytes:
    return hashlib.blake2b(f"{lane.integration} {lane.shard} {member}".encode(), digest_size=8).digest()
