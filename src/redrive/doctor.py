"""`redrive doctor`: what settings, database and machine have to say of whether redrive can run here."""

import asyncio
import http.client
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from redrive import app
from redrive.config import Settings
from redrive.server import CannotServe, listening
from redrive.store.port import StoreInconsistent, StoreUnavailable

FILES_BESIDE_SLOTS = 256  # connections of callers, the database's own, and whatever Python has open
_SERVICE = "redrive serve"  # how one that holds the file signs its lock


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing."""

    name: str
    ok: bool
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything without changing anything."""
    app.check_role(settings)
    path = settings.sqlite_path()
    if path is None:
        found = [*_server(settings), _port(settings, holder=None)]
    else:
        database = _file(settings, path.absolute())
        service, holder = _service(settings) if database[-1].ok else ([], None)
        found = [*database, *service, _port(settings, holder=holder)]
    about = [Finding("role", True, settings.role), *found, *_keys(settings, found)]
    return [*about, *_proxy(settings), _open_files(settings)]


def _server(settings: Settings) -> list[Finding]:
    try:
        remarks = [Finding(*remark) for remark in app.check_up(settings)]
    except StoreUnavailable as error:
        return [_unavailable(error)]
    return [Finding("database", True, settings.database_address()), *remarks]


def _file(settings: Settings, path: Path) -> list[Finding]:
    """The database; the last finding says whether it can be used."""
    try:
        app.must_have_a_place(settings)
    except StoreUnavailable as error:
        return [_unavailable(error)]
    if not path.exists():
        advice = "is this the directory that `redrive serve` runs in? (it makes one when it starts)"
        return [Finding("database", False, f"there is no database at {path}; {advice}")]
    if not path.stat().st_size:
        advice = "`redrive serve` makes a database of it, and `redrive restore` puts back a backup"
        return [Finding("database", False, f"{path} is an empty file; {advice}")]

    async def version() -> str:
        async with app.open_store(settings) as store:
            await store.integrations()  # whoever starts reads them first of all
            return str(store.describe()["version"])

    try:
        return [Finding("SQLite", True, asyncio.run(version())), Finding("database", True, str(path))]
    except StoreUnavailable as error:
        return [_unavailable(error)]
    except StoreInconsistent as error:
        return [Finding("database", False, f"{error}; put back a backup, or report this as a bug")]


def _unavailable(error: StoreUnavailable) -> Finding:
    advice = f"; {error.advice}" if error.advice else ""
    return Finding("database", False, f"{error}{advice}")


def _service(settings: Settings) -> tuple[list[Finding], str | None]:
    """Whether a service runs on the file; and who holds it, as `_port` wants it."""
    try:
        holder = app.owner(settings) or ""
    except OSError as error:
        return [Finding("service", False, f"cannot read {error.filename}: {error.strerror}")], None
    if not holder:
        told = "none runs on this database"
    elif holder.startswith(_SERVICE):
        told = f"runs on this database ({holder})"
    else:
        told = f"none runs on this database; {holder}, works on it"
    return [Finding("service", True, told)], holder


def _port(settings: Settings, *, holder: str | None) -> Finding:
    """*holder*: who holds the database, empty when nobody does; None when that is not known."""
    where = f"{settings.host}:{settings.port}"
    runs = holder is not None and holder.startswith(_SERVICE)
    try:
        with listening(settings.host, settings.port):
            elsewhere = "; the service that runs listens on another, or is stopping" if runs else ""
            return Finding("port", True, f"{where} is free{elsewhere}")
    except CannotServe as error:
        if not _is_redrive(settings.host, settings.port):
            return Finding("port", False, str(error))
    if holder is None or runs:
        perhaps = ", perhaps on another database" if runs else ""
        return Finding("port", True, f"{where} is answered by a redrive service{perhaps}")
    advice = "stop it, or choose another --port"
    return Finding("port", False, f"{where} is taken by a redrive service on another database; {advice}")


def _is_redrive(host: str, port: int) -> bool:
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - told apart, not listened on
    connection = http.client.HTTPConnection(anywhere.get(host, host), port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(1024).startswith(b'{"status":"ok"')
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _keys(settings: Settings, found: list[Finding]) -> list[Finding]:
    """Whether the key file opens the secrets of a database that can be used."""
    if not any(finding.name == "database" and finding.ok for finding in found):
        return []
    try:
        return [Finding("keys", *app.check_keys(settings))]
    except StoreUnavailable as error:
        return [Finding("keys", False, f"{error}; {error.advice}" if error.advice else str(error))]
    except OSError as error:
        return [Finding("keys", False, f"{settings.key_path()} cannot be used: {error.strerror}")]


def _proxy(settings: Settings) -> list[Finding]:
    """Whether the forward proxy, if there is one, takes connections."""
    proxy = settings.egress_proxy
    if proxy is None:
        return []
    try:
        socket.create_connection((proxy.host, proxy.port), timeout=2).close()
    except OSError as error:
        return [Finding("egress proxy", False, f"{proxy} cannot be reached: {error.strerror or error}")]
    return [Finding("egress proxy", True, f"{proxy} takes connections")]


def _open_files(settings: Settings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.slots + FILES_BESIDE_SLOTS
    enough = hard == resource.RLIM_INFINITY or hard >= needed
    advice = "" if enough else f"; {needed} are needed for {settings.slots} slots: raise `ulimit -n`"
    return Finding("open files", enough, f"{soft} now, up to {hard}{advice}")
