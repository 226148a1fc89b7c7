"""From a target to a connection: names, verdicts, TLS, and what fails on the way. Nothing was sent."""

import asyncio
import errno
import gc
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from itertools import count

import pytest
import trustme

from redrive.delivery import names as names_module
from redrive.delivery.guard import Guard
from redrive.delivery.http import HttpDeliverer
from redrive.delivery.names import SystemResolver, is_local
from redrive.delivery.port import OwnFault
from redrive.domain.outcome import Failed, Outcome, Reach, Succeeded
from tests.delivery.receivers import (
    OK,
    PATIENCE,
    SHORT,
    Call,
    Names,
    a_deliverer,
    a_free_port,
    a_guard,
    a_request,
    answering,
    playing,
)


def the_failure(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed), outcome
    assert outcome.reach is Reach.NOT_SENT
    return outcome


# --- names and verdicts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "not known"), "DNS_NOT_FOUND"),
        (socket.gaierror(socket.EAI_NODATA, "no address"), "DNS_NOT_FOUND"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "EAI_AGAIN"),
        (socket.gaierror(socket.EAI_FAIL, "server failed"), "EAI_AGAIN"),
    ],
)
async def test_a_failing_lookup_has_its_code(
    deliverer: HttpDeliverer, names: Names, error: socket.gaierror, code: str
) -> None:
    names.known["gone.test"] = error

    outcome = await deliverer.send(a_request(443, host="gone.test"))

    assert the_failure(outcome).code == code


async def test_a_name_without_an_address_is_not_found(deliverer: HttpDeliverer, names: Names) -> None:
    names.known["empty.test"] = []

    outcome = await deliverer.send(a_request(443, host="empty.test"))

    assert the_failure(outcome).code == "DNS_NOT_FOUND"


async def never(host: str) -> Sequence[str]:
    await asyncio.Event().wait()
    return ()


async def test_a_lookup_has_a_time_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "LOOKUP_SECONDS", 0.05)
    async with a_deliverer(never) as deliverer:
        outcome = await deliverer.send(a_request(443, host="slow.test"))

    assert the_failure(outcome).code == "EAI_AGAIN"


async def test_the_timeout_covers_the_lookup() -> None:
    async with a_deliverer(never) as deliverer:
        outcome = await deliverer.send(a_request(443, host="slow.test", timeout_seconds=SHORT))

    assert the_failure(outcome).code == "ETIMEDOUT"


@pytest.mark.parametrize("denied", ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
@pytest.mark.parametrize("first", [True, False])
async def test_one_denied_address_blocks_the_name(denied: str, *, first: bool) -> None:
    async with playing(answering(OK)) as partner:
        mixed = [denied, "127.0.0.1"] if first else ["127.0.0.1", denied]
        async with a_deliverer(Names({"mixed.test": mixed})) as deliverer:
            outcome = await deliverer.send(a_request(partner.port, host="mixed.test"))

    assert the_failure(outcome).code == "BLOCKED_ADDRESS"
    assert partner.connections == 0


async def test_a_literal_is_judged_without_a_lookup(names: Names) -> None:
    async with a_deliverer(names, a_guard()) as deliverer, playing(answering(OK)) as partner:
        open_port = await deliverer.send(a_request(443))
        other_port = await deliverer.send(a_request(partner.port))

    assert the_failure(open_port).code == the_failure(other_port).code == "BLOCKED_ADDRESS"
    assert (partner.connections, names.asked) == (0, [])


async def test_a_port_is_judged_before_the_name_is_looked_up(names: Names) -> None:
    async with a_deliverer(names, a_guard()) as deliverer:
        outcome = await deliverer.send(a_request(22, host="partner.test"))

    assert the_failure(outcome).code == "BLOCKED_ADDRESS"
    assert names.asked == []


async def test_a_range_of_one_integration_is_no_others(names: Names) -> None:
    guard = Guard(allow_targets_of={"inside": [ip_network("127.0.0.0/8")]}, is_local=is_local)
    async with a_deliverer(names, guard) as deliverer, playing(answering(OK)) as partner:
        for host in ("127.0.0.1", "partner.test"):
            inside, outside, again = [
                await deliverer.send(a_request(partner.port, host=host, integration_id=name))
                for name in ("inside", "outside", "inside")
            ]
            assert isinstance(inside, Succeeded)
            assert the_failure(outside).code == "BLOCKED_ADDRESS", "a kept connection is not for everybody"
            assert isinstance(again, Succeeded)

    assert (partner.connections, len(partner.requests)) == (2, 4)


async def test_a_connection_that_was_led_elsewhere_is_refused(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_deliverer(names) as deliverer, playing(answering(OK)) as partner:
        connect = deliverer._loop.sock_connect
        port = a_free_port()

        class Leading:
            """The loop, on a machine that has its own idea of where things are."""

            async def sock_connect(self, peer: socket.socket, _: tuple[str, int]) -> None:
                await connect(peer, ("127.0.0.1", partner.port))

            def __getattr__(self, name: str) -> object:
                return getattr(loop, name)

        loop = deliverer._loop
        monkeypatch.setattr(deliverer, "_loop", Leading())
        outcome = the_failure(await deliverer.send(a_request(port)))

    assert outcome.code == "BLOCKED_ADDRESS"
    assert (
        outcome.detail == f"the connection to 127.0.0.1 port {port} was led to 127.0.0.1 port {partner.port}"
    )
    assert partner.requests == []


async def test_our_own_listener_is_refused() -> None:
    guard = a_guard("127.0.0.0/8")
    async with playing(answering(OK)) as ours, a_deliverer(Names({}), guard) as deliverer:
        guard.protect([("0.0.0.0", ours.port)])
        outcome = await deliverer.send(a_request(ours.port))

    assert the_failure(outcome).code == "BLOCKED_ADDRESS"
    assert ours.connections == 0


async def test_an_address_is_judged_again_at_every_connection(names: Names) -> None:
    guard = a_guard("127.0.0.0/8")

    async def script(call: Call) -> None:
        await call.request()
        await call.send(OK)
        await call.end()

    async with (
        playing(script) as partner,
        a_deliverer(names, guard) as deliverer,
        asyncio.timeout(PATIENCE),
    ):
        first = await deliverer.send(a_request(partner.port, host="partner.test"))
        await partner.left.wait()
        guard.protect([("127.0.0.1", partner.port)])
        second = await deliverer.send(a_request(partner.port, host="partner.test"))

    assert isinstance(first, Succeeded)
    assert the_failure(second).code == "BLOCKED_ADDRESS"
    assert (partner.connections, names.asked) == (1, ["partner.test"])


async def test_a_name_is_looked_up_once_for_many_connections(deliverer: HttpDeliverer, names: Names) -> None:
    async with playing(answering(OK)) as partner:
        request = a_request(partner.port, host="partner.test")
        await asyncio.gather(*(deliverer.send(request) for _ in range(8)))

    assert names.asked == ["partner.test"]


async def test_closing_ends_a_lookup_that_nobody_waits_for_any_more() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hanging(host: str) -> Sequence[str]:
        begun.set()
        try:
            return await never(host)
        finally:
            ended.set()

    async with a_deliverer(hanging) as deliverer, asyncio.timeout(PATIENCE):
        sending = asyncio.create_task(deliverer.send(a_request(443, host="slow.test")))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

    assert ended.is_set()


async def test_the_system_finds_localhost_and_not_an_invalid_name() -> None:
    resolver = SystemResolver()

    assert "127.0.0.1" in await resolver("localhost")
    with pytest.raises(socket.gaierror):
        await resolver("no-such-host.invalid")

    resolver.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("192.0.2.1", False), ("2001:db8::1", False)],
)
def test_the_machine_knows_its_own_addresses(address: str, *, expected: bool) -> None:
    assert is_local(address) == expected


# --- connecting -------------------------------------------------------------------------------


async def test_a_refused_connection_is_econnrefused(deliverer: HttpDeliverer) -> None:
    outcome = await deliverer.send(a_request(a_free_port()))

    assert the_failure(outcome).code == "ECONNREFUSED"


async def test_the_next_address_is_tried() -> None:
    names = Names({"two.test": ["127.0.0.2", "127.0.0.1"]})
    async with playing(answering(OK)) as partner, a_deliverer(names) as deliverer:
        outcome = await deliverer.send(a_request(partner.port, host="two.test"))

    assert isinstance(outcome, Succeeded)


async def test_a_connection_that_is_not_taken_runs_into_the_timeout(deliverer: HttpDeliverer) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        outcome = await deliverer.send(a_request(full.getsockname()[1], timeout_seconds=SHORT))
        for filler in fillers:
            filler.close()

    assert the_failure(outcome).code == "ETIMEDOUT"


async def test_a_lookup_without_file_handles_is_a_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")  # so says glibc out of handles

    def no_handles(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    resolver = SystemResolver()
    monkeypatch.setattr(socket, "getaddrinfo", not_found)
    async with a_deliverer(resolver) as deliverer:
        monkeypatch.setattr(os, "open", no_handles)
        with pytest.raises(OwnFault):
            await deliverer.send(a_request(443, host="partner.test"))
    resolver.close()


async def test_running_out_of_file_handles_is_a_fault_of_our_own(deliverer: HttpDeliverer) -> None:
    port = a_free_port()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)

    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OwnFault, match="EMFILE"):
            await deliverer.send(a_request(port))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- TLS --------------------------------------------------------------------------------------


AUTHORITY = trustme.CA()


def served_as(*names: str, by: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    by.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def a_trusting_deliverer(names: Names) -> AsyncIterator[HttpDeliverer]:
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    async with a_deliverer(names, tls=trust) as deliverer:
        yield deliverer


async def test_tls_asks_for_the_name_and_checks_it(names: Names) -> None:
    asked: list[str | None] = []
    context = served_as("partner.test")
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with playing(answering(OK), tls=context) as partner, a_trusting_deliverer(names) as deliverer:
        outcome = await deliverer.send(a_request(partner.port, scheme="https", host="partner.test"))

    assert isinstance(outcome, Succeeded)
    assert asked == ["partner.test"]


@pytest.mark.parametrize(
    ("context", "host"),
    [
        (served_as("partner.test", by=trustme.CA()), "partner.test"),
        (served_as("partner.test"), "other.test"),
        (served_as("partner.test"), "127.0.0.1"),
    ],
    ids=["unknown authority", "another name", "an address"],
)
async def test_a_certificate_that_does_not_fit_is_a_tls_error(
    names: Names, context: ssl.SSLContext, host: str
) -> None:
    async with playing(answering(OK), tls=context) as partner, a_trusting_deliverer(names) as deliverer:
        outcome = await deliverer.send(a_request(partner.port, scheme="https", host=host))

    assert the_failure(outcome).code == "TLS_ERROR"
    assert partner.requests == []


async def test_the_systems_trust_is_the_default(deliverer: HttpDeliverer) -> None:
    async with playing(answering(OK), tls=served_as("partner.test")) as partner:
        outcome = await deliverer.send(a_request(partner.port, scheme="https", host="partner.test"))

    assert the_failure(outcome).code == "TLS_ERROR"
    assert "certificate" in the_failure(outcome).detail


async def test_plain_http_where_tls_was_expected_is_a_tls_error(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.reader.read(1)
        await call.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await call.is_left()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, scheme="https"))

    assert the_failure(outcome).code == "TLS_ERROR"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_handshake_cut_short_fails_before_anything_was_sent(
    deliverer: HttpDeliverer, end: str
) -> None:
    async def script(call: Call) -> None:
        await call.reader.read(65536)
        if end == "reset":
            call.reset()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, scheme="https"))

    assert the_failure(outcome).code == "ECONNRESET"


async def test_a_handshake_without_an_answer_runs_into_the_timeout(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.is_left()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, scheme="https", timeout_seconds=SHORT))

    assert the_failure(outcome).code == "ETIMEDOUT"


async def test_a_certificate_wanted_after_the_handshake_is_a_tls_error(names: Names) -> None:
    context = served_as("partner.test")
    context.verify_mode = ssl.CERT_REQUIRED

    async def script(call: Call) -> None:  # TLS by hand, for a server of asyncio resets at once
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        refused = False
        while not refused:
            incoming.write(await call.reader.read(65536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                refused = True
            await call.send(outgoing.read())
        await call.is_left()

    async with playing(script) as partner, a_trusting_deliverer(names) as deliverer:
        outcome = await deliverer.send(a_request(partner.port, scheme="https", host="partner.test"))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.reach) == ("TLS_ERROR", Reach.SENT)
    assert "certificate required" in outcome.detail


# --- cancelled on the way ---------------------------------------------------------------------


async def test_a_request_has_not_left_while_the_handshake_is_under_way(deliverer: HttpDeliverer) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.reader.read(1)
        begun.set()
        await call.is_left()

    async with playing(script) as partner, asyncio.timeout(PATIENCE):
        sending = asyncio.create_task(deliverer.send(a_request(partner.port, scheme="https"), left.set))
        await begun.wait()
        sending.cancel()

        with pytest.raises(asyncio.CancelledError):
            await sending
        await partner.left.wait()
        assert not left.is_set()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_whenever_it_is_cancelled_before_the_request_leaves_nothing_arrives_or_stays_open(
    names: Names, scheme: str
) -> None:
    arrived, ended = bytearray(), list[Call]()

    async def script(call: Call) -> None:
        try:
            while data := await call.reader.read(65536):
                arrived.extend(data)
        finally:
            ended.append(call)

    tls = served_as("partner.test") if scheme == "https" else None
    async with (
        playing(script, tls=tls) as partner,
        a_trusting_deliverer(names) as deliverer,
        asyncio.timeout(PATIENCE),
    ):
        request, left = a_request(partner.port, scheme=scheme, host="partner.test"), asyncio.Event()
        for turns in count():
            sending = asyncio.create_task(deliverer.send(request, left.set))
            for _ in range(turns):
                await asyncio.sleep(0)
            is_last = left.is_set()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert left.is_set() is is_last
            if is_last:
                break

        while len(ended) < partner.connections:  # noqa: ASYNC110 - the partner's side has no event
            await asyncio.sleep(0.005)
        gc.collect()  # what was left open says so
    assert arrived.count(b"POST /hooks") <= 1, "only the last may have been sent"
