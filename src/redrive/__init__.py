"""Delivers a platform's calls to its partners, retries, dead-letters, replays, and proves it."""

__version__ = "0.1.0"
