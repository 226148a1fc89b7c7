"""Start and stop: whatever fails, everything that was opened is closed, and a person is told why."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
import uvicorn

from redrive import app
from redrive.config import Settings
from redrive.delivery.http import HttpDeliverer
from redrive.domain.proxy import Proxy
from redrive.engine.worker import Worker
from redrive.server import CannotServe, listening
from redrive.store import sqlite
from redrive.store.port import StoreInconsistent, StoreUnavailable
from redrive.store.sqlite.file import take_lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that `redrive migrate` made."""
    path = tmp_path / "redrive.db"
    app.migrate(Settings(database=f"sqlite:///{path}"))
    return path


@pytest.fixture
def settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("sys.setswitchinterval", lambda _: None)
    monkeypatch.setattr(app, "_collect_rarely", lambda: None)
    return Settings(database=f"sqlite:///{path}", port=0, log_format="json")


@pytest.fixture(autouse=True)
def nothing_is_left(path: Path) -> Iterator[None]:
    """No thread, no file, no socket, no lock, no incarnation and no handler of signals."""
    before = handles()
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("redrive")] == []
    assert handles() == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert sqlite.owner_of(path) is None
    assert by_hand(path, "SELECT count(*) FROM incarnation") == 0


async def fails(*_: object) -> None:
    raise ZeroDivisionError("a secret")


async def ends(*_: object) -> None:
    """As a server does that was told to stop."""


@pytest.mark.parametrize(
    ("main_loop", "told"), [(ends, ""), (fails, r" \(ZeroDivisionError\)")], ids=["in peace", "with an error"]
)
def test_a_server_that_ends_by_itself_ends_the_service_and_says_so(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main_loop: object,
    told: str,
) -> None:
    monkeypatch.setattr(uvicorn.Server, "main_loop", main_loop)

    with pytest.raises(CannotServe, match=f"^the service stopped: the HTTP server ended by itself{told}$"):
        app.serve(settings)

    log = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in log if line["event"] != "loop_failed"] == [
        "key_file_made", "started", "drain_started", "stopped",
    ]  # fmt: skip
    assert log[-1]["reason"].startswith("the HTTP server ended by itself")
    assert ("loop_failed" in [line["event"] for line in log]) is (main_loop is fails)


def test_everything_is_sent_through_the_proxy_of_the_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, given = Proxy("proxy.internal", 3128), list[Proxy | None]()

    class Noted(HttpDeliverer):
        def __init__(self, *collaborators: Any, proxy: Proxy | None) -> None:
            given.append(proxy)
            super().__init__(*collaborators, proxy=proxy)

    monkeypatch.setattr(app, "HttpDeliverer", Noted)
    monkeypatch.setattr(uvicorn.Server, "main_loop", ends)
    everything = replace(
        settings, egress_proxy=proxy, jwt_issuer="https://id.example", jwt_audience="redrive"
    )

    with pytest.raises(CannotServe):
        app.serve(everything)

    assert given == [proxy, proxy], "of deliveries, and of the provider's keys"


def test_a_service_says_whether_it_found_its_database_empty(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uvicorn.Server, "main_loop", ends)

    for _ in range(2):
        with pytest.raises(CannotServe):
            app.serve(replace(settings, database=f"sqlite:///{tmp_path}/another.db"))

    log = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["made_schema"] for line in log if line["event"] == "started"] == [True, False]


def test_the_server_of_the_metrics_counts_as_well(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    main_loop = uvicorn.Server.main_loop
    port = free_port()

    async def ends_where_metrics_are(server: uvicorn.Server) -> None:
        if server.servers[0].sockets[0].getsockname()[1] != port:
            await main_loop(server)

    monkeypatch.setattr(uvicorn.Server, "main_loop", ends_where_metrics_are)

    with pytest.raises(CannotServe, match="the HTTP server ended by itself"):
        app.serve(replace(settings, metrics_port=port))


def test_a_signal_ends_the_service_in_good_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_tick = uvicorn.Server.on_tick

    async def asks_to_stop(server: uvicorn.Server, counter: int) -> bool:
        if counter == 0:
            signal.raise_signal(signal.SIGTERM)
        return await on_tick(server, counter)

    monkeypatch.setattr(uvicorn.Server, "on_tick", asks_to_stop)

    app.serve(settings)

    assert json.loads(capsys.readouterr().err.splitlines()[-1])["reason"] == "SIGTERM"


def test_a_file_that_another_process_owns_is_told(settings: Settings, path: Path) -> None:
    lock = take_lock(path, "redrive serve")
    try:
        with pytest.raises(CannotServe, match=rf"in use by redrive serve, pid {os.getpid()}\b"):
            app.serve(settings)
    finally:
        os.close(lock)


def test_a_port_that_another_process_listens_on_meanwhile_is_told(settings: Settings) -> None:
    with socket.socket() as other, socket.socket() as ours:
        for one in (other, ours):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        ours.bind(other.getsockname())
        other.listen()

        with pytest.raises(
            CannotServe, match=r"cannot listen on 127\.0\.0\.1:\d+ \(Address already in use\)"
        ):
            app.serve(settings, ours)


def test_an_address_of_another_machine_is_told_as_that() -> None:
    expected = pytest.raises(CannotServe, match=r"choose another --host: this machine has no such address")
    with expected, listening("192.0.2.1", 0):
        pass


DAMAGES = {
    "an integration that makes no sense": (
        "INSERT INTO integration (integration_id, lifecycle, version, config) VALUES ('a', 'active', 1, '{')",
        StoreInconsistent,
    ),
    "a newer schema": ("INSERT INTO migration VALUES (9999, 'later', 'x', 0)", StoreUnavailable),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_start_on_what_makes_no_sense_is_refused(settings: Settings, path: Path, damage: str) -> None:
    sql, error = DAMAGES[damage]
    by_hand(path, sql)

    with pytest.raises(error):
        app.serve(settings)


def test_a_bug_at_the_start_is_not_swallowed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "adopt", fails)

    with pytest.raises(ZeroDivisionError):
        app.serve(settings)


def test_an_interrupt_at_the_start_ends_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_for_ever(_: Worker) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(Worker, "adopt", takes_for_ever)

    with pytest.raises(KeyboardInterrupt):
        app.serve(settings)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def handles() -> list[str]:
    """Open files and sockets. Not pipes: libuv keeps the one it hears signals through."""
    links = []
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            links.append(str(handle.readlink()))
    return sorted(link for link in links if not link.startswith("pipe:"))


def by_hand(path: Path, sql: str) -> object:
    with closing(apsw.Connection(str(path))) as connection:
        return connection.execute(sql).get
