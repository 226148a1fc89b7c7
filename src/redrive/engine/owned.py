"""What is this process's: an incarnation, until when its lease lasts, and lanes, with what is due in them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from math import inf

from redrive.clock import Clock
from redrive.domain.integration import Integration
from redrive.domain.sharing import Lane, lane_of, whole
from redrive.engine.catalogue import Catalogue
from redrive.engine.lanes import Draining, Lanes

_STEP = timedelta(milliseconds=50)


class Owned:
    """As membership learned it from the store last.

    `wake` is set when a lane's next due time moved forward, and when room was made for a lane that waits for
    it: whoever makes room must say so.
    """

    def __init__(self, clock: Clock, catalogue: Catalogue, *, slots: int) -> None:
        self.clock = clock
        self.catalogue = catalogue
        self.owner = 0  # set when the store was entered
        self.lease_until = inf  # a second of the steady clock, past which nothing may be started
        self.lanes = Lanes(slots)
        self.wake = asyncio.Event()
        self._first_step = clock.now()  # so that no two processes step at once
        self._owned: frozenset[Lane] | None = frozenset()  # None: every lane is ours, and none is split
        self._owned_of: Mapping[int, Sequence[Lane]] = {}  # what is owned, by integration
        catalogue.on_change = self.configure

    @property
    def has_lapsed(self) -> bool:
        """Whether our lease may have run out: then nothing may be started."""
        return self.clock.elapsed() >= self.lease_until

    @property
    def numbers(self) -> Collection[int]:
        """The integrations of which a lane was given to us; none where all of them are ours."""
        return self._owned_of

    def lanes_of(self, number: int) -> Sequence[Lane]:
        """Those of an integration."""
        return (whole(number),) if self._owned is None else self._owned_of.get(number, ())

    def lane_of(self, number: int, item_id: int) -> Lane | None:
        """The one that an item falls into; None: another process's."""
        if self._owned is None:
            return whole(number)
        lanes = self._owned_of.get(number)
        if not lanes:
            return None
        lane = lane_of(number, lanes[0].shards, item_id)
        return lane if lane in self._owned else None

    def follow(self, owned: frozenset[Lane] | None) -> None:
        """Take over what is ours from now on (None: everything); what is new may have waited for long."""
        if owned == self._owned:
            return
        before = self._all_lanes()
        self._owned = owned
        self._owned_of = {
            number: tuple(lanes)
            for number, lanes in groupby(sorted(owned or ()), key=lambda lane: lane.integration)
        }
        now = self._all_lanes()
        self.lanes.keep(now)
        new = {lane.integration for lane in now - before}
        for integration in self.catalogue:
            if integration.number in new:
                self.configure(integration)
        for lane in now - before:
            self.lanes.pace(lane).forget()
            self.due(lane, self.clock.now())

    def configure(self, integration: Integration) -> None:
        """Let the lanes of an integration follow it."""
        concurrency: int = self.catalogue.defaults.of(integration, "concurrency")
        rate, release = integration.rate_per_second, integration.traffic.release
        lanes = self.lanes_of(integration.number)
        for lane in lanes:
            self.lanes.pace(lane).configure(
                lane.of_count(concurrency),
                None if rate is None else lane.of_rate(rate),
                sends=integration.sends,
                release=(
                    None
                    if release is None
                    else Draining(release.since, lane.of_rate(release.rate_per_second))
                ),
            )
        if lanes:
            self._follow_breaker(integration)
        self.wake.set()

    def due(self, lane: Lane, at: datetime) -> None:
        """Something of this lane is due: look in time, if it is ours.

        What is to come is looked for at the end of its step of 50 ms: a claim costs a commit, so it should
        find all that fell due meanwhile. What is accepted within that step, or while the claim is under way,
        may start before it.
        """
        if self._owned is None or lane in self._owned:
            look_at = at if at <= self.clock.now() else self.end_of_step(at)
            if self.lanes.due(lane, look_at):
                self.wake.set()

    def end_of_step(self, at: datetime) -> datetime:
        """When to look for what falls due at *at*."""
        return at + (self._first_step - at) % _STEP

    def falls_due_now(self, at: datetime | None) -> bool:
        """Whether what falls due at *at*, by the store's clock, need not wait for the end of a step."""
        return at is not None and at <= self.clock.now() + _STEP

    def made_room(self) -> None:
        """A place or a slot is free again: look whether a lane waits for one."""
        if self.lanes.is_waiting:
            self.wake.set()

    def _follow_breaker(self, integration: Integration) -> None:
        """What other processes turned it to; one that closed has the lanes begin with one attempt."""
        gate, defaults = self.lanes.gate(integration.number), self.catalogue.defaults
        gate.heed(defaults.watch(integration))
        has_closed = gate.follow(
            defaults.breaker(integration),
            integration.traffic.throttled_until,
            self.clock.now(),
            self.clock.elapsed(),
        )
        if has_closed:
            self.lanes.ramp(integration.number)

    def _all_lanes(self) -> frozenset[Lane]:
        if self._owned is not None:
            return self._owned
        return frozenset(whole(integration.number) for integration in self.catalogue)
