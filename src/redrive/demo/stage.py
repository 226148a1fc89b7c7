"""The stage: a real `redrive serve` as a process of its own, a token for it, and a client."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar
from urllib.request import urlopen

from redrive.client import Client, ServiceUnreachable

_USUAL_PORT = 8080
_TRIES = 5
_MARK = "redrive-demo"  # stands in a directory whose database a demo made
_REASON = "redrive: "  # how a command that cannot go on begins
_START_SECONDS = 20.0
_STOP_SECONDS = 15.0
_SETTINGS = {
    "REDRIVE_HOST": "127.0.0.1",
    "REDRIVE_ALLOW_TARGETS": "127.0.0.1/32",  # where the partners are
    "REDRIVE_ALLOW_HTTP": "true",
    "REDRIVE_DRAIN_SECONDS": "5",
    "REDRIVE_LOG_FORMAT": "json",
}
Given = ParamSpec("Given")
Result = TypeVar("Result")


class CannotPlay(Exception):
    """The demo cannot go on; the message says why, and `advice` what to do."""

    def __init__(self, why: str, advice: str = "run it again; with --data-dir its log is kept") -> None:
        super().__init__(why)
        self.advice = advice


class Stage:
    """Starts the service, and stops it whatever happens. `url` and `token` are for whoever wants to look."""

    def __init__(self, port: int | None, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.url = ""
        self.token = ""
        self.client = Client("http://127.0.0.1")
        self.log = self.data_dir / f"serve-{os.getpid()}.log"  # another demo may be at work here
        self._port = port
        self._service: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except OSError as error:
            await self._stop()
            advice = "check --data-dir and who may write there, or leave it out"
            raise CannotPlay(f"cannot use {self.data_dir}: {error.strerror}", advice) from error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        await self._stop()

    async def ask(self, call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        """What *call*, a method of `client`, answers."""
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except ServiceUnreachable as error:
            raise CannotPlay(f"the service is gone ({error}); its log is {self.log}") from error

    async def metrics(self) -> str:
        """The text a scraper reads."""

        def scrape() -> str:
            with urlopen(f"{self.url}/metrics", timeout=10) as answer:  # noqa: S310 - our own service
                text: bytes = answer.read()
                return text.decode()

        try:
            return await asyncio.to_thread(scrape)
        except OSError as error:
            raise CannotPlay(f"the service is gone ({error}); its log is {self.log}") from error

    async def _begin(self) -> None:
        self._make_room()
        why = "no port is free"
        ports = [self._port] if self._port else islice(_free_ports(), _TRIES)
        for port in ports:  # one that was free may be taken by the time the service gets there
            if (address := await self._serve(port)) is not None:
                break
            why = self._last_words()
            if not why.startswith("cannot listen"):
                advice = "choose another --data-dir, or leave it out"
                raise CannotPlay(f"the service did not start: {why}", advice)
        else:
            advice = "choose another --port, or leave it out: then a free one is taken"
            raise CannotPlay(f"the service did not start: {why}", advice)
        self.url = f"http://{address}"
        self.token = await self._make_token()
        self.client = Client(self.url, self.token)

    def _make_room(self) -> None:
        """A directory of our own: never a database that somebody works with."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        mark = self.data_dir / _MARK
        if (self.data_dir / "redrive.db").exists() and not mark.exists():
            wrong = f"{self.data_dir} holds a database that no demo made"
            raise CannotPlay(wrong, "choose another --data-dir, or leave it out")
        mark.touch()

    async def _serve(self, port: int) -> str | None:
        """Start the service; the address it says it has, or None when it ended instead."""
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo, and the demo alone stops the service.
            self._service = await self._redrive(
                "serve", "--port", str(port), output=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while self._service.returncode is None:
                    if (address := _address_in(self._said())) is not None:
                        return address
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise CannotPlay(f"the service is not ready after {_START_SECONDS:g} s") from None
        return None

    async def _make_token(self) -> str:
        words = "token create --subject demo --expires-in 1d"
        words += " --permission view --permission operate --permission deliver"
        process = await self._redrive(*words.split(), output=asyncio.subprocess.PIPE)
        printed, said = await process.communicate()
        if process.returncode != 0:
            raise CannotPlay(f"no token could be made: {said.decode(errors='replace').strip()}")
        return printed.decode().strip()

    async def _redrive(self, *words: str, output: Any, **more: Any) -> asyncio.subprocess.Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REDRIVE_")}
        ours = _SETTINGS | {"REDRIVE_DATA_DIR": str(self.data_dir)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "redrive", *words,
            cwd=self.data_dir,  # whoever's redrive.toml lies where the demo was called is not meant
            env=kept | ours,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **more,
        )  # fmt: skip

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def _last_words(self) -> str:
        lines = self._said().strip().splitlines()
        reasons = [line.removeprefix(_REASON) for line in lines if line.startswith(_REASON)]
        return (reasons or lines or ["it said nothing"])[-1]

    async def _stop(self) -> None:
        if self._service is None or self._service.returncode is not None:
            return
        self._service.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._service.wait()
        except TimeoutError:
            self._service.kill()
            await self._service.wait()


def _free_ports() -> Iterator[int]:
    """The usual one and those near it that are free, else any."""
    for port in (*range(_USUAL_PORT, _USUAL_PORT + 20), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
        yield found


def _address_in(log: str) -> str | None:
    """Where a service listens that says in its log that it started."""
    *whole, _ = log.split("\n")  # what it is just writing ends without a line's end
    for line in whole:
        if line.startswith("{") and (said := json.loads(line))["event"] == "started":
            address: str = said["address"]
            return address
    return None
