import errno
import os

import pytest

from redrive.delivery.failures import failure
from redrive.delivery.port import OwnFault
from redrive.domain.outcome import Failed, Reach
from redrive.domain.target import Target

A_TARGET = Target("https", "partner.test", 443, "/secret/path?token=abc")


def while_connecting(number: int) -> Failed:
    error = OSError(number, os.strerror(number))
    return failure(error, A_TARGET, sent=False, timeout_seconds=15.0)


def after_sending(number: int) -> Failed:
    error = OSError(number, os.strerror(number))
    return failure(error, A_TARGET, sent=True, timeout_seconds=15.0)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, "ECONNREFUSED"),
        (errno.EHOSTUNREACH, "EHOSTUNREACH"),
        (errno.ENETUNREACH, "ENETUNREACH"),
        (errno.ETIMEDOUT, "ETIMEDOUT"),
        (errno.ECONNRESET, "ECONNRESET"),
        (errno.ENETDOWN, "ENETUNREACH"),
        (errno.EAFNOSUPPORT, "ENETUNREACH"),
        (errno.EHOSTDOWN, "EHOSTUNREACH"),
        (errno.EPERM, "EHOSTUNREACH"),
        (errno.EACCES, "EHOSTUNREACH"),
    ],
)
def test_an_error_while_connecting_has_the_nearest_code_and_sent_nothing(number: int, code: str) -> None:
    failed = while_connecting(number)

    assert (failed.code, failed.reach) == (code, Reach.NOT_SENT)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNRESET, "ECONNRESET"),
        (errno.EPIPE, "EPIPE"),
        (errno.ECONNABORTED, "ECONNABORTED"),
        (errno.ETIMEDOUT, "ETIMEDOUT"),
        (errno.EHOSTUNREACH, "EHOSTUNREACH"),
        (errno.ESHUTDOWN, "EPIPE"),
        (errno.ENOBUFS, "ECONNRESET"),
        (errno.EIO, "ECONNRESET"),
    ],
)
def test_an_error_after_sending_has_the_nearest_code(number: int, code: str) -> None:
    failed = after_sending(number)

    assert (failed.code, failed.reach) == (code, Reach.SENT)


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL]
)
def test_local_exhaustion_is_a_fault_of_our_own(number: int) -> None:
    with pytest.raises(OwnFault):
        while_connecting(number)


@pytest.mark.parametrize("failed", [while_connecting(errno.ECONNREFUSED), after_sending(errno.EPIPE)])
def test_a_detail_names_host_and_port_and_nothing_of_the_path(failed: Failed) -> None:
    assert "partner.test:443" in failed.detail
    assert "token" not in failed.detail
