"""The secrets: sealed under keys of the database's own, which are kept sealed under the keys of the key file.

So a new key in the file means that one short text is sealed anew, and no process that runs needs to know. A
new key of the database's own seals what is sealed from then on, and those before it go on opening.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from redrive.delivery.compose import Proof
from redrive.delivery.credentials import Credentials, pack, unpack
from redrive.delivery.sealing import KEY_BYTES, PREFIX, Key, KeyRing, Unsealable, is_sealed, key_of, new_key
from redrive.domain.integration import SHOWS_CREDENTIALS, Integration
from redrive.domain.target import origin_of
from redrive.store.port import Store, StoreUnavailable

DATA_KEY = "data_key"  # its name in the store, and what it is bound to


class _Opened(Struct):
    """A proof, of which integration as it was then, and until when."""

    integration: Integration
    proof: Proof
    ends_at: datetime | None


class Vault:
    """Seals and opens, once it is unlocked. *keys* are those of the file *where*; the first of them seals."""

    def __init__(self, keys: Sequence[Key], where: str) -> None:
        self._outer = KeyRing(keys, f"the keys in {where}")
        self._inner: KeyRing | None = None
        self._opened: dict[int, _Opened] = {}

    async def unlock(self, store: Store) -> None:
        """Take the database's own keys, the first made now; StoreUnavailable when ours do not open them."""
        kept = await store.keep(DATA_KEY, _sealed_keys(self._outer, [new_key()]))
        self._inner = KeyRing(open_data_keys(self._outer, kept), "the keys of this database")

    @property
    def key_id(self) -> str:
        """Of the database's own key that seals."""
        return self._ring.keys[0].id

    def derive(self, name: str, key_id: str | None = None) -> bytes:
        """32 bytes for the purpose *name*, which every process of this database has and nobody else.

        Of the key *key_id*, Unsealable when there is none such; else of the oldest, so that they stay.
        """
        return self._ring.derive(name, key_id or self._ring.keys[-1].id)

    def is_current(self, integration: Integration) -> bool:
        """Whether all its secrets are sealed, and under the key that seals now."""
        sealed = [secret.sealed for secret in integration.secrets]
        if integration.credentials is not None:
            sealed.append(integration.credentials)
        return all(each.startswith(f"{PREFIX}{self.key_id}:") for each in sealed)

    def resealed(self, integration: Integration) -> Integration:
        """Its secrets under the key that seals now, also those from before there was one; Unsealable."""
        name = integration.integration_id
        secrets = tuple(
            replace(each, sealed=self._resealed(each.sealed, _secret_of(name)))
            for each in integration.secrets
        )
        credentials = integration.credentials
        if credentials is not None:
            bound_to = _credentials_of(name, integration.url)  # there never were any that are not sealed
            credentials = self._ring.seal(self._ring.unseal(credentials, bound_to), bound_to)
        return replace(integration, secrets=secrets, credentials=credentials)

    def _resealed(self, text: str, bound_to: str) -> str:
        plain = self._ring.unseal(text, bound_to) if is_sealed(text) else text.encode()
        return self._ring.seal(plain, bound_to)

    def seal_secret(self, integration_id: str, secret: str) -> str:
        """A signing secret, bound to its integration."""
        return self._ring.seal(secret.encode(), _secret_of(integration_id))

    def seal_credentials(self, integration_id: str, url: str, credentials: Credentials) -> str:
        """Credentials, bound to their integration and to the origin they are for: no other is shown them."""
        return self._ring.seal(pack(credentials), _credentials_of(integration_id, url))

    def seal_answer(self, scope: bytes, body: bytes) -> bytes:
        """An answer that holds a secret, as it is kept under its idempotency scope."""
        return self._ring.seal(body, f"answer:{scope.hex()}").encode()

    def open_answer(self, scope: bytes, body: bytes) -> bytes:
        """What was answered, sealed or not; Unsealable."""
        text = body[:10].decode("utf-8", "replace")
        return self._ring.unseal(body.decode(), f"answer:{scope.hex()}") if is_sealed(text) else body

    def proof(self, integration: Integration, now: datetime) -> Proof:
        """What shows the receiver of *integration* that it is us; Unsealable."""
        opened = self._opened.get(integration.number)
        is_fresh = opened is not None and opened.integration is integration
        if opened is None or not is_fresh or (opened.ends_at is not None and now >= opened.ends_at):
            opened = self._opened[integration.number] = self._open(integration, now)
        return opened.proof

    def signs_with(self, integration: Integration, secret: str, now: datetime) -> bool:
        """Whether *secret* is the one that signs, and no other does."""
        try:
            return self.proof(integration, now).secrets == (secret,)
        except Unsealable:
            return False

    def _open(self, integration: Integration, now: datetime) -> _Opened:
        mode, name = integration.auth_mode, integration.integration_id
        active = [secret for secret in integration.secrets if secret.is_active(now)] if mode != "none" else []
        secrets = [self._ring.unseal(secret.sealed, _secret_of(name)).decode() for secret in active]
        credentials = None
        if mode in SHOWS_CREDENTIALS and integration.credentials is not None:
            bound_to = _credentials_of(name, integration.url)
            try:
                credentials = unpack(mode, self._ring.unseal(integration.credentials, bound_to))
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise Unsealable(f"they are no credentials of auth_mode {mode}; give them anew") from error
        ends = [secret.ends_at for secret in active if secret.ends_at is not None]
        return _Opened(integration, Proof(tuple(secrets), credentials), min(ends, default=None))

    @property
    def _ring(self) -> KeyRing:
        assert self._inner is not None, "the vault was not unlocked"  # noqa: S101 - the engine starts with it
        return self._inner


async def change_key(store: Store, keys: Sequence[Key], where: str, *, renews: bool = False) -> bool:
    """Seal the database's own keys under the first of *keys*; False when they are, or when there is none yet.

    With *renews* they get a new one in front, in any case. StoreUnavailable when none of *keys* opens them.
    """
    ring = KeyRing(keys, f"the keys in {where}")
    kept = await store.kept(DATA_KEY)
    if kept is None or (key_in_use(kept) == keys[0].id and not renews):
        return False
    own = open_data_keys(ring, kept)
    return await store.exchange(DATA_KEY, kept, _sealed_keys(ring, [new_key(), *own] if renews else own))


def open_data_keys(ring: KeyRing, kept: bytes) -> list[Key]:
    """The database's own keys, the one that seals first; StoreUnavailable when *ring* does not open them."""
    try:
        values = ring.unseal(kept.decode("ascii", "replace"), DATA_KEY)
    except Unsealable as error:
        raise StoreUnavailable(
            f"the secrets of this database cannot be opened: {error}",
            fatal=True,
            advice="put its key file in place, from where it is kept, or name it with REDRIVE_KEY_FILE",
        ) from error
    if not values or len(values) % KEY_BYTES:
        raise StoreUnavailable("what is kept as the keys of this database are none", fatal=True)
    return [Key(values[at : at + KEY_BYTES]) for at in range(0, len(values), KEY_BYTES)]


def key_in_use(kept: bytes) -> str:
    """The id of the key of the file that the database's own is sealed under."""
    try:
        return key_of(kept.decode("ascii", "replace"))
    except Unsealable as error:
        raise StoreUnavailable(f"the key of this database is damaged: {error}", fatal=True) from error


def _sealed_keys(ring: KeyRing, own: Sequence[Key]) -> bytes:
    return ring.seal(b"".join(key.value for key in own), DATA_KEY).encode()


def _secret_of(integration_id: str) -> str:
    return f"signing_secret:{integration_id}"


def _credentials_of(integration_id: str, url: str) -> str:
    return f"credentials:{integration_id}:{origin_of(url)}"
