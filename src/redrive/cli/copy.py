"""From a SQLite file to PostgreSQL, when its users outgrow one machine."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from redrive.cli.bar import Bar
from redrive.cli.database import must_exist, name_of, on_this_machine, settings
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_json, print_lines
from redrive.cli.tables import column, print_table

if TYPE_CHECKING:
    from redrive.config import Settings


def copy(
    *,
    from_: Annotated[
        str, Parameter(name="--from", help="The SQLite database, like sqlite:////var/lib/redrive/redrive.db.")
    ],
    to: Annotated[
        str,
        Parameter(
            help=(
                "An empty PostgreSQL database, like postgresql://user@host/redrive;"
                " a password is best left to PGPASSWORD or ~/.pgpass."
            )
        ),
    ],
    output: Output = "table",
) -> int:
    source, target = _both(from_, to)
    must_exist(
        source, "--from takes the address of the file; with nothing to carry over, leave this step out"
    )
    from redrive import app
    from redrive.store.transfer import Occupied

    try:
        with on_this_machine(), Bar(output, 100) as bar:
            copied = app.copy(source, target, lambda what, share: bar.show(what, int(share * 100)))
    except Occupied as error:
        advice = "nothing was changed there: make a new database and copy to that"
        raise Stop(ExitCode.CONFLICT, str(error), advice) from error
    rows: list[dict[str, Any]] = [
        {
            "table": each.table,
            "rows": each.digest.rows,
            "bytes": each.digest.bytes,
            "digest": f"{each.digest.hash:064x}",
        }
        for each in copied
    ]
    match output:
        case "json":
            print_json({"tables": rows})
        case "jsonl":
            print_lines(rows)
        case _:
            print_table(
                [column("TABLE", "table"), column("ROWS", "rows", is_number=True)],
                [row for row in rows if row["rows"]],
            )
    note(
        f"All of it is in {name_of(target)} now, and was read back as it is in {name_of(source)}. Start"
        " `redrive serve` on the new one, and none on the file again: both would send what is open."
        f" Its secrets open with the same key file, {source.key_path()}: give it to every process."
    )
    return ExitCode.OK


def _both(from_: str, to: str) -> "tuple[Settings, Settings]":
    source = settings(options={"database": "--from"}, database=from_)
    target = settings(options={"database": "--to"}, database=to)
    is_from_file, is_to_file = source.sqlite_path() is not None, target.sqlite_path() is not None
    if is_to_file and not is_from_file:
        wrong = (
            "--from and --to are swapped: it copies from SQLite (sqlite:///…) to PostgreSQL (postgresql://…)"
        )
        raise Stop(ExitCode.USAGE, wrong, "swap them; there is no way back from PostgreSQL to a file")
    if not is_from_file:
        raise _misplaced("--from", "a SQLite database (sqlite:///…)")
    if is_to_file:
        raise _misplaced("--to", "a PostgreSQL database (postgresql://…)")
    return source, target


def _misplaced(option: str, wanted: str) -> Stop:
    return Stop(ExitCode.USAGE, f"{option} must be {wanted}", "`redrive copy --help` shows how it is used")
