"""Through a forward proxy, to addresses that nobody else could lead to a partner on this machine."""

import asyncio
import errno
import gc
import os
import resource
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trustme

from redrive.delivery.http import HttpDeliverer
from redrive.delivery.port import OwnFault
from redrive.delivery.tunnel import MAX_ANSWER_HEAD
from redrive.domain.outcome import Failed, Outcome, Reach, Succeeded
from redrive.domain.proxy import Proxy
from tests.delivery.receivers import (
    OK,
    PATIENCE,
    SHORT,
    Call,
    Names,
    Partner,
    Script,
    a_deliverer,
    a_free_port,
    a_guard,
    a_request,
    answering,
    playing,
)

FAR = "203.0.113.7"  # documentation: no connection gets there but through the proxy
FAR_TOO = "203.0.113.8"
FAR_V6 = "2001:db8::7"
GUARD = a_guard("203.0.113.0/24", "2001:db8::/32", allow_http=True)
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
AUTHORITY = trustme.CA()


class Asked:
    """What a proxy was asked for."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    @property
    def lines(self) -> list[bytes]:
        return [head.partition(b"\r\n")[0] for head in self.heads]


def leading_to(partner: Partner, asked: Asked, answer: Callable[[bytes], bytes] = lambda _: OPENED) -> Script:
    """A proxy that leads to *partner*, wherever it is asked to, once its *answer* says that it does."""

    async def script(call: Call) -> None:
        asked.heads.append(await call.reader.readuntil(b"\r\n\r\n"))
        told = answer(asked.heads[-1])
        await call.send(told)
        if b" 200 " not in told:
            await call.is_left()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", partner.port)
        try:
            await asyncio.gather(_carry(call.reader, writer), _carry(reader, call._writer))
        finally:
            writer.close()

    return script


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def through(
    proxy: Partner, names: Names, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpDeliverer]:
    where = Proxy("127.0.0.1", proxy.port)
    async with a_deliverer(names, GUARD, tls, where) as made:
        yield made


@pytest.fixture
def far() -> Names:
    return Names({"partner.test": [FAR], "two.test": [FAR, FAR_TOO], "six.test": [FAR_V6]})


def the_refusal(outcome: Outcome, proxy: Partner) -> str:
    """What is told of a tunnel that was not opened: to be tried again, and nothing sent."""
    assert isinstance(outcome, Failed), outcome
    assert (outcome.code, outcome.reach) == ("ECONNREFUSED", Reach.NOT_SENT)
    assert outcome.is_retryable(frozenset({"ECONNREFUSED"}))
    assert outcome.detail.startswith(f"the proxy 127.0.0.1:{proxy.port} ")
    return outcome.detail


# --- led to the partner -----------------------------------------------------------------------


async def test_a_plain_target_is_tunnelled_to_the_address_that_was_judged(far: Names) -> None:
    asked = Asked()
    async with (
        playing(answering(OK)) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far) as deliverer,
    ):
        outcome = await deliverer.send(a_request(80, host="partner.test"))

    assert isinstance(outcome, Succeeded)
    assert asked.heads == [b"CONNECT 203.0.113.7:80 HTTP/1.1\r\nHost: 203.0.113.7:80\r\n\r\n"]
    assert partner.requests[0].startswith(b"POST /hooks HTTP/1.1\r\nHost: partner.test\r\n")


async def test_tls_is_spoken_with_the_partner_and_not_with_the_proxy(far: Names) -> None:
    asked, trust, served = Asked(), ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.configure_trust(trust)
    AUTHORITY.issue_cert("partner.test").configure_cert(served)
    server_names: list[str | None] = []
    served.sni_callback = lambda _, name, __: server_names.append(name)
    async with (
        playing(answering(OK), tls=served) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far, trust) as deliverer,
    ):
        taken = await deliverer.send(a_request(443, scheme="https", host="partner.test"))
        other = await deliverer.send(a_request(443, scheme="https", host="two.test"))

    assert isinstance(taken, Succeeded)
    assert isinstance(other, Failed)
    assert other.code == "TLS_ERROR", "another name than the certificate's"
    assert asked.lines[0] == b"CONNECT 203.0.113.7:443 HTTP/1.1"
    assert server_names[0] == "partner.test"
    assert len(partner.requests) == 1


async def test_a_kept_tunnel_is_used_again(far: Names) -> None:
    asked = Asked()
    async with (
        playing(answering(OK)) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far) as deliverer,
    ):
        for _ in range(3):
            assert isinstance(await deliverer.send(a_request(80, host="partner.test")), Succeeded)

    assert (len(asked.heads), partner.connections, len(partner.requests)) == (1, 1, 3)


async def test_an_ipv6_address_is_asked_for_in_brackets(far: Names) -> None:
    asked = Asked()
    async with (
        playing(answering(OK)) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far) as deliverer,
    ):
        for host in ("six.test", FAR_V6):
            assert isinstance(await deliverer.send(a_request(80, host=host)), Succeeded)

    assert asked.heads == [b"CONNECT [2001:db8::7]:80 HTTP/1.1\r\nHost: [2001:db8::7]:80\r\n\r\n"] * 2


async def test_the_next_address_is_tried_when_the_proxy_does_not_get_to_the_first(far: Names) -> None:
    asked = Asked()
    async with (
        playing(answering(OK)) as partner,
        playing(
            leading_to(
                partner, asked, lambda head: b"HTTP/1.1 502 \r\n\r\n" if b" 203.0.113.7:" in head else OPENED
            )
        ) as proxy,
        through(proxy, far) as deliverer,
    ):
        outcome = await deliverer.send(a_request(80, host="two.test"))

    assert isinstance(outcome, Succeeded)
    assert asked.lines == [b"CONNECT 203.0.113.7:80 HTTP/1.1", b"CONNECT 203.0.113.8:80 HTTP/1.1"]


async def test_the_proxys_own_name_is_looked_up_and_may_be_private(far: Names) -> None:
    asked, far.known["proxy.internal"] = Asked(), ["127.0.0.1"]
    async with (
        playing(answering(OK)) as partner,
        playing(leading_to(partner, asked)) as proxy,
        a_deliverer(far, GUARD, proxy=Proxy("proxy.internal", proxy.port, "me", "pass:wörd")) as deliverer,
    ):
        outcome = await deliverer.send(a_request(80, host="partner.test"))

    assert isinstance(outcome, Succeeded)
    shown = b64encode("me:pass:wörd".encode())
    assert asked.heads[0].endswith(b"\r\nProxy-Authorization: Basic " + shown + b"\r\n\r\n")
    assert b"roxy-" not in partner.requests[0]


@pytest.mark.parametrize("host", ["10.0.0.1", "inside.test", "metadata.test"])
async def test_what_is_denied_is_not_asked_for(far: Names, host: str) -> None:
    asked = Asked()
    far.known |= {"inside.test": [FAR, "127.0.0.1"], "metadata.test": ["169.254.169.254"]}
    async with (
        playing(answering(OK)) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far) as deliverer,
    ):
        outcome = await deliverer.send(a_request(80, host=host))

    assert isinstance(outcome, Failed)
    assert outcome.code == "BLOCKED_ADDRESS"
    assert (proxy.connections, partner.connections) == (0, 0)


# --- not led ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "answered 403 and opened no tunnel"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 407\r\nProxy-Authenticate: Basic\r\n\r\n", "answered 407: it wants other credentials"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "answered 101"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "valid HTTP"),
        (b"\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.1\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "valid HTTP"),
        (b"HTTP/2 200\r\n\r\n", "valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_ANSWER_HEAD * 2, f"more than {MAX_ANSWER_HEAD} bytes"),
        (OPENED + b"\x16\x03\x03", "sent more than its answer"),
        (OPENED + OK, "sent more than its answer"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_proxy_that_opens_no_tunnel_is_told_and_nothing_is_sent(
    far: Names, answer: bytes, told: str
) -> None:
    came, left = bytearray(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.reader.readuntil(b"\r\n\r\n")
        await call.send(answer)
        try:
            came.extend(await call.reader.read())
        finally:
            call._partner.left.set()  # also when it was left with bytes unread: that is a reset

    async with playing(script) as proxy, through(proxy, far) as deliverer, asyncio.timeout(PATIENCE):
        outcome = await deliverer.send(a_request(80, host="partner.test"), left.set)
        await proxy.left.wait()

    assert told in the_refusal(outcome, proxy)
    assert not left.is_set()
    assert came == b""


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_proxy_that_leaves_is_told(far: Names, end: str) -> None:
    async def script(call: Call) -> None:
        await call.reader.readuntil(b"\r\n\r\n")
        if end == "reset":
            call.reset()

    async with playing(script) as proxy, through(proxy, far) as deliverer:
        outcome = await deliverer.send(a_request(80, host="partner.test"))

    assert "the connection" in the_refusal(outcome, proxy)


async def test_a_proxy_that_nobody_listens_as_is_told(far: Names) -> None:
    proxy = Partner()
    proxy.port = a_free_port()
    async with through(proxy, far) as deliverer:
        outcome = await deliverer.send(a_request(80, host="partner.test"))

    assert "cannot be reached: Connection refused" in the_refusal(outcome, proxy)


@pytest.mark.parametrize("known", [{}, {"proxy.internal": []}])
async def test_a_proxy_that_is_not_known_is_no_partner_that_is_not_known(known: dict[str, list[str]]) -> None:
    names = Names({"partner.test": [FAR], **known})
    async with a_deliverer(names, GUARD, proxy=Proxy("proxy.internal", 3128, "me", "hunter2")) as deliverer:
        outcome = await deliverer.send(a_request(80, host="partner.test"))

    assert isinstance(outcome, Failed)
    assert outcome.code == "ECONNREFUSED"
    assert outcome.detail.startswith("the proxy proxy.internal:3128 ")
    assert "hunter2" not in outcome.detail


async def test_an_answer_that_drips_runs_into_the_timeout(far: Names) -> None:
    async def script(call: Call) -> None:
        await call.reader.readuntil(b"\r\n\r\n")
        await call.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not call.reader.at_eof():
            await call.send(b"x")
            await asyncio.sleep(0.02)

    async with playing(script) as proxy, through(proxy, far) as deliverer:
        outcome = await deliverer.send(a_request(80, host="partner.test", timeout_seconds=SHORT))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.reach) == ("ETIMEDOUT", Reach.NOT_SENT)
    assert f"partner.test:80 (through the proxy 127.0.0.1:{proxy.port})" in outcome.detail


async def test_no_tunnel_for_want_of_file_handles_is_a_fault_of_our_own(far: Names) -> None:
    proxy = Partner()
    proxy.port = a_free_port()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with through(proxy, far) as deliverer:
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(OwnFault, match=errno.errorcode[errno.EMFILE]):
                await deliverer.send(a_request(80, host="partner.test"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_whenever_it_is_cancelled_on_its_way_nothing_stays_open(far: Names) -> None:
    asked, left = Asked(), asyncio.Event()

    async def silent(call: Call) -> None:
        await call.request()
        await call.is_left()

    async with (
        playing(silent) as partner,
        playing(leading_to(partner, asked)) as proxy,
        through(proxy, far) as deliverer,
        asyncio.timeout(PATIENCE),
    ):
        for turns in count():
            sending = asyncio.create_task(deliverer.send(a_request(80, host="partner.test"), left.set))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_last = left.is_set()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            if is_last:
                break
        gc.collect()  # a socket that was left open says so

    assert len(partner.requests) <= 1, "only the last may have been sent"
