"""The exchange: what is sent, what an answer means, and that nothing is ever sent twice."""

import asyncio
import gzip
from contextlib import suppress
from datetime import timedelta

import pytest

from redrive.delivery.exchange import MAX_ANSWER
from redrive.delivery.http import HttpDeliverer
from redrive.domain.outcome import Answer, Failed, Outcome, Reach, Succeeded
from tests.delivery.receivers import OK, PATIENCE, SHORT, Call, a_request, answering, playing

BIG = b"x" * (MAX_ANSWER + 1)


def the_answer(outcome: Outcome) -> Answer:
    assert outcome.answer is not None
    return outcome.answer


def code_and_reach(outcome: Outcome) -> tuple[str, Reach]:
    assert isinstance(outcome, Failed), outcome
    return outcome.code, outcome.reach


async def test_exactly_the_given_headers_and_bytes_are_sent(deliverer: HttpDeliverer) -> None:
    headers = (("Content-Type", "text/plain"), ("webhook-id", "rec_1"), ("X-ODD-case", "a, b"), ("b", "2"))
    async with playing(answering(OK)) as partner:
        await deliverer.send(a_request(partner.port, headers=headers, body=b"\x00\xff"))

    assert partner.requests == [
        b"POST /hooks HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: text/plain\r\nwebhook-id: rec_1\r\n"
        b"X-ODD-case: a, b\r\nb: 2\r\nContent-Length: 2\r\n\r\n\x00\xff" % partner.port
    ]


@pytest.mark.parametrize(
    "path", ["/", "/a/../b//c/./", "/%7e%2F%2f", "/x?a=1&a=2&b=%20+", "/?a=b?c", "/;p=@:!$'"]
)
async def test_the_path_is_sent_as_it_stands(deliverer: HttpDeliverer, path: str) -> None:
    async with playing(answering(OK)) as partner:
        await deliverer.send(a_request(partner.port, path=path))

    assert partner.requests[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())


async def test_the_host_is_the_name_and_the_connection_goes_to_its_address(deliverer: HttpDeliverer) -> None:
    async with playing(answering(OK)) as partner:
        await deliverer.send(a_request(partner.port, host="partner.test"))

    assert f"\r\nHost: partner.test:{partner.port}\r\n".encode() in partner.requests[0]


@pytest.mark.parametrize("size", [0, 1, 70_000, 1 << 20])
async def test_a_body_of_any_size_arrives_whole(deliverer: HttpDeliverer, size: int) -> None:
    async with playing(answering(OK)) as partner:
        outcome = await deliverer.send(a_request(partner.port, body=b"y" * size))

    assert isinstance(outcome, Succeeded)
    assert partner.requests[0].partition(b"\r\n\r\n")[2] == b"y" * size


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200 OK", None),
        ("204 No Content", None),
        ("299 Odd", None),
        ("101 Switching Protocols", "HTTP_101"),
        ("300 Choices", "HTTP_300"),
        ("400 Bad", "HTTP_400"),
        ("404 Not Found", "HTTP_404"),
        ("503 Unavailable", "HTTP_503"),
        ("599 Odd", "HTTP_599"),
        ("600 Odd", "PROTOCOL_ERROR"),
        ("999 Odd", "PROTOCOL_ERROR"),
        ("099 Odd", "PROTOCOL_ERROR"),
    ],
)
async def test_the_status_decides(deliverer: HttpDeliverer, status: str, code: str | None) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    async with playing(answering(answer)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert the_answer(outcome).status == int(status[:3])
    assert outcome.reach is Reach.ANSWERED
    assert (outcome.code if isinstance(outcome, Failed) else None) == code


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(deliverer: HttpDeliverer, status: int) -> None:
    async with playing(answering(OK)) as elsewhere:
        location = f"http://127.0.0.1:{elsewhere.port}/"
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        async with playing(answering(answer)) as partner:
            outcome = await deliverer.send(a_request(partner.port))

    assert code_and_reach(outcome) == (f"HTTP_{status}", Reach.ANSWERED)
    assert (len(partner.requests), elsewhere.connections) == (1, 0)


@pytest.mark.parametrize(
    ("status", "headers", "asked"),
    [
        (429, ["120"], timedelta(seconds=120)),
        (503, ["Mon, 23 Nov 2026 12:01:30 GMT"], timedelta(seconds=90)),
        (503, [], None),
        (503, ["+5"], None),
        (503, ["1", "2"], None),
        (404, ["120"], None),
    ],
)
async def test_one_valid_retry_after_of_a_retryable_answer_is_heard(
    deliverer: HttpDeliverer, status: int, headers: list[str], asked: timedelta | None
) -> None:
    lines = "".join(f"Retry-After: {value}\r\n" for value in headers)
    answer = f"HTTP/1.1 {status} Wait\r\n{lines}Content-Length: 0\r\n\r\n".encode()
    async with playing(answering(answer)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert isinstance(outcome, Failed)
    assert outcome.retry_after == asked


async def test_the_headers_of_an_answer_are_kept_in_order(deliverer: HttpDeliverer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-b: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    async with playing(answering(answer)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert the_answer(outcome).headers == (
        ("X-b", "1"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Content-Length", "0"),
    )


async def test_a_cookie_is_not_sent_back(deliverer: HttpDeliverer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with playing(answering(answer)) as partner:
        await deliverer.send(a_request(partner.port, host="partner.test"))
        await deliverer.send(a_request(partner.port, host="partner.test"))

    assert partner.requests[0] == partner.requests[1]


async def test_a_header_that_is_not_utf8_can_be_stored(deliverer: HttpDeliverer) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-A: caf\xe9 \xc3\xa9\r\nContent-Length: 0\r\n\r\n"
    async with playing(answering(answer)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert the_answer(outcome).headers[0] == ("X-A", "caf\\xe9 é")


# --- what a body can do -----------------------------------------------------------------------


def answer_of(size: int, body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body


async def test_a_chunked_body_is_put_together(deliverer: HttpDeliverer) -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    async with playing(
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    ) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert (the_answer(outcome).body, the_answer(outcome).truncated) == (b"abcde", False)


async def test_very_many_small_chunks_are_put_together(deliverer: HttpDeliverer) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with playing(answering(head + b"1\r\nx\r\n" * MAX_ANSWER + b"0\r\n\r\n")) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert (the_answer(outcome).body, the_answer(outcome).truncated) == (b"x" * MAX_ANSWER, False)


async def test_a_body_that_ends_with_the_connection_is_read(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\n\r\nbye")

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert (the_answer(outcome).body, the_answer(outcome).truncated) == (b"bye", False)


async def test_a_compressed_body_is_kept_as_it_came(deliverer: HttpDeliverer) -> None:
    packed = gzip.compress(b"\x00" * 10_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with playing(answering(head + packed)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert the_answer(outcome).body == packed


async def test_a_body_of_64_kib_is_kept_whole(deliverer: HttpDeliverer) -> None:
    async with playing(answering(answer_of(MAX_ANSWER, BIG[:-1]))) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert (the_answer(outcome).body, the_answer(outcome).truncated) == (BIG[:-1], False)


@pytest.mark.parametrize(
    "answer",
    [
        answer_of(len(BIG), BIG),
        answer_of(1 << 30, BIG * 8),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n" + b"x" * 32768 + b"\r\n" + b"8000",
    ],
    ids=["one byte more", "announced 1 GiB", "cut in a chunk"],
)
async def test_no_more_than_64_kib_is_kept(deliverer: HttpDeliverer, answer: bytes) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(answer)

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert isinstance(outcome, Succeeded)
    assert outcome.answer.truncated
    assert outcome.answer.body == b"x" * min(MAX_ANSWER, answer.count(b"x"))


async def test_the_connection_of_an_endless_body_is_closed(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        leaving = asyncio.ensure_future(call.is_left())
        with suppress(ConnectionError):
            while not leaving.done():
                await call.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        await leaving

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port))
        async with asyncio.timeout(PATIENCE):
            await partner.left.wait()

    assert (len(the_answer(outcome).body), the_answer(outcome).truncated) == (MAX_ANSWER, True)


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("end", ["reset", "close", "silence", "broken chunk", "broken chunk later"])
async def test_a_complete_header_decides_whatever_its_body_does(
    deliverer: HttpDeliverer, status: int, end: str
) -> None:
    async def script(call: Call) -> None:
        await call.request()
        head = f"HTTP/1.1 {status} So\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        if end == "broken chunk":
            await call.send(head + b"2\r\nab\r\nzz\r\n")
        else:
            await call.send(head)
            await call.send(b"2\r\nab\r\n")
        if end == "broken chunk later":
            await call.send(b"zz\r\n")
        if end == "silence":
            await call.is_left()
        if end == "reset":
            call.reset()

    async with playing(script) as partner:
        timeout = SHORT if end == "silence" else PATIENCE
        outcome = await deliverer.send(a_request(partner.port, timeout_seconds=timeout))

    assert the_answer(outcome).status == status
    assert the_answer(outcome).truncated
    assert outcome.reach is Reach.ANSWERED


# --- what can go wrong before there is an answer ----------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"hello",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda answer: answer[:24].decode("latin-1"),
)
async def test_what_is_not_http_is_a_protocol_error(deliverer: HttpDeliverer, answer: bytes) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(answer)
        await call.is_left()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert code_and_reach(outcome) == ("PROTOCOL_ERROR", Reach.SENT)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX-A"], ids=["nothing", "half a header"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_lost_before_the_answer_is_econnreset(
    deliverer: HttpDeliverer, said: bytes, end: str
) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(said)
        if end == "reset":
            call.reset()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert code_and_reach(outcome) == ("ECONNRESET", Reach.SENT)


@pytest.mark.parametrize("drip", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-A: "])
async def test_a_partner_without_an_answer_runs_into_the_timeout(
    deliverer: HttpDeliverer, drip: bytes
) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(drip)
        await call.is_left()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, timeout_seconds=SHORT))
        async with asyncio.timeout(PATIENCE):
            await partner.left.wait()

    assert code_and_reach(outcome) == ("RESPONSE_TIMEOUT", Reach.SENT)


async def test_dripping_does_not_extend_the_timeout(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\n")
        leaving = asyncio.ensure_future(call.is_left())
        with suppress(ConnectionError):
            while not leaving.done():
                await call.send(b"X: 1\r\n")
                await asyncio.wait([leaving], timeout=0.02)
        await leaving

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, timeout_seconds=SHORT))

    assert code_and_reach(outcome) == ("RESPONSE_TIMEOUT", Reach.SENT)


async def test_interim_answers_are_on_the_way_to_the_answer(deliverer: HttpDeliverer) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    async with playing(answering(answer)) as partner:
        outcome = await deliverer.send(a_request(partner.port))

    assert (the_answer(outcome).status, the_answer(outcome).body) == (200, b"ok")


async def test_an_answer_to_half_a_request_counts(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.reader.readuntil(b"\r\n\r\n")
        await call.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await call.is_left()

    async with playing(script) as partner:
        outcome = await deliverer.send(a_request(partner.port, body=b"y" * (8 << 20)))

    assert code_and_reach(outcome) == ("HTTP_413", Reach.ANSWERED)


# --- connections ------------------------------------------------------------------------------


async def test_a_connection_is_kept_and_used_again(deliverer: HttpDeliverer) -> None:
    async with playing(answering(OK)) as partner:
        for _ in range(3):
            await deliverer.send(a_request(partner.port))

    assert (partner.connections, len(partner.requests)) == (1, 3)


async def test_a_connection_is_kept_for_its_own_name_only(deliverer: HttpDeliverer) -> None:
    async with playing(answering(OK)) as partner:
        await deliverer.send(a_request(partner.port, host="partner.test"))
        await deliverer.send(a_request(partner.port, host="other.test"))

    assert partner.connections == 2


async def test_a_connection_that_was_in_use_during_a_sweep_is_used_again_and_closed(
    deliverer: HttpDeliverer,
) -> None:
    async def script(call: Call) -> None:
        await call.request()
        deliverer._sweep()  # at the very moment when nothing is idle
        await call.send(OK)
        await call.request()
        await call.send(OK)
        await call.is_left()

    async with playing(script) as partner, asyncio.timeout(PATIENCE):
        for _ in range(2):
            await deliverer.send(a_request(partner.port))
        await deliverer.close()
        await partner.left.wait()

    assert (partner.connections, len(partner.requests)) == (1, 2)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
async def test_a_request_is_never_sent_twice(
    deliverer: HttpDeliverer, method: str, end: str, *, kept: bool
) -> None:
    async def script(call: Call) -> None:
        if kept:
            await call.request()
            await call.send(OK)
        await call.request()
        if end == "reset":
            call.reset()

    async with playing(script) as partner:
        if kept:
            await deliverer.send(a_request(partner.port, method=method))
        outcome = await deliverer.send(a_request(partner.port, method=method, body=b"the second"))

    assert code_and_reach(outcome) == ("ECONNRESET", Reach.SENT)
    assert (partner.connections, len(partner.requests)) == (1, 2 if kept else 1)


async def test_a_kept_connection_that_was_ended_meanwhile_is_not_used(deliverer: HttpDeliverer) -> None:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(OK)
        await call.end()

    async with playing(script) as partner, asyncio.timeout(PATIENCE):
        first = await deliverer.send(a_request(partner.port, method="PUT"))
        await partner.left.wait()
        second = await deliverer.send(a_request(partner.port, method="PUT"))

    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert (partner.connections, len(partner.requests)) == (2, 2)


@pytest.mark.parametrize("together", [True, False])
async def test_an_answer_nobody_asked_for_is_not_that_to_the_next_request(
    deliverer: HttpDeliverer, *, together: bool
) -> None:
    stray = b"HTTP/1.1 500 Stray\r\nContent-Length: 0\r\n\r\n"
    answered = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(OK + stray if together else OK)
        if not together:
            await answered.wait()
            await call.send(stray)
        await call.is_left()

    async with playing(script) as partner, asyncio.timeout(PATIENCE):
        first = await deliverer.send(a_request(partner.port))
        answered.set()
        await partner.left.wait()
        second = await deliverer.send(a_request(partner.port))

    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert partner.connections == 2


@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
async def test_it_says_that_the_request_leaves_before_the_receiver_has_a_byte_of_it(
    deliverer: HttpDeliverer, *, kept: bool
) -> None:
    received_by_then: list[int] = []
    async with playing(answering(OK)) as partner:
        if kept:
            await deliverer.send(a_request(partner.port))
        before = len(partner.requests)

        await deliverer.send(
            a_request(partner.port), lambda: received_by_then.append(len(partner.requests) - before)
        )

        assert received_by_then == [0]
        assert len(partner.requests) - before == 1


async def test_a_request_that_cannot_be_written_leaves_no_connection_behind(deliverer: HttpDeliverer) -> None:
    left = asyncio.Event()
    async with playing(answering(OK)) as partner:
        with pytest.raises(ValueError, match="line break"):
            await deliverer.send(a_request(partner.port, headers=(("X-A", "1\nX-B: 2"),)), left.set)

    assert partner.connections == 0
    assert not left.is_set()


async def test_cancelling_ends_the_exchange_and_its_connection(deliverer: HttpDeliverer) -> None:
    received, left = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        received.set()
        await call.is_left()

    async with playing(script) as partner, asyncio.timeout(PATIENCE):
        sending = asyncio.create_task(deliverer.send(a_request(partner.port), left.set))
        await received.wait()
        sending.cancel()

        with pytest.raises(asyncio.CancelledError):
            await sending
        await partner.left.wait()
        assert left.is_set()
