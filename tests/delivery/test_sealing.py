"""What is sealed opens under its key, as what it is bound to, unchanged; and nothing else opens."""

import os
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from redrive.delivery.keyfile import is_open_to_others, read_keys, read_or_make, write_keys
from redrive.delivery.sealing import BadKeys, Key, KeyRing, Unsealable, format_keys, new_key, parse_keys

OLD, NEW = Key(b"o" * 32), Key(b"n" * 32)
RING = KeyRing([NEW, OLD], "the keys of a test")


@given(plain=st.binary(max_size=300), bound_to=st.text(max_size=40))
def test_what_was_sealed_opens(plain: bytes, bound_to: str) -> None:
    assert RING.unseal(RING.seal(plain, bound_to), bound_to) == plain


def test_the_format_is_aes_256_gcm_as_it_is_described() -> None:
    prefix, version, key_id, box = RING.seal(b"plain", "acme").split(":")
    raw = urlsafe_b64decode(box)

    assert (prefix, version, key_id) == ("sealed", "v1", NEW.id)
    assert AESGCM(NEW.value).decrypt(raw[:12], raw[12:], f"redrive:v1:{NEW.id}:acme".encode()) == b"plain"


def test_the_same_sealed_twice_looks_different() -> None:
    assert RING.seal(b"plain", "acme") != RING.seal(b"plain", "acme")


def test_every_key_of_the_ring_opens_and_the_first_seals() -> None:
    before = KeyRing([OLD], "older keys").seal(b"plain", "acme")

    assert RING.unseal(before, "acme") == b"plain"
    assert OLD.id in before
    assert NEW.id in RING.seal(b"plain", "acme")


def test_it_opens_as_what_it_is_bound_to_and_nothing_else() -> None:
    sealed = RING.seal(b"plain", "credentials:acme:https://a.example:443")

    with pytest.raises(Unsealable, match="belongs elsewhere"):
        RING.unseal(sealed, "credentials:acme:https://b.example:443")


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(Unsealable, match=f"{NEW.id}, which is not among older keys"):
        KeyRing([OLD], "older keys").unseal(RING.seal(b"plain", "acme"), "acme")


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_single_bit_that_changed_is_noticed(at: int, bit: int) -> None:
    head, _, box = RING.seal(b"plain", "acme").rpartition(":")
    raw = bytearray(urlsafe_b64decode(box))
    raw[at % len(raw)] ^= 1 << bit

    with pytest.raises(Unsealable):
        RING.unseal(f"{head}:{urlsafe_b64encode(raw).decode()}", "acme")


@pytest.mark.parametrize(
    "text",
    ["", "whsec_plain", "sealed:v1:", "sealed:v2:0123456789abcdef:" + "A" * 40, "sealed:v1:x:AAAA", "sealed"],
)
def test_what_is_not_sealed_does_not_open(text: str) -> None:
    with pytest.raises(Unsealable, match="not sealed"):
        RING.unseal(text, "acme")


@given(st.text(max_size=120))
def test_whatever_stands_there_is_opened_or_refused(text: str) -> None:
    with pytest.raises(Unsealable):
        RING.unseal(text, "acme")
    with pytest.raises(Unsealable):
        RING.unseal(f"sealed:v1:{NEW.id}:{text}", "acme")


def test_a_derived_key_is_of_its_purpose() -> None:
    made = {RING.derive(name, key.id) for name in ("cursor", "other") for key in (OLD, NEW)}

    assert len(made) == 4
    assert {len(each) for each in made} == {32}
    assert RING.derive("cursor", OLD.id) in made
    with pytest.raises(Unsealable, match="not among the keys of a test"):
        RING.derive("cursor", "0" * 16)


def test_a_key_does_not_print_itself() -> None:
    assert repr(NEW) == "Key()"


# the file


def test_keys_are_read_as_they_were_written() -> None:
    keys = [new_key(), new_key()]

    assert parse_keys(f"# for people\n\n{format_keys(keys)}\n") == keys


ONE = format_keys([NEW])
DAMAGED = ONE[:20] + ("B" if ONE[20] != "B" else "C") + ONE[21:]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no key in it"),
        ("# nothing\n", "there is no key in it"),
        ("hello\n", "line 1 is not a key"),
        (ONE + ONE, f"line 2: the key {NEW.id} stands twice"),
        (DAMAGED, f"line 1: the key {NEW.id} is damaged"),
        (ONE.replace(NEW.id, OLD.id), f"line 1: the key {OLD.id} is damaged"),
        (ONE[:-2] + "\n", "line 1 is not a key"),
        (NEW.id + " " + "A" * 44, f"line 1: the key {NEW.id} is damaged"),
    ],
)
def test_what_is_wrong_with_a_key_file_is_said(text: str, why: str) -> None:
    with pytest.raises(BadKeys, match=why) as caught:
        parse_keys(text)
    assert ONE.split()[1] not in str(caught.value)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "redrive.keys"

    made = read_or_make(path)

    assert len(made) == 1
    assert read_or_make(path) == made == read_keys(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["redrive.keys"]


def test_of_many_who_make_it_at_once_one_does(tmp_path: Path) -> None:
    path = tmp_path / "redrive.keys"

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: read_or_make(path), range(16)))

    assert all(keys == made[0] for keys in made)


def test_a_key_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "redrive.keys"
    write_keys(path, [OLD])

    write_keys(path, [NEW, OLD])

    assert read_keys(path) == [NEW, OLD]
    assert not is_open_to_others(path)


def test_what_was_cut_short_is_cleared_away_and_a_persons_own_copies_are_not(tmp_path: Path) -> None:
    path = tmp_path / "redrive.keys"
    write_keys(path, [OLD])
    for name in (".redrive.keys.a1b2.unfinished", ".redrive.keys.bak", ".redrive.keys.swp"):
        (tmp_path / name).write_text("")

    write_keys(path, [NEW, OLD])

    left = {each.name for each in tmp_path.iterdir()}
    assert left == {"redrive.keys", ".redrive.keys.bak", ".redrive.keys.swp"}


def test_where_there_is_none_nothing_is_read(tmp_path: Path) -> None:
    assert read_keys(tmp_path / "redrive.keys") is None


@pytest.mark.parametrize("what", ["directory", "fifo", "not text", "too much"])
def test_a_file_that_holds_no_keys_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "redrive.keys"
    match what:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            path.write_bytes(b"#" * 100_000 if what == "too much" else os.urandom(64) + b"\xff")

    with pytest.raises(BadKeys, match=f"the key file {path}"):
        read_keys(path)


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BadKeys, match=r"cannot be (made|read)"):
        read_or_make(tmp_path / "file" / "redrive.keys")
