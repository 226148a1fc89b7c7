"""A connection that is lost around a commit: the verb says what came of it, and that came once.

What is left must be what the same verb leaves when nothing goes wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from redrive.audit.record import AuditEvent, EventType
from redrive.domain.access import Permission
from redrive.domain.delivery import Claim, Delivery, Resolution
from redrive.domain.integration import Integration, Lifecycle
from redrive.domain.sharing import Lane
from redrive.store.port import StoreUnavailable
from redrive.store.tokens import Token
from tests.factories import (
    DONE,
    EXHAUSTED,
    NOW,
    a_delivery,
    a_once,
    a_replay,
    a_result,
    an_event,
    an_import,
    an_intake,
    an_integration,
    later,
    secrets,
)
from tests.postgres import Server
from tests.store.left import what_is_left
from tests.store.proxy import Loss, Proxy, a_proxy
from tests.store.under_test import (
    CONNECTIONS,
    ClockedDatabase,
    OffsetClock,
    PostgresUnderTest,
    a_dead_item,
    a_schema,
    accept,
    add_integration,
    changed,
    claim_all,
)

_scenes = count(1)


class PollingClock(OffsetClock):
    """To learn what became of a lost session is to ask again and again."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Scene:
    """A process that reaches its database through a proxy, and an integration of its own."""

    store: PostgresUnderTest
    proxy: Proxy
    owner: int
    integration: Integration
    item: Delivery | None = None
    claim: Claim | None = None

    @property
    def name(self) -> str:
        return self.integration.integration_id

    @property
    def number(self) -> int:
        return self.integration.number

    def event(self, event_type: EventType = EventType.UPDATED) -> AuditEvent:
        target = self.name if self.item is None else f"rec_{self.item.id}"
        return an_event(event_type, integration_id=self.name, target_id=target)

    async def left(self) -> Any:
        owners = {None: "nobody", self.owner: "us"}
        return await what_is_left(self.store, self.name, self.number, owners)


Given = Callable[[Scene], Awaitable[None]]
Verb = Callable[[Scene], Awaitable[Any]]


# what there is before


async def nothing(_: Scene) -> None:
    pass


async def due(scene: Scene) -> None:
    scene.item = a_delivery(scene.number)
    await accept(scene.store, scene.item)


async def claimed(scene: Scene) -> None:
    await due(scene)
    [scene.claim] = await claim_all(scene.store, scene.owner, scene.number)


async def dead(scene: Scene) -> None:
    scene.item = await a_dead_item(scene.store, scene.owner, scene.number)


async def owned(scene: Scene) -> None:
    balance = await scene.store.balance(scene.owner)
    assert balance is not None
    assert Lane(scene.number, 1, 0) in balance.owned


# the verbs, and what is to be known of what they say


async def accepts(scene: Scene) -> Any:
    given = [a_delivery(scene.number, idempotency_key=key) for key in ("one", "two", "one")]
    verdicts = await scene.store.accept([an_intake(one, owner=scene.owner) for one in given])
    return [type(verdict) for verdict in verdicts]


async def accepts_once(scene: Scene) -> Any:
    given = an_intake(a_delivery(scene.number), owner=scene.owner)
    return await scene.store.accept([given], lambda _: a_once(scene.name.encode()))


async def claims(scene: Scene) -> Any:
    return [claim.delivery == scene.item for claim in await claim_all(scene.store, scene.owner, scene.number)]


async def finishes(scene: Scene) -> Any:
    assert scene.claim is not None
    return await scene.store.record(scene.owner, [a_result(scene.claim, DONE, events=(scene.event(),))])


async def retries(scene: Scene) -> Any:
    assert scene.claim is not None
    return await scene.store.record(scene.owner, [a_result(scene.claim, later(), events=(scene.event(),))])


async def buries(scene: Scene) -> Any:
    assert scene.claim is not None
    return await scene.store.record(scene.owner, [a_result(scene.claim, EXHAUSTED, events=(scene.event(),))])


async def gives_back(scene: Scene) -> Any:
    assert scene.claim is not None
    return await scene.store.give_back(scene.owner, [scene.claim])


async def replays(scene: Scene) -> Any:
    assert scene.item is not None
    replay = a_replay(scene.item, event=scene.event(EventType.REPLAYED))
    return await scene.store.replay(replay, a_once(scene.name.encode()))


async def resolves(scene: Scene) -> Any:
    assert scene.item is not None
    item = await scene.store.item(scene.number, scene.item.id)
    assert item is not None
    once = a_once(scene.name.encode())
    return await scene.store.resolve(item, Resolution(NOW, "ops", "by phone"), scene.event(), once)


async def creates(scene: Scene) -> Any:
    new = an_integration(f"{scene.name}-new", secrets=secrets("whsec_a"))
    number = await scene.store.create_integration(new, scene.event(), a_once(scene.name.encode()))
    found = [one for one in await scene.store.integrations() if one.integration_id == new.integration_id]
    return [(one.number == number, one.secrets) for one in found]


async def updates(scene: Scene) -> Any:
    new = changed(scene.integration, lifecycle_status=Lifecycle.PAUSED, secrets=secrets("whsec_a"))
    return await scene.store.update_integration(new, [scene.event()])


async def hands_over(scene: Scene) -> Any:
    given = a_delivery(scene.number, idempotency_key="key")
    return await scene.store.hand_over(an_import(given, event=scene.event()), a_once(scene.name.encode()))


async def notes(scene: Scene) -> Any:
    return await scene.store.note([scene.event()])


async def adds_token(scene: Scene) -> Any:
    token = Token(f"tok_{scene.name}", scene.name, frozenset({Permission.DELIVER}), NOW, None, None)
    await scene.store.tokens.add(token, scene.name.encode().ljust(32))
    return [one.permissions for one in await scene.store.tokens.all() if one.subject == scene.name]


async def releases(scene: Scene) -> Any:
    await scene.store.release(scene.owner, [Lane(scene.number, 1, 0)])
    return await scene.store._database.ask("SELECT owner FROM lane WHERE integration = $1", scene.number)


# What is looked up and not there is done again by some; others say that nothing was changed. A claim then
# has nothing.
AGAIN: list[tuple[Given, Verb]] = [
    (nothing, accepts),
    (nothing, accepts_once),
    (claimed, finishes),
    (claimed, retries),
    (claimed, buries),
    (claimed, gives_back),
    (owned, releases),
]
NOT_AGAIN: list[tuple[Given, Verb]] = [
    (dead, replays),
    (dead, resolves),
    (nothing, creates),
    (nothing, updates),
    (nothing, hands_over),
    (nothing, notes),
    (nothing, adds_token),
]
CLAIM: tuple[Given, Verb] = (due, claims)


def _name(part: Any) -> str:
    return str(part.__name__)


@pytest.fixture
async def a_scene(postgres: Server) -> AsyncIterator[Callable[[Given], Awaitable[Scene]]]:
    clock = PollingClock()
    async with a_schema(postgres.url(), clock) as where, a_proxy(postgres.port) as proxy:
        through = where.replace(f":{postgres.port}/", f":{proxy.port}/")
        database = await ClockedDatabase.open(through, clock, connections=CONNECTIONS)
        store = PostgresUnderTest(database, clock, through)
        owner = await store.enter()

        async def make(given: Given) -> Scene:
            number = await add_integration(store, f"scene-{next(_scenes)}")
            [integration] = [one for one in await store.integrations() if one.number == number]
            scene = Scene(store, proxy, owner, integration)
            await given(scene)
            return scene

        yield make
        await store.close()


MakeScene = Callable[[Given], Awaitable[Scene]]


@pytest.mark.parametrize(("given", "verb"), [*AGAIN, *NOT_AGAIN, CLAIM], ids=_name)
async def test_a_verb_whose_answer_is_lost_says_what_it_did_and_did_it_once(
    a_scene: MakeScene, given: Given, verb: Verb
) -> None:
    sound, scene = await a_scene(given), await a_scene(given)
    said = await verb(sound)
    scene.proxy.lose(Loss.AFTER)

    assert await verb(scene) == said

    assert scene.proxy.has_lost
    assert await scene.left() == await sound.left()


@pytest.mark.parametrize(("given", "verb"), AGAIN, ids=_name)
async def test_a_verb_that_never_arrived_is_done_again(a_scene: MakeScene, given: Given, verb: Verb) -> None:
    sound, scene = await a_scene(given), await a_scene(given)
    said = await verb(sound)
    scene.proxy.lose(Loss.BEFORE)

    assert await verb(scene) == said

    assert scene.proxy.has_lost
    assert await scene.left() == await sound.left()


@pytest.mark.parametrize(("given", "verb"), NOT_AGAIN, ids=_name)
async def test_a_verb_that_never_arrived_says_that_nothing_was_changed(
    a_scene: MakeScene, given: Given, verb: Verb
) -> None:
    sound, scene = await a_scene(given), await a_scene(given)
    said, before = await verb(sound), await scene.left()
    scene.proxy.lose(Loss.BEFORE)

    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        await verb(scene)

    assert await scene.left() == before
    assert await verb(scene) == said
    assert await scene.left() == await sound.left()


async def test_a_claim_that_never_arrived_has_nothing_and_leaves_it_to_the_next(a_scene: MakeScene) -> None:
    scene = await a_scene(due)
    before = await scene.left()
    scene.proxy.lose(Loss.BEFORE)

    assert await claims(scene) == []

    assert scene.proxy.has_lost
    assert await scene.left() == before
    assert await claims(scene) == [True]
