"""The integrations: kept in memory, read from the store, changed by people with a reason to."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from redrive.audit.record import AuditEvent, EventType
from redrive.clock import random_bytes
from redrive.delivery.signing import check_secret, new_secret
from redrive.domain.access import Call, Permission
from redrive.domain.errors import Conflict, Fault, IntegrationNotFound, InvalidPayload
from redrive.domain.integration import Defaults, Integration, Lifecycle, check_integration
from redrive.domain.retry import RetryPolicy
from redrive.engine.audited import changed_fields, integration_state, of_person
from redrive.engine.once import Key, Render, Told, idempotent, kept
from redrive.engine.tools import Tools
from redrive.store.port import StoreInconsistent
from redrive.telemetry.events import AuditWritten, Operated

MOST_TRIES = 5  # to write over one version that was read: who changed it meanwhile may not have told us yet


@dataclass(frozen=True, slots=True)
class Saved:
    """An integration as it is written; a signing secret that was made for it is shown now or never."""

    integration: Integration
    made_secret: str | None = None


class Catalogue:
    """Every integration as last read; the store repeats what matters in each write."""

    def __init__(
        self,
        tools: Tools,
        defaults: Defaults,
        *,
        allow_http: bool,
    ) -> None:
        self.store = tools.store
        self.clock = tools.clock
        self.next_id = tools.next_id
        self.announce = tools.announce
        self.defaults = defaults
        self.allow_http = allow_http
        self.on_change: Callable[[Integration], None] = lambda _: None
        self._by_id: dict[str, Integration] = {}
        self._by_number: dict[int, Integration] = {}
        self._policies: dict[int, RetryPolicy] = {}

    async def refresh(self) -> None:
        """Take over what is in the store, and what other processes changed since."""
        for integration in await self.store.changed_integrations():
            self._keep(integration)

    def find(self, integration_id: str) -> Integration:
        """The integration, or IntegrationNotFound."""
        found = self._by_id.get(integration_id)
        if found is None:
            raise IntegrationNotFound(f"there is no integration {integration_id!r}")
        return found

    async def known(self, integration_id: str) -> Integration:
        """As `find`, but one that another process may just have added is looked for in the store."""
        return self._by_id.get(integration_id) or await self.current(integration_id)

    async def current(self, integration_id: str) -> Integration:
        """As `find`, as it is in the store now: for what a person is shown, or judges by."""
        await self.refresh()
        return self.find(integration_id)

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
        return await self.current(integration_id)

    async def list(self, call: Call) -> list[Integration]:
        """Every integration, by integration_id, for whoever may view."""
        call.require(Permission.VIEW)
        await self.refresh()
        return sorted(self, key=lambda integration: integration.integration_id)

    async def create(
        self, call: Call, fields: dict[str, Any], *, render: Render[Saved], key: Key | None = None
    ) -> Told:
        """Add one."""
        call.require(Permission.OPERATE)
        return await idempotent(self.store, key, lambda: self._create(call, fields, render=render, key=key))

    async def update(
        self, call: Call, integration_id: str, changes: dict[str, Any], *, render: Render[Saved]
    ) -> Told:
        """Change some fields; None puts a policy field back to the default."""
        call.require(Permission.OPERATE)
        if not changes:
            raise InvalidPayload(Fault("", "name at least one field to change"))
        check_integration(changes, allow_http=self.allow_http)
        if changes.get("secret") is not None:
            check_secret(changes["secret"])
        tried = Counter[int]()
        while True:  # until nobody changed it between our reading and our writing
            old = await self.current(integration_id)
            tried[old.version] += 1
            if tried[old.version] > MOST_TRIES:
                raise StoreInconsistent(
                    f"the database has another {integration_id!r} than was read from it;"
                    " if an earlier state was restored, restart redrive"
                )
            saved = self._changed(old, changes)
            new = saved.integration
            changed = changed_fields(old, new)
            events = [
                self._event(call, kind, new, before=integration_state(old), metadata={"changed": changed})
                for kind in _kinds(changed)
            ]
            told = render(saved)
            if await self.store.update_integration(new, events):
                self._keep(new)
                for event in events:
                    self._announce(event.event_type, call, integration_id)
                return told

    async def _create(
        self, call: Call, fields: dict[str, Any], *, render: Render[Saved], key: Key | None
    ) -> Told:
        check_integration(fields, allow_http=self.allow_http)
        fields = {"name": fields["integration_id"]} | fields
        now = self.clock.now()
        new = Integration(number=0, created_at=now, updated_at=now, **_values(fields))
        self._check_policy(new)
        saved = _with_secret(new, fields.get("secret"))
        integration = saved.integration
        event = self._event(call, EventType.CREATED, integration)
        told = render(saved)
        number = await self.store.create_integration(integration, event, kept(key, told, now))
        if number is None:
            raise Conflict(f"there is an integration {integration.integration_id!r} already")
        self._keep(replace(integration, number=number))
        self._announce(EventType.CREATED, call, integration.integration_id)
        return told

    def _changed(self, old: Integration, changes: dict[str, Any]) -> Saved:
        new = replace(old, updated_at=self.clock.now(), version=old.version + 1, **_values(changes))
        self._check_policy(new)
        return _with_secret(new, changes.get("secret"))

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

    def _keep(self, integration: Integration) -> None:
        """Unless it is older than what is held: what was read may have been changed since."""
        held = self._by_number.get(integration.number)
        if held is not None and held.version > integration.version:
            return
        self._by_id[integration.integration_id] = integration
        self._by_number[integration.number] = integration
        self._policies[integration.number] = self.defaults.policy(integration)
        self.on_change(integration)


def _kinds(changed: list[str]) -> list[EventType]:
    """A change of the lifecycle is an event of its own; all other changes together are one."""
    lifecycle = [EventType.LIFECYCLE_CHANGED] if "lifecycle_status" in changed else []
    return lifecycle + ([EventType.UPDATED] if changed != ["lifecycle_status"] else [])


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as an Integration holds them."""
    values = {name: value for name, value in fields.items() if name != "secret"}
    if "headers" in values:
        values["headers"] = tuple((values["headers"] or {}).items())
    if "lifecycle_status" in values:
        values["lifecycle_status"] = Lifecycle(values["lifecycle_status"])
    if values.get("retryable_network_codes") is not None:
        values["retryable_network_codes"] = tuple(values["retryable_network_codes"])
    return values


def _with_secret(new: Integration, given: str | None) -> Saved:
    """With the signing secret that was given; else with one that is made, if it needs one and has none."""
    if given is not None:
        if new.auth_mode != "hmac":
            raise InvalidPayload(
                Fault("/secret", f"auth_mode {new.auth_mode} does not sign; leave the secret out")
            )
        check_secret(given)
        return Saved(replace(new, secrets=(given,)))
    if new.auth_mode == "hmac" and not new.secrets:
        made = new_secret(random_bytes)
        return Saved(replace(new, secrets=(made,)), made)
    return Saved(new)
