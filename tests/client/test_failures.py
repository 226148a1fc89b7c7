"""What a caller learns when there is no answer, and what is sent again."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from redrive.client import Client, ProblemError, ServiceUnreachable
from tests.client.peer import Canned, Peer, closed_port

KEYED = [{"event_type": "t", "payload": 1, "idempotency_key": "k"}]
MIXED = [*KEYED, {"event_type": "t", "payload": 2}]


def test_a_problem_tells_all_it_knows(peer: Peer, client: Client) -> None:
    errors = [{"pointer": "/reason", "detail": "must not be blank"}]
    peer.problem(400, "INT-400-INVALID-PAYLOAD", "no", errors=errors, retryable=False)

    with pytest.raises(ProblemError) as caught:
        client.replay("b", "rec_1", " ")

    problem = caught.value
    assert (problem.status, problem.error_code, problem.detail) == (400, "INT-400-INVALID-PAYLOAD", "no")
    assert (problem.request_id, problem.errors, problem.retryable) == ("req-of-the-peer", errors, False)
    assert problem.problem["title"] == "No"


def test_an_error_of_something_in_between_is_a_problem_too(peer: Peer, client: Client) -> None:
    peer.answers.append(Canned(502, b"<html>Bad Gateway", {"X-Request-Id": "r-1", "Retry-After": "7"}))

    with pytest.raises(ProblemError) as caught:
        client.health()

    assert caught.value.error_code is None
    assert caught.value.retryable
    assert caught.value.request_id == "r-1"
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("body", [b"<html>hello", b"[]", b"", b"[" * 100_000])
def test_a_2xx_of_something_else_is_no_answer(peer: Peer, client: Client, body: bytes) -> None:
    peer.answers.append(Canned(200, body))

    with pytest.raises(ServiceUnreachable, match="not a redrive service"):
        client.health()


def test_nobody_listening_is_unreachable_and_nothing_was_sent() -> None:
    with Client(f"http://127.0.0.1:{closed_port()}") as client, pytest.raises(ServiceUnreachable) as caught:
        client.health()

    assert not caught.value.maybe_sent
    assert "Connection refused" in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.health(),
        lambda c: c.replay("b", "rec_1", "why", idempotency_key="k"),
        lambda c: c.deliver("b", event_type="t", payload=1, idempotency_key="k"),
        lambda c: c.deliver_batch("b", KEYED),
    ],
)
def test_what_is_harmless_is_sent_once_more_when_its_connection_was_lost(
    peer: Peer, client: Client, call: Callable[[Client], Any]
) -> None:
    peer.answers += [Canned(hangs_up=True), Canned(200, b'{"n":1}')]

    assert call(client) == {"n": 1}

    first, second = peer.received
    assert (first.body, first.headers) == (second.body, second.headers)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.replay("b", "rec_1", "why"),
        lambda c: c.deliver("b", event_type="t", payload=1),
        lambda c: c.deliver_batch("b", MIXED),
        lambda c: c.update_integration("b", name="n"),
    ],
)
def test_what_may_have_an_effect_is_never_sent_twice(
    peer: Peer, client: Client, call: Callable[[Client], Any]
) -> None:
    peer.answers.append(Canned(hangs_up=True))

    with pytest.raises(ServiceUnreachable) as caught:
        call(client)

    assert caught.value.maybe_sent
    assert len(peer.received) == 1


def test_it_is_sent_again_only_once(peer: Peer, client: Client) -> None:
    peer.answers += [Canned(hangs_up=True)] * 3

    with pytest.raises(ServiceUnreachable) as caught:
        client.health()

    assert len(peer.received) == 2
    assert not caught.value.maybe_sent  # it reads: there is no effect to look for


def test_a_timeout_is_not_followed_by_a_second_sending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(ServiceUnreachable, match=r"within 0\.2 s"):
            client.health()

        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_calls_share_a_connection(peer: Peer, client: Client) -> None:
    client.health()
    client.ready()

    assert len({request.connection for request in peer.received}) == 1


def test_a_post_takes_a_new_connection_when_the_idle_one_was_closed(peer: Peer, client: Client) -> None:
    peer.answers.append(Canned(closes=True))
    client.health()
    [idle] = client._transport._idle
    assert idle.sock is not None
    idle.sock.recv(1, socket.MSG_PEEK)  # waits until the peer's end has arrived

    client.replay("b", "rec_1", "why")

    assert [request.method for request in peer.received] == ["GET", "POST"]


def test_threads_may_share_a_client(peer: Peer, client: Client) -> None:
    threads = [threading.Thread(target=client.item, args=("b", f"rec_{n}")) for n in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {request.path.rpartition("/")[2] for request in peer.received} == {f"rec_{n}" for n in range(8)}


def test_importing_the_client_imports_nothing_else_of_ours() -> None:
    code = "import sys, redrive.client; print(*sorted(n for n in sys.modules if n.startswith('redrive')))"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert all(name == "redrive" or name.startswith("redrive.client") for name in run.stdout.split())
