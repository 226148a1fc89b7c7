"""The store on PostgreSQL, which alone coordinates any number of processes."""

from redrive.store.postgres.store import PostgresStore, prepare

__all__ = ["PostgresStore", "prepare"]
