"""`redrive serve --workers N`: processes on one port, started again when they die, and buried at once."""

import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn

from redrive import app
from redrive.clock import SystemClock
from redrive.config import Settings
from redrive.server import CannotServe, listening
from redrive.store.port import StoreUnavailable
from redrive.telemetry.bus import Bus
from redrive.telemetry.events import ProcessDied
from redrive.telemetry.log import log_to

HEARD: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
AGAIN_SECONDS: Final = 1.0
RASH_SECONDS: Final = 10.0  # a process that dies before it is that old …
MOST_RASH: Final = 5  # … so often in a row is not worth another start
OK: Final = 0
UNAVAILABLE: Final = 8
CRASHED: Final = 70  # EX_SOFTWARE: a bug, told on standard error


def serve(settings: Settings) -> int:
    """Run `settings.workers` processes until told to stop; the exit code.

    Raises CannotServe when they die as soon as they are started.
    """
    app.check_role(settings)
    app.set_up(settings)  # once, not by all of them at once
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    with listening(settings.host, settings.port) as listener:
        if settings.metrics_port:
            for port in range(settings.metrics_port, settings.metrics_port + settings.workers):
                with listening(settings.host, port, option="REDRIVE_METRICS_PORT"):
                    pass  # it is free: said before any process is started
        return Fleet(settings, listener).run()


class Worker(NamedTuple):
    """One process: which of them it is (its metrics port follows from that), and when it was started."""

    place: int
    began: float


class Fleet:
    """The processes, by process id."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self.settings = settings
        self.listener = listener
        self.clock = SystemClock()
        self.announce = Bus()
        log_to(self.announce, level=settings.log_level, form=settings.log_format)
        self.started: dict[int, Worker] = {}
        self.codes: list[int] = []
        self.rash: deque[float] = deque(maxlen=MOST_RASH)
        self.is_stopping = self.has_given_up = False
        self.leash = os.pipe()  # the processes see its end when we are no more

    def run(self) -> int:
        """Start them all, and keep them going."""
        for place in range(self.settings.workers):
            self._start(place)
        while self.started or not self.is_stopping:
            lacking = set() if self.is_stopping else set(range(self.settings.workers)) - self._places()
            heard = signal.sigtimedwait(HEARD, AGAIN_SECONDS) if lacking else signal.sigwaitinfo(HEARD)
            if heard is None:
                self._start(min(lacking))
            elif heard.si_signo == signal.SIGCHLD:
                self._reap()
            else:
                self._stop(heard.si_signo)
        if self.has_given_up:
            raise CannotServe(
                f"gave up: {MOST_RASH} processes died within {RASH_SECONDS:g} s of their start;"
                " the lines above say how"
            )
        return max(self.codes, default=OK)

    def _places(self) -> set[int]:
        return {worker.place for worker in self.started.values()}

    def _start(self, place: int) -> None:
        if (pid := os.fork()) == 0:
            self._become_a_worker(place)
        self.started[pid] = Worker(place, self.clock.elapsed())

    def _become_a_worker(self, place: int) -> NoReturn:
        os.setpgid(0, 0)  # Ctrl-C on the terminal is for the parent, which passes it on once
        os.close(self.leash[1])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        port = self.settings.metrics_port
        own = replace(self.settings, metrics_port=port and port + place)
        _end_with(lambda: app.serve(own, self.listener, leash=self.leash[0]))

    def _reap(self) -> None:
        while self.started:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (dead := self.started.pop(pid, None)) is not None:
                self._mourn(pid, os.waitstatus_to_exitcode(status), self.clock.elapsed() - dead.began)

    def _mourn(self, pid: int, code: int, lived: float) -> None:
        """It is surely dead: what it had in hand is another's at once, and a new one takes its place."""
        if self.is_stopping or code == OK:
            self.codes.append(max(code, 0) or (OK if code == 0 else UNAVAILABLE))
        if code == OK:
            return
        self.announce(ProcessDied(pid, _how(code)))
        if os.fork() == 0:  # a process of its own, with which goes whatever connecting leaves behind
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            _end_with(lambda: app.bury(self.settings, pid))
        if lived < RASH_SECONDS:
            self.rash.append(self.clock.elapsed())
            if len(self.rash) == MOST_RASH and self.rash[-1] - self.rash[0] < MOST_RASH * RASH_SECONDS:
                self.has_given_up = True
                self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        """Pass it on: the first asks for a drain, the second stops at once."""
        self.is_stopping = True
        self.listener.close()  # or callers would wait in it for processes that take no more
        for pid in self.started:
            os.kill(pid, number)


def _end_with(run: Callable[[], None]) -> NoReturn:
    """End a forked process after *run*, and with nothing of what the parent meant to do."""
    code = CRASHED
    try:
        run()
        code = OK
    except (CannotServe, StoreUnavailable) as error:
        sys.stderr.write(f"redrive: {error}\n")
        code = UNAVAILABLE
    except BaseException:  # noqa: BLE001 - told as any program's last error is; nothing runs after it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    return f"it was ended by {signal.Signals(-code).name}"
