"""The vault over both stores: what opens it, what it gives, and how its key is changed."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from msgspec.structs import replace

from redrive.delivery.credentials import Bearer
from redrive.delivery.sealing import Key, Unsealable
from redrive.domain.integration import Integration, SigningSecret
from redrive.engine.vault import DATA_KEY, Vault, change_key, key_in_use
from redrive.store.port import Store, StoreUnavailable
from tests.factories import NOW, an_integration
from tests.vault import A_KEY, a_vault, an_open_vault, sealed

ANOTHER = Key(b"a" * 32)
SECRET, OLDER = "whsec_" + "a2tr" * 8, "whsec_" + "b2tr" * 8


@pytest.fixture
async def database(store: Store) -> AsyncIterator[Store]:
    yield store
    await store.close()


async def test_every_process_of_a_database_opens_what_another_sealed(database: Store) -> None:
    one, other = a_vault(), a_vault()
    await one.unlock(database)
    await other.unlock(database)
    secret = sealed(one, "acme", SECRET)

    proof = other.proof(an_integration(auth_mode="hmac", secrets=(secret,)), NOW)

    assert proof.secrets == (SECRET,)
    assert one.derive("cursor") == other.derive("cursor")


async def test_with_the_key_of_another_database_it_stays_shut(database: Store) -> None:
    await a_vault().unlock(database)

    with pytest.raises(StoreUnavailable, match=f"sealed under the key {A_KEY.id}") as caught:
        await Vault([ANOTHER], "other.keys").unlock(database)

    assert caught.value.fatal
    assert "other.keys" in caught.value.reason
    assert "REDRIVE_KEY_FILE" in caught.value.advice


async def test_the_databases_own_key_is_stored_sealed(database: Store) -> None:
    vault = a_vault()
    await vault.unlock(database)

    kept = await database.kept(DATA_KEY)

    assert kept is not None
    assert key_in_use(kept) == A_KEY.id
    assert vault._ring.keys[0].value not in kept


@pytest.mark.parametrize("damage", [b"", b"sealed:v1:", b"\xff" * 40])
async def test_a_damaged_key_of_the_database_is_told(database: Store, damage: bytes) -> None:
    await database.keep(DATA_KEY, damage)

    with pytest.raises(StoreUnavailable):
        await a_vault().unlock(database)


async def test_a_new_key_of_the_file_seals_one_short_text_and_opens_all(database: Store) -> None:
    before = a_vault()
    await before.unlock(database)
    secret = sealed(before, "acme", SECRET)

    assert await change_key(database, [ANOTHER, A_KEY], "a key file")
    assert not await change_key(database, [ANOTHER, A_KEY], "a key file")

    after = Vault([ANOTHER], "a key file")
    await after.unlock(database)
    assert after.proof(an_integration(auth_mode="hmac", secrets=(secret,)), NOW).secrets == (SECRET,)
    with pytest.raises(StoreUnavailable):
        await a_vault().unlock(database)


async def test_a_new_key_of_the_databases_own_seals_from_then_on(database: Store) -> None:
    before = a_vault()
    await before.unlock(database)
    old = an_integration(number=1, auth_mode="hmac", secrets=(sealed(before, "acme", SECRET),))
    sealed_before = before.seal_answer(b"scope", b"told")

    assert await change_key(database, [A_KEY], "a key file", renews=True)

    after = a_vault()
    await after.unlock(database)
    new = after.resealed(old)
    assert (after.is_current(old), after.is_current(new)) == (False, True)
    assert after.proof(old, NOW).secrets == after.proof(new, NOW).secrets == (SECRET,)
    assert after.open_answer(b"scope", sealed_before) == b"told"
    assert after.key_id != before.key_id
    assert after.derive("fingerprint") == before.derive("fingerprint"), "keys that were used are still known"
    with pytest.raises(Unsealable):
        before.proof(new, NOW)


def test_secrets_of_before_there_was_a_vault_are_sealed_as_they_were() -> None:
    vault = an_open_vault()
    plain = an_integration(number=1, auth_mode="hmac", secrets=(SigningSecret(SECRET),))

    assert not vault.is_current(plain)
    assert vault.proof(vault.resealed(plain), NOW).secrets == (SECRET,)


@pytest.mark.parametrize("stored", ["sealed:v1:nonsense", "sealed:v1:0000000000000000:" + "A" * 44])
def test_what_cannot_be_opened_cannot_be_sealed_anew(stored: str) -> None:
    vault = an_open_vault()
    damaged = an_integration(auth_mode="hmac", secrets=(SigningSecret(stored),))

    assert not vault.is_current(damaged)
    with pytest.raises(Unsealable):
        vault.resealed(damaged)


async def test_a_key_is_not_changed_by_who_cannot_open_it(database: Store) -> None:
    await a_vault().unlock(database)

    with pytest.raises(StoreUnavailable):
        await change_key(database, [ANOTHER], "a key file")

    await a_vault().unlock(database)


async def test_where_nothing_was_sealed_there_is_no_key_to_change(database: Store) -> None:
    assert not await change_key(database, [ANOTHER], "a key file")


def an_old_and_a_new(vault: Vault) -> Integration:
    old = replace(sealed(vault, "acme", OLDER), ends_at=NOW + timedelta(hours=1))
    return an_integration(number=1, auth_mode="hmac", secrets=(sealed(vault, "acme", SECRET), old))


def test_a_secret_signs_until_it_ends() -> None:
    vault = an_open_vault()
    integration = an_old_and_a_new(vault)

    just_before = NOW + timedelta(hours=1) - timedelta(milliseconds=1)
    assert vault.proof(integration, just_before).secrets == (SECRET, OLDER)
    assert vault.proof(integration, NOW + timedelta(hours=1)).secrets == (SECRET,)


def test_what_changed_is_opened_anew() -> None:
    vault = an_open_vault()
    integration = an_old_and_a_new(vault)
    assert len(vault.proof(integration, NOW).secrets) == 2

    changed = replace(integration, secrets=integration.secrets[:1])

    assert vault.proof(changed, NOW).secrets == (SECRET,)


def test_switched_off_nothing_signs() -> None:
    vault = an_open_vault()

    assert vault.proof(replace(an_old_and_a_new(vault), auth_mode="none"), NOW).secrets == ()


def with_credentials(vault: Vault, **fields: str) -> Integration:
    url = "https://acme.example/hooks"
    credentials = vault.seal_credentials("acme", url, Bearer("s3cr3t"))
    return an_integration(**{"auth_mode": "bearer", "credentials": credentials, "url": url} | fields)


@pytest.mark.parametrize("url", ["https://acme.example/hooks", "https://ACME.example:443/elsewhere?x=1"])
def test_credentials_are_opened_for_their_origin(url: str) -> None:
    vault = an_open_vault()

    assert vault.proof(with_credentials(vault, url=url), NOW).credentials == Bearer("s3cr3t")


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "https://thief.example/hooks"},
        {"url": "https://acme.example:8443/hooks"},
        {"url": "http://acme.example:443/hooks"},
        {"integration_id": "another"},
    ],
)
def test_credentials_that_were_moved_in_the_database_stay_shut(fields: dict[str, str]) -> None:
    """Whoever can write to the database can change a url, or copy a row; that gives them nothing."""
    vault = an_open_vault()
    integration = replace(with_credentials(vault), **fields)

    with pytest.raises(Unsealable):
        vault.proof(integration, NOW)


def test_credentials_of_another_mode_are_none() -> None:
    vault = an_open_vault()

    with pytest.raises(Unsealable, match="no credentials of auth_mode basic"):
        vault.proof(replace(with_credentials(vault), auth_mode="basic"), NOW)


def test_credentials_that_were_planted_unsealed_are_not_sealed() -> None:
    vault = an_open_vault()

    with pytest.raises(Unsealable):
        vault.resealed(replace(with_credentials(vault), credentials='{"token":"planted"}'))


@pytest.mark.parametrize("stored", [SECRET, "sealed:v1:nonsense", ""])
def test_a_secret_that_is_not_sealed_is_not_used(stored: str) -> None:
    vault = an_open_vault()

    with pytest.raises(Unsealable):
        vault.proof(an_integration(auth_mode="hmac", secrets=(SigningSecret(stored),)), NOW)


def test_an_answer_is_bound_to_the_call_it_was_given_to() -> None:
    vault = an_open_vault()
    kept = vault.seal_answer(b"scope", b'{"secret":"whsec_"}')

    assert vault.open_answer(b"scope", kept) == b'{"secret":"whsec_"}'
    assert vault.open_answer(b"scope", b'{"a":1}') == b'{"a":1}'
    with pytest.raises(Unsealable):
        vault.open_answer(b"another", kept)
