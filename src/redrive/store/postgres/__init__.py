"""The store on PostgreSQL, which alone coordinates any number of processes."""

from redrive.store.postgres.checkup import check_up
from redrive.store.postgres.diagnosis import Plan, diagnose
from redrive.store.postgres.load import load
from redrive.store.postgres.migrate import prepare
from redrive.store.postgres.store import PostgresStore

__all__ = ["Plan", "PostgresStore", "check_up", "diagnose", "load", "prepare"]
