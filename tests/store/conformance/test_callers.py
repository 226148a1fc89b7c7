"""Tokens, and secrets of the database's own."""

import asyncio
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from redrive.domain.access import Permission
from redrive.store.port import StoreInconsistent
from redrive.store.tokens import Token
from tests.factories import NOW
from tests.store.under_test import StoreUnderTest


def a_token(token_id: str = "tok_1", **fields: Any) -> Token:
    values: dict[str, Any] = {
        "subject": "shop",
        "permissions": frozenset({Permission.VIEW, Permission.DELIVER}),
        "created_at": NOW,
        "expires_at": None,
        "revoked_at": None,
    }
    return Token(token_id, **values | fields)


def digest_of(text: str) -> bytes:
    return sha256(text.encode()).digest()


@pytest.mark.parametrize("permissions", [frozenset(), frozenset(Permission)], ids=["none", "all"])
async def test_a_token_is_found_by_its_digest_as_it_was_kept(
    store: StoreUnderTest, permissions: frozenset[Permission]
) -> None:
    token = a_token(permissions=permissions, expires_at=NOW + timedelta(days=1))

    await store.tokens.add(token, digest_of("one"))

    assert await store.tokens.find(digest_of("one")) == token
    assert await store.tokens.find(digest_of("two")) is None


async def test_tokens_are_listed_newest_first(store: StoreUnderTest) -> None:
    tokens = [a_token(f"tok_{n}", created_at=NOW + timedelta(seconds=n)) for n in range(3)]
    for token in tokens:
        await store.tokens.add(token, digest_of(token.token_id))

    assert list(await store.tokens.all()) == tokens[::-1]


async def test_a_revoked_token_says_since_when_and_stays(store: StoreUnderTest) -> None:
    await store.tokens.add(a_token(), digest_of("one"))

    first = await store.tokens.revoke("tok_1", NOW)
    second = await store.tokens.revoke("tok_1", NOW + timedelta(days=1))

    assert (first, second) == (True, True)
    assert await store.tokens.find(digest_of("one")) == a_token(revoked_at=NOW)


async def test_revoking_what_is_not_there_is_told(store: StoreUnderTest) -> None:
    await store.tokens.add(a_token(), digest_of("one"))

    assert not await store.tokens.revoke("tok_2", NOW)
    assert await store.tokens.find(digest_of("one")) == a_token()


@pytest.mark.parametrize(("token_id", "digest"), [("tok_1", "two"), ("tok_2", "one")])
async def test_neither_a_token_id_nor_a_digest_is_taken_twice(
    store: StoreUnderTest, token_id: str, digest: str
) -> None:
    await store.tokens.add(a_token(), digest_of("one"))

    with pytest.raises(StoreInconsistent):
        await store.tokens.add(a_token(token_id, subject="thief"), digest_of(digest))

    assert list(await store.tokens.all()) == [a_token()]


async def test_what_is_kept_first_under_a_name_stays(store: StoreUnderTest) -> None:
    assert await store.kept("a") is None

    kept = [await store.keep(name, value) for name, value in (("a", b"1"), ("a", b"2"), ("b", b"3"))]

    assert kept == [b"1", b"1", b"3"]
    assert [await store.kept(name) for name in ("a", "b")] == [b"1", b"3"]


async def test_of_many_who_keep_something_at_once_one_does(store: StoreUnderTest) -> None:
    values = [bytes([number]) for number in range(20)]

    kept = await asyncio.gather(*(store.keep("a", value) for value in values))

    assert len(set(kept)) == 1
    assert await store.kept("a") == kept[0]


async def test_what_is_kept_is_exchanged_by_who_knows_it(store: StoreUnderTest) -> None:
    await store.keep("a", b"1")

    exchanged = [await store.exchange("a", old, new) for old, new in ((b"1", b"2"), (b"1", b"3"))]

    assert exchanged == [True, False]
    assert await store.kept("a") == b"2"
    assert not await store.exchange("b", b"1", b"2")
    assert await store.kept("b") is None


async def test_a_store_says_what_it_is(store: StoreUnderTest) -> None:
    assert {"kind", "path", "version", "made_schema"} <= set(store.describe())
