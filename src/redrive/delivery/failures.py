"""From what a connection and the system raise to the code, the sentence and the reach of a failure."""

import errno
import socket
import ssl
from typing import Final

from redrive.delivery.exchange import ProtocolError
from redrive.delivery.names import OURS, Refused
from redrive.delivery.port import OwnFault
from redrive.delivery.tunnel import NoTunnel
from redrive.domain.outcome import Failed, Reach
from redrive.domain.proxy import Proxy
from redrive.domain.target import Target

_NEAREST: Final = {
    errno.ENETDOWN: "ENETUNREACH",
    errno.EAFNOSUPPORT: "ENETUNREACH",  # an IPv6 address, and no IPv6 here
    errno.ENOTCONN: "EPIPE",
    errno.ESHUTDOWN: "EPIPE",
}
_SENTENCES: Final = {
    "ECONNRESET": "{where} closed the connection before it answered",
    "ECONNREFUSED": "{where} refused the connection",
    "ECONNABORTED": "the connection to {where} was aborted",
    "EPIPE": "{where} closed the connection while it was being sent to",
    "EHOSTUNREACH": "{where} cannot be reached",
    "ENETUNREACH": "there is no route to {where}",
    "ETIMEDOUT": "the connection to {where} timed out",
}
_NOT_FOUND: Final = frozenset(
    getattr(socket, name, None)  # not every system has all of them
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_SERVICE")
)


def failure(
    error: Exception, target: Target, *, sent: bool, timeout_seconds: float, via: Proxy | None = None
) -> Failed:
    """What *error* means, before a complete header came. Raises OwnFault when it is our own."""
    where = f"{target.host}:{target.port}" + ("" if via is None else f" (through the proxy {via})")
    reach = Reach.SENT if sent else Reach.NOT_SENT
    match error:
        case Refused(why=why):
            return blocked(why)
        case NoTunnel(why=why):
            return Failed("ECONNREFUSED", why, Reach.NOT_SENT)
        case socket.gaierror():
            return _unresolved(error, target.host)
        case ssl.SSLError():
            return Failed("TLS_ERROR", f"TLS with {where} failed: {_reason(error)}", reach)
        case ProtocolError():
            what = str(error).partition("\n")[0][:200]
            return Failed("PROTOCOL_ERROR", f"{where} did not answer in valid HTTP: {what}", reach)
        case ConnectionResetError():
            return _disconnected(errno.ECONNRESET, where, reach)
        case TimeoutError(errno=None) if sent:
            detail = f"{where} did not answer within {timeout_seconds:g} s"
            return Failed("RESPONSE_TIMEOUT", detail, reach)
        case TimeoutError(errno=None):
            detail = f"there was no connection to {where} within {timeout_seconds:g} s"
            return Failed("ETIMEDOUT", detail, reach)
        case OSError(errno=number):
            return _disconnected(number, where, reach)
        case _:
            return _disconnected(None, where, reach)


def blocked(why: str) -> Failed:
    """The guard's refusal."""
    return Failed("BLOCKED_ADDRESS", why, Reach.NOT_SENT)


def _disconnected(number: int | None, where: str, reach: Reach) -> Failed:
    if number in OURS and reach is Reach.NOT_SENT:
        raise OwnFault(f"no connection to {where} could be opened: {errno.errorcode[number]}")
    name = errno.errorcode.get(number or 0, "")
    if name not in _SENTENCES:
        other = "EHOSTUNREACH" if reach is Reach.NOT_SENT else "ECONNRESET"
        name = _NEAREST.get(number or 0, other)
    return Failed(name, _SENTENCES[name].format(where=where), reach)


def _unresolved(error: socket.gaierror, host: str) -> Failed:
    if error.errno in _NOT_FOUND:
        return Failed("DNS_NOT_FOUND", f"the name {host} was not found", Reach.NOT_SENT)
    if error.errno == socket.EAI_MEMORY:
        raise OwnFault(f"the name {host} could not be looked up: out of memory")
    detail = f"the name {host} could not be looked up: {error.strerror}"
    return Failed("EAI_AGAIN", detail, Reach.NOT_SENT)


def _reason(error: BaseException) -> str:
    """Why TLS failed, in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else "the handshake was cut short"
