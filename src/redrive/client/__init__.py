"""The client library: `from redrive.client import Client`. It needs the standard library alone."""

from redrive.client.answer import Answer
from redrive.client.client import Client
from redrive.client.errors import BadArgument, ProblemError, ServiceUnreachable

__all__ = ["Answer", "BadArgument", "Client", "ProblemError", "ServiceUnreachable"]
