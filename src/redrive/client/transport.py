"""Keep-alive connections over http.client, and the one rule about sending again.

Nothing is sent twice unless the caller says `repeatable`, and then once more at most, on a new connection,
when the first was lost. A timeout is never followed by a second sending: the service may still be at work.
"""

import http.client
import select
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from redrive.client.answer import Reply
from redrive.client.errors import BadArgument, ServiceUnreachable

_PIECE = 64 * 1024  # bytes
_LOST = (ConnectionError, http.client.IncompleteRead)


class Transport:
    """Connections to one service. Threads may share it: each call has a connection to itself."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise BadArgument(f"not a URL: {url!r} ({error})") from None
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise BadArgument(f"not the URL of a service: {url!r}; write it like http://127.0.0.1:8080")
        if "@" in parts.netloc:
            raise BadArgument("credentials do not belong in the URL; give the token by itself")
        self._secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._where = f"{parts.scheme}://{parts.netloc}"
        self._timeout_seconds = timeout_seconds
        self._idle: deque[http.client.HTTPConnection] = deque()

    def exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        repeatable: bool,
    ) -> Reply:
        """Send one request and read its whole answer; ServiceUnreachable when there is none."""
        connection = self._idle_connection() or self._connect()
        try:
            return self._over(connection, method, path, headers, body)
        except _LOST as error:
            if not repeatable:
                raise self._unreachable(error, maybe_sent=True) from error
        try:
            return self._over(self._connect(), method, path, headers, body)
        except _LOST as error:
            raise self._unreachable(error, maybe_sent=True) from error
        except ServiceUnreachable as error:
            error.maybe_sent = True  # the first sending may have arrived
            raise

    def stream(
        self, path: str, headers: Mapping[str, str], refused: Callable[[Reply], Exception]
    ) -> Iterator[bytes]:
        """The answer to a GET in pieces, as they come; ServiceUnreachable when it breaks off.

        What is not a 200 is read whole, and raised as what *refused* makes of it.
        """
        connection = self._connect()
        try:
            connection.request("GET", self._prefix + path, headers=dict(headers))
            response = connection.getresponse()
            if response.status != 200:
                received = {name.lower(): value for name, value in response.getheaders()}
                raise refused(Reply(response.status, received, response.read()))
            while piece := response.read(_PIECE):
                yield piece
        except http.client.IncompleteRead as error:
            broken = ConnectionError(0, "the answer broke off in the middle")
            raise self._unreachable(broken, maybe_sent=False) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error, maybe_sent=False) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _idle_connection(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_closed_by_peer(connection):
                return connection
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = make(self._host or "", self._port, timeout=self._timeout_seconds)
        try:
            connection.connect()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error, maybe_sent=False) from error
        return connection

    def _over(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Reply:
        try:
            with suppress(BrokenPipeError):  # it hung up before it read all: it may have said why (413)
                connection.request(method, self._prefix + path, body=body, headers=dict(headers))
            response = connection.getresponse()
            content = response.read()
        except _LOST:
            connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error, maybe_sent=True) from error
        except BaseException:  # an interrupt in the middle leaves a connection nobody can go on with
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        received = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, received, content)

    def _unreachable(self, error: Exception, *, maybe_sent: bool) -> ServiceUnreachable:
        if isinstance(error, TimeoutError):
            reason = f"no answer from {self._where} within {self._timeout_seconds:g} s"
        elif isinstance(error, OSError) and error.strerror:
            reason = f"cannot reach {self._where}: {error.strerror}"
        else:
            reason = f"cannot reach {self._where}: {str(error) or type(error).__name__}"
        return ServiceUnreachable(reason, maybe_sent=maybe_sent)


def _is_closed_by_peer(connection: http.client.HTTPConnection) -> bool:
    """An idle connection with something to read was closed: nobody answers before being asked."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
