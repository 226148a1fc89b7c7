"""The key file beside a database: made for a new one, looked at, given a new key."""

from collections.abc import Sequence
from pathlib import Path

from redrive.delivery.keyfile import held, is_open_to_others, read_keys, read_or_make, write_keys
from redrive.delivery.sealing import BadKeys, Key, KeyRing, new_key
from redrive.engine.vault import DATA_KEY, change_key, key_in_use, open_data_keys
from redrive.store.port import Store, StoreUnavailable

_PUT_BACK = "put it back from where it is kept, or name it with REDRIVE_KEY_FILE"
_LOOK = "put it back from where it is kept; `redrive key new` prints what such a file holds"


async def of_file(path: Path, store: Store, *, may_make: bool = True) -> Sequence[Key]:
    """The keys of the file, which is made for a database that has none yet, if it *may*; else none.

    StoreUnavailable when it cannot be used, or is not there although the database needs it.
    """
    try:
        found = read_keys(path)
        if found is None and await store.kept(DATA_KEY) is not None:
            raise StoreUnavailable(
                f"there is no key file at {path}; this database's secrets open with it alone",
                fatal=True,
                advice=_PUT_BACK,
            )
        if found is None:
            return read_or_make(path) if may_make else []
    except BadKeys as error:
        raise StoreUnavailable(str(error), fatal=True, advice=_LOOK) from error
    return found


async def in_use(store: Store) -> str | None:
    """The id of the key of the file that the database is sealed under; None when nothing was sealed yet."""
    kept = await store.kept(DATA_KEY)
    return None if kept is None else key_in_use(kept)


async def rotate(path: Path, store: Store, *, renews: bool) -> str | None:
    """Seal the database under a new key, the first of the file from now on; its id.

    None: nothing is sealed in it yet. The file comes first, so that whatever cuts this short, its keys open
    the database. A first key that is not in use yet is taken instead of a new one. Of several that try at
    once each waits for the one before. *renews*: the database's own key, too.
    """
    with held(path):
        known = await of_file(path, store, may_make=False)
        before = await in_use(store)
        if before is None:
            return None
        if before == known[0].id:
            known = [new_key(), *known]
            write_keys(path, known)
        if not await change_key(store, known, str(path), renews=renews):
            raise StoreUnavailable("the database was sealed anew by somebody else meanwhile; run it again")
        return known[0].id


async def check(path: Path, store: Store) -> tuple[bool, str]:
    """Whether the file is as it should be, and how it is; StoreUnavailable when it opens no secret."""
    kept = await store.kept(DATA_KEY)
    found = await of_file(path, store, may_make=False)
    if not found:
        return True, f"there is none yet; `redrive serve` makes {path}"
    if kept is not None:
        open_data_keys(KeyRing(found, f"the keys in {path}"), kept)
    if is_open_to_others(path):
        return False, f"others on this machine can read {path}, or write to it; chmod 600 keeps them out"
    return True, f"{path} opens the secrets; keep a copy of it, but not beside the database's backups"
