"""The integrations: kept in memory, read from the store, changed by people with a reason to."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.batch import Questions
from redrive.delivery.sealing import Unsealable
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, Fault, IntegrationNotFound, InvalidPayload
from redrive.domain.integration import Defaults, Integration, Lifecycle, check_integration
from redrive.domain.retry import RetryPolicy
from redrive.domain.traffic import Traffic
from redrive.engine.audited import changed_fields, integration_state, of_person, of_system
from redrive.engine.content import legible
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.placing import Judge, check_places
from redrive.engine.sealed import OF_SECRETS, Rotation, Saved, rotated, with_secrets
from redrive.engine.tools import Tools
from redrive.store.port import Once, StoreInconsistent
from redrive.telemetry.events import AuditWritten, Operated

MOST_TRIES = 5  # to write over one version that was read: who changed it meanwhile may not have told us yet


class Change(Struct, frozen=True):
    """What one writing makes of an integration, and the events it leaves, with what these say besides."""

    saved: Saved
    kinds: list[EventType]
    metadata: dict[str, Any]


Tell = Callable[[Integration, Traffic], Sequence[AuditEvent]]  # of what it was, and what its traffic becomes


def untold(_old: Integration, _traffic: Traffic) -> Sequence[AuditEvent]:
    """A change that no event tells of."""
    return ()


class Catalogue:
    """Every integration as last read; the store repeats what matters in each write."""

    def __init__(
        self,
        tools: Tools,
        defaults: Defaults,
        *,
        allow_http: bool,
        judge: Judge,
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.vault = tools.vault
        self.defaults = defaults
        self.allow_http = allow_http
        self.judge = judge
        self.on_change: Callable[[Integration], None] = lambda _: None
        self._by_id: dict[str, Integration] = {}
        self._by_number: dict[int, Integration] = {}
        self._policies: dict[int, RetryPolicy] = {}
        self._refreshes = Questions(self._refresh)

    async def refresh(self) -> None:
        """Take over what is in the store, and what other processes changed since: all who ask, at once."""
        await self._refreshes.submit((None,))

    def find(self, integration_id: str) -> Integration:
        """An integration that was found for somebody before."""
        return self._by_id[integration_id]

    async def known(self, call: Call, integration_id: str) -> Integration:
        """As `find`, for *call*; one that another process may just have added is looked for in the store."""
        found = self._by_id.get(integration_id) if call.principal.sees(integration_id) else None
        return found or await self.current(call, integration_id)

    async def current(self, call: Call, integration_id: str) -> Integration:
        """As `find`, for *call*, as it is in the store now: for what a person is shown, or judges by.

        Another tenant's is looked for in vain, as one that there is not: also in the time that takes.
        """
        await self.refresh()
        found = self._by_id.get(integration_id)
        if found is None or not call.principal.sees(integration_id):
            raise IntegrationNotFound(f"there is no integration {integration_id!r}")
        return found

    def policy(self, number: int) -> RetryPolicy:
        """The retry policy in force for the integration behind *number*."""
        return self._policies[number]

    def numbered(self, number: int) -> Integration:
        """The integration behind a number of the store."""
        return self._by_number[number]

    def __iter__(self) -> Iterator[Integration]:
        return iter(list(self._by_number.values()))

    async def show(self, call: Call, integration_id: str) -> Integration:
        """One integration, for whoever may view."""
        call.require(Permission.VIEW)
        return await self.current(call, integration_id)

    async def list(self, call: Call) -> list[Integration]:
        """Every integration that the caller sees, by integration_id, for whoever may view."""
        call.require(Permission.VIEW)
        await self.refresh()
        seen = [one for one in self if call.principal.sees(one.integration_id)]
        return sorted(seen, key=lambda integration: integration.integration_id)

    async def create(
        self, call: Call, fields: dict[str, Any], *, render: Render[Saved], key: Key | None = None
    ) -> Told:
        """Add one."""
        call.require(Permission.OPERATE)
        told = await idempotent(self.store, key, lambda: self._create(call, fields, render=render, key=key))
        return self._legible(told, key)

    async def update(
        self, call: Call, integration_id: str, changes: dict[str, Any], *, render: Render[Saved]
    ) -> Told:
        """Change some fields; None puts a policy field back to the default."""
        call.require(Permission.OPERATE)
        if not changes:
            raise InvalidPayload(Fault("", "name at least one field to change"))
        check_integration(changes, allow_http=self.allow_http)

        def change(old: Integration) -> Change:
            saved = self._changed(old, changes)
            changed = changed_fields(old, saved.integration)
            return Change(saved, _kinds(changed), {"changed": changed})

        return await self._write_over(call, integration_id, change, render=render)

    async def rotate(
        self,
        call: Call,
        integration_id: str,
        asked: Rotation,
        *,
        render: Render[Saved],
        key: Key | None = None,
    ) -> Told:
        """Sign with a new secret, and for a while with those before it as well."""
        call.require(Permission.OPERATE)

        def change(old: Integration) -> Change:
            now = self.clock.now()
            saved = rotated(replace(old, updated_at=now, version=old.version + 1), asked, self.vault, now=now)
            seconds = asked.overlap.total_seconds()
            facts = {"overlap_seconds": seconds, "signature_scheme": saved.integration.secrets[0].scheme}
            return Change(saved, [EventType.SECRETS_ROTATED], facts)

        async def act() -> Told:
            return await self._write_over(call, integration_id, change, render=render, key=key)

        return self._legible(await idempotent(self.store, key, act), key)

    async def steer(
        self,
        integration: Integration,
        traffic: Traffic,
        events: Sequence[AuditEvent],
        once: Once | None = None,
    ) -> Integration | None:
        """Put *traffic* in the place of the integration's; None when that is another by now than was read."""
        stored = await self.store.steer(integration, traffic, events, once)
        if stored is None:
            return None
        return self._keep(replace(integration, traffic=stored))

    async def change_traffic(
        self,
        number: int,
        change: Callable[[Traffic], Traffic | None],
        tell: Tell = untold,
        once: Once | None = None,
    ) -> Integration | None:
        """Put in the place of its traffic what *change* makes of that, whoever else changes it meanwhile.

        The integration as it was; None: *change* makes nothing of its traffic as it is by now.
        """
        tried = Counter[int]()
        while True:
            old = self.numbered(number)
            if (traffic := change(old.traffic)) is None:
                return None
            traffic = replace(traffic, version=old.traffic.version + 1)
            events = tell(old, traffic)
            if await self.steer(old, traffic, events, once) is not None:
                for event in events:
                    self.announce(AuditWritten(event.event_type.value))
                return old
            _count(tried, old.traffic.version, old)
            await self.refresh()

    def by_itself(self, kind: EventType, facts: dict[str, Any]) -> Tell:
        """Tells of traffic that nobody but redrive changes."""

        def tell(old: Integration, traffic: Traffic) -> Sequence[AuditEvent]:
            event = of_system(
                self.next_id,
                self.clock.now(),
                kind,
                integration_id=old.integration_id,
                before=old.traffic.state(),
                after=traffic.state(),
                metadata=facts,
            )
            return [event]

        return tell

    async def seal_the_rest(self) -> None:
        """Seal anew what is under no key, or an older one, of the database; others may at the same time.

        What cannot be opened stays as it is: its integration tells of it when it sends.
        """
        for _ in range(MOST_TRIES):
            for old in self:
                if self.vault.is_current(old):
                    continue
                try:
                    sealed = self.vault.resealed(old)
                except Unsealable:
                    continue
                new = replace(sealed, updated_at=self.clock.now(), version=old.version + 1)
                if await self.store.update_integration(new, []):
                    self._keep(new)
            await self.refresh()

    async def _create(
        self, call: Call, fields: dict[str, Any], *, render: Render[Saved], key: Key | None
    ) -> Told:
        check_integration(fields, allow_http=self.allow_http)
        if not call.principal.sees(fields["integration_id"]):
            raise InvalidPayload(Fault("/integration_id", f"must begin with {call.principal.tenant}."))
        fields = {"name": fields["integration_id"]} | fields
        now = self.clock.now()
        new = Integration(number=0, created_at=now, updated_at=now, **_values(fields))
        self._check_policy(new)
        saved = with_secrets(None, new, fields, self.vault, allow_http=self.allow_http)
        check_places(self.judge, None, new, fields)
        integration = saved.integration
        event = self._event(call, EventType.CREATED, integration)
        told = render(saved)
        number = await self.store.create_integration(integration, event, self._kept(key, told, saved))
        if number is None:
            raise Conflict(f"there is an integration {integration.integration_id!r} already")
        self._keep(replace(integration, number=number))
        self._announce(EventType.CREATED, call, integration.integration_id)
        return told

    def _changed(self, old: Integration, changes: dict[str, Any]) -> Saved:
        new = replace(old, updated_at=self.clock.now(), version=old.version + 1, **_values(changes))
        if set(new.redact_pointers) - set(old.redact_pointers):
            new = replace(new, redacts_since=new.updated_at)
        self._check_policy(new)
        saved = with_secrets(old, new, changes, self.vault, allow_http=self.allow_http)
        check_places(self.judge, old, new, changes)
        return saved

    async def _write_over(
        self,
        call: Call,
        integration_id: str,
        change: Callable[[Integration], Change],
        *,
        render: Render[Saved],
        key: Key | None = None,
    ) -> Told:
        """Read, *change*, write: until nobody changed it between our reading and our writing."""
        tried = Counter[int]()
        while True:
            old = await self.current(call, integration_id)
            _count(tried, old.version, old)
            made = change(old)
            new, before = made.saved.integration, integration_state(old)
            events = [
                self._event(call, kind, new, before=before, metadata=made.metadata) for kind in made.kinds
            ]
            told = render(made.saved)
            if await self.store.update_integration(new, events, self._kept(key, told, made.saved)):
                self._keep(new)
                for event in events:
                    self._announce(event.event_type, call, integration_id)
                return told

    def _kept(self, key: Key | None, told: Told, saved: Saved) -> Once | None:
        """What is stored under the call's key: sealed, when a secret is shown in it."""
        once = kept(key, told, self.clock.now())
        if once is None or saved.made_secret is None:
            return once
        return replace(once, body=self.vault.seal_answer(once.scope, once.body))

    def _legible(self, told: Told, key: Key | None) -> Told:
        """What was told before, opened."""
        if key is None or not told.again:
            return told
        return legible(lambda kept: replace(kept, body=self.vault.open_answer(key.scope, kept.body)), told)

    def _check_policy(self, new: Integration) -> None:
        """What is wrong with values that are right one by one, each as it is in force."""
        base, most, concurrency = (
            self.defaults.of(new, name) for name in ("base_delay_seconds", "max_delay_seconds", "concurrency")
        )
        faults = []
        if base > most:
            faults.append(
                Fault("/base_delay_seconds", f"{base:g} is longer than max_delay_seconds, {most:g}")
            )
        if new.shards > concurrency:
            faults.append(
                Fault("/shards", f"{new.shards} shards cannot share a concurrency of {concurrency}")
            )
        if faults:
            raise InvalidPayload(*faults)

    def _event(self, call: Call, kind: EventType, new: Integration, **more: Any) -> AuditEvent:
        return of_person(
            self.next_id,
            self.clock.now(),
            kind,
            call,
            integration_id=new.integration_id,
            after=integration_state(new),
            **more,
        )

    def _announce(self, kind: EventType, call: Call, integration_id: str) -> None:
        self.announce(AuditWritten(kind.value))
        self.announce(
            Operated(kind.value, call.principal.id, integration_id, integration_id, call.request_id)
        )

    async def _refresh(self, asked: Sequence[None]) -> Sequence[None]:
        for integration in await self.store.changed_integrations():
            self._keep(integration)
        return asked

    def _keep(self, integration: Integration) -> Integration:
        """Whatever of it, and of its traffic, is not older than what is held: that may have changed since."""
        held = self._by_number.get(integration.number)
        if held is not None:
            latest = held if held.version > integration.version else integration
            steered = held if held.traffic.version > integration.traffic.version else integration
            integration = replace(latest, traffic=steered.traffic)
        self._by_id[integration.integration_id] = integration
        self._by_number[integration.number] = integration
        self._policies[integration.number] = self.defaults.policy(integration)
        self.on_change(integration)
        return integration


def _count(tried: Counter[int], version: int, integration: Integration) -> None:
    """Raise when a version that was read cannot be written over, however often that is tried."""
    tried[version] += 1
    if tried[version] > MOST_TRIES:
        raise StoreInconsistent(
            f"the database has another {integration.integration_id!r} than was read from it;"
            " if an earlier state was restored, restart redrive"
        )


def _kinds(changed: list[str]) -> list[EventType]:
    """A change of the lifecycle, or of what signs, is an event of its own; all others together are one."""
    own = {"lifecycle_status": EventType.LIFECYCLE_CHANGED, "signing_secrets": EventType.SECRETS_ROTATED}
    kinds = [kind for field, kind in own.items() if field in changed]
    return kinds + ([] if changed and set(changed) <= own.keys() else [EventType.UPDATED])


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as an Integration holds them."""
    values = {name: value for name, value in fields.items() if name not in OF_SECRETS}
    if "headers" in values:
        values["headers"] = tuple((values["headers"] or {}).items())
    if "lifecycle_status" in values:
        values["lifecycle_status"] = Lifecycle(values["lifecycle_status"])
    for rules in ("redact_pointers", "redact_headers"):
        if rules in values:
            values[rules] = tuple(values[rules] or ())
    if values.get("retryable_network_codes") is not None:
        values["retryable_network_codes"] = tuple(values["retryable_network_codes"])
    return values
