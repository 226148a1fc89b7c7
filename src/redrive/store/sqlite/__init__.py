"""The store on one SQLite file: one writer thread with group commit, readers apart."""

from redrive.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
