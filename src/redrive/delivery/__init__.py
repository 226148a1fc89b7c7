"""Sending one request and saying what came of it. `port` is the promise; `http` keeps it."""
