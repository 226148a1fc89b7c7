"""A SQLite database as a backup file, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from redrive.cli.bar import Bar
from redrive.cli.database import DATABASE, Database, must_exist, name_of, on_this_machine, settings
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.inert import inert
from redrive.cli.output import note

if TYPE_CHECKING:
    from redrive.config import Settings


def backup(
    file: Annotated[Path, Parameter(help="The backup to make.")],
    /,
    *,
    force: Annotated[bool, Parameter(help="Replace FILE when it exists.", negative=())] = False,
    database: Database = DATABASE,
) -> int:
    chosen = _of_sqlite(database)
    must_exist(chosen)
    from redrive import app
    from redrive.store.transfer import Occupied

    try:
        with on_this_machine(), Bar("table", 100) as bar:
            app.back_up(chosen, file, lambda what, share: bar.show(what, int(share * 100)), replaces=force)
    except Occupied as error:
        raise Stop(ExitCode.CONFLICT, str(error), "choose another name; --force replaces a backup") from error
    print(inert(f"backed up {name_of(chosen)} to {file.absolute()} ({file.stat().st_size} bytes, checked)"))
    if chosen.key_path().exists():
        note(f"Its secrets open with {chosen.key_path()} alone: keep a copy of that, too, in another place.")
    return ExitCode.OK


def restore(
    file: Annotated[Path, Parameter(help="The backup to put back; it stays where it is.")],
    /,
    *,
    database: Database = DATABASE,
) -> int:
    chosen = _of_sqlite(database)
    with on_this_machine():
        is_there = file.exists()
    if not is_there:
        raise Stop(ExitCode.NOT_FOUND, f"there is no {file.absolute()}", "`redrive backup` makes a backup")
    from redrive import app
    from redrive.store.transfer import Occupied

    try:
        with on_this_machine(), Bar("table", 100) as bar:
            aside = app.restore(chosen, file, lambda what, share: bar.show(what, int(share * 100)))
    except Occupied as error:
        raise Stop(ExitCode.CONFLICT, str(error), "give the backup, or another --database") from error
    print(inert(f"restored {name_of(chosen)} from {file.absolute()}"))
    if aside is not None:
        print(inert(f"kept what was there as {aside}"))
    note(f"Its secrets open with the key file of that time, as {chosen.key_path()}; `redrive doctor` looks.")
    note(
        "What was being sent when the backup was made is recorded as LEASE_EXPIRED once `redrive serve` runs."
    )
    return ExitCode.OK


def _of_sqlite(database: str | None) -> "Settings":
    chosen = settings(database=database)
    if chosen.sqlite_path() is None:
        wrong = (
            "this is for SQLite; a PostgreSQL database is backed up and restored with PostgreSQL's own tools"
        )
        raise Stop(
            ExitCode.USAGE, wrong, "pg_basebackup or pg_dump; docs/guides/scale-out.md says what to mind"
        )
    return chosen
