"""The store on one SQLite file: one writer thread with group commit, readers apart."""

from redrive.store.sqlite.backup import back_up, restore
from redrive.store.sqlite.export import exported
from redrive.store.sqlite.file import must_have_a_place, owner_of
from redrive.store.sqlite.schema import migrate
from redrive.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "back_up", "exported", "migrate", "must_have_a_place", "owner_of", "restore"]
