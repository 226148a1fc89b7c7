"""Evidence files, made by a service and verified anywhere; and the audit records of a database, in it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from cyclopts import Parameter

from redrive.cli.bar import Bar
from redrive.cli.database import DATABASE, Database, must_exist, name_of, on_this_machine, settings
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_json
from redrive.cli.service import HERE, Service, calling
from redrive.cli.tables import Column, Fit, column, print_table
from redrive.cli.values import counted, moment, unreadable

if TYPE_CHECKING:
    from redrive.audit.bundle import Reader
    from redrive.audit.chain import Finding

AT_ONCE: Final = 1_000  # findings in a table
_COLUMNS: Final = [
    column("FOUND", "finding"),
    column("WHERE", "target_id"),
    column("RECORD", "event_id", worth=1),
    Column("DETAIL", lambda row: row.get("detail"), fit=Fit.WRAP),
]


def export(
    *,
    incident: Annotated[
        str | None, Parameter(help="All that was done under the name of an incident.")
    ] = None,
    integration: Annotated[
        str | None, Parameter(name=("--integration", "--integration-id"), help="All of one integration.")
    ] = None,
    request_id: Annotated[str | None, Parameter(help="All that one call touched.")] = None,
    recovery_id: Annotated[str | None, Parameter(help="One item of --integration, alone.")] = None,
    since: Annotated[
        str | None, Parameter(help="From this instant on (RFC 3339, or 2h: two hours ago).")
    ] = None,
    until: Annotated[str | None, Parameter(help="Before this instant.")] = None,
    out: Annotated[Path, Parameter(help="The file to make.")],
    force: Annotated[bool, Parameter(help="Replace FILE when it exists.", negative=())] = False,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    cut = {"incident": incident, "integration_id": integration, "request_id": request_id}
    _one_of(cut, recovery_id, has_window=since is not None or until is not None)
    if not force and out.exists():
        raise Stop(ExitCode.CONFLICT, f"{out} exists", "choose another name; --force replaces it")
    verified = Verified(str(out))
    with calling(service) as client, Bar(output) as bar, _written(out) as write:
        if recovery_id is None:
            window = {"since": moment(since, "--since"), "until": moment(until, "--until")}
            pieces = client.audit_export(**cut, **window)
        else:
            pieces = client.evidence(str(integration), recovery_id)
        verified.read(_lines(write(piece) for piece in pieces), bar)
        verified.must_be_whole(out)
        if integration is None:
            verified.must_hold(f"incident {incident}" if incident is not None else f"request id {request_id}")
    note(f"wrote {out}")
    return verified.tell(output)


def verify(
    file: Annotated[Path | None, Parameter(help="An evidence file.")] = None,
    /,
    *,
    live: Annotated[bool, Parameter(help="Verify the records of the database instead.", negative=())] = False,
    database: Database = DATABASE,
    output: Output = "table",
) -> int:
    if live == (file is not None):
        raise Stop(ExitCode.USAGE, "give a FILE, or --live", "`redrive audit verify --help` shows both")
    if file is None:
        return _verify_live(database, output)
    if database is not None:
        raise Stop(ExitCode.USAGE, "--database goes with --live", "a file is verified by itself")
    verified = Verified(str(file))
    try:
        with file.open("rb") as lines, Bar(output) as bar:
            verified.read(lines, bar)
    except OSError as error:
        raise unreadable(str(file), error) from error
    return verified.tell(output)


@dataclass(slots=True)
class Verified:
    """What was found, in what, and how much of it there was."""

    name: str
    items: int = 0
    records: int = 0
    cut: int = 0
    is_whole: bool = False
    digest: Any = field(default_factory=hashlib.sha256)
    findings: "list[Finding]" = field(default_factory=list)

    def read(self, lines: Iterable[bytes], bar: Bar) -> Self:
        """Read an evidence file from front to back, a line at a time."""
        from redrive.audit.bundle import NoBundle, Reader

        reader = Reader()
        try:
            for count, line in enumerate(lines, 1):
                self.digest.update(line)
                self.findings += reader.take(line)
                if count % AT_ONCE == 0:
                    bar.show(f"{count} lines")
        except NoBundle as error:
            advice = "`redrive audit export` makes one"
            raise Stop(ExitCode.USAGE, f"{self.name}: {error}", advice) from error
        self._end(reader)
        return self

    def _end(self, reader: "Reader") -> None:
        if not reader.lines:
            raise Stop(ExitCode.USAGE, f"{self.name} is empty", "`redrive audit export` makes evidence files")
        self.findings += reader.end()
        self.items, self.records, self.is_whole = reader.items, reader.records, reader.has_ended

    def must_be_whole(self, out: Path) -> None:
        """End the command when what came has no end: it is not evidence of anything then."""
        if not self.is_whole:
            wrong = f"the service stopped in the middle of {out}"
            raise Stop(ExitCode.UNAVAILABLE, wrong, "see its log for the reason, and run the command again")

    def must_hold(self, what: str) -> None:
        """End the command when there is nothing in it: *what* was asked for is then no name of anything."""
        if not self.items and not self.records:
            advice = "`redrive audit list` shows what was done; no file was made"
            raise Stop(ExitCode.NOT_FOUND, f"no record names the {what}", advice)

    def tell(self, output: Output) -> int:
        """Print what was found, and answer the exit code it stands for."""
        rows = [
            {
                "finding": one.kind.value,
                "target_id": one.target_id,
                "event_id": one.event_id,
                "detail": one.detail,
            }
            for one in self.findings
        ]
        told = {"verified": self.name, "items": self.items, "records": self.records}
        match output:
            case "json":
                print_json(told | {"sha256": self.digest.hexdigest(), "findings": rows})
            case "jsonl":
                for row in rows:
                    print_json(row)
            case _:
                for at in range(0, len(rows), AT_ONCE):
                    print_table(_COLUMNS, rows[at : at + AT_ONCE])
        note(self.verdict())
        return ExitCode.FAILURES if rows else ExitCode.OK

    def verdict(self) -> str:
        """Whether it is as it was written, in a line."""
        extent = f"{counted(self.items, 'item')}, {counted(self.records, 'record')}"
        if not self.findings:
            return f"intact: {self.name}: {extent}"
        return f"NOT intact: {self.name}: {counted(len(self.findings), 'finding')} in {extent}"


def _verify_live(database: str | None, output: Output) -> int:
    chosen = settings(database=database)
    must_exist(chosen)
    from redrive import app
    from redrive.engine.verifying import Tally, verify

    tally, found = Tally(), list[Any]()

    async def look(bar: Bar) -> None:
        async with app.open_store(chosen) as store:
            findings: AsyncIterator[Finding] = verify(store, tally, bar.show)
            async for finding in findings:
                found.append(finding)

    with on_this_machine(), Bar(output) as bar:
        asyncio.run(look(bar))
    verified = Verified(name_of(chosen), tally.items, tally.records, tally.cut, findings=found)
    code = verified.tell(output)
    if tally.cut:
        begin = "begins" if tally.cut == 1 else "begin"
        note(f"{counted(tally.cut, 'chain')} {begin} after what retention forgot.")
    if tally.bare:
        note(f"{counted(tally.bare, 'record')} without a digest: of a version without chains, or forged.")
    return code


def _one_of(cut: dict[str, str | None], recovery_id: str | None, *, has_window: bool) -> None:
    given = [name for name, value in cut.items() if value is not None]
    if len(given) != 1:
        wrong = "give one of --incident, --integration and --request-id"
        raise Stop(ExitCode.USAGE, wrong, "`redrive audit export --help` shows what each holds")
    if recovery_id is not None and (given != ["integration_id"] or has_window):
        wrong = "--recovery-id names an item of --integration, whole"
        raise Stop(ExitCode.USAGE, wrong, "give --integration and --recovery-id, and no instants")


@contextmanager
def _written(out: Path) -> Iterator[Any]:
    """Write beside *out* first: what is under that name is whole."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:

            def write(piece: bytes) -> bytes:
                file.write(piece)
                return piece

            yield write
            file.flush()
            os.fsync(file.fileno())
        part.replace(out)
    except OSError as error:
        advice = "choose another --out, or make room"
        raise Stop(ExitCode.UNAVAILABLE, f"cannot write {out}: {error.strerror}", advice) from error
    finally:
        part.unlink(missing_ok=True)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that pieces are made of, each with its break."""
    held = b""
    for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if held:
        yield held
