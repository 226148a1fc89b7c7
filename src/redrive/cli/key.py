"""The keys that a database's secrets are sealed under: in a file, for whoever runs redrive."""

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from redrive.cli.database import DATABASE, Database, must_exist, name_of, on_this_machine, settings
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import Output, note, print_json, print_lines
from redrive.cli.tables import column, print_table

if TYPE_CHECKING:
    from redrive.config import Settings
    from redrive.delivery.sealing import Key

app = App(name="key", help_epilogue="Each command has its own --help, with an example.")
_ADVICE = "put the file back from where it is kept, or name it with REDRIVE_KEY_FILE"


@app.command(help_epilogue="Example: redrive key new > new.keys   (after umask 077: it is for its owner)")
def new() -> int:
    """Print a key for a new key file, to be handed to every process of a database; nothing is stored."""
    from redrive.delivery.sealing import format_keys, new_key

    print(format_keys([new_key()]), end="")
    return ExitCode.OK


@app.command(name="list", help_epilogue="Example: redrive key list")
def list_(*, database: Database = DATABASE, output: Output = "table") -> int:
    """List the keys of the key file, and which of them the database is sealed under. No key is shown."""
    chosen = settings(database=database)
    must_exist(chosen)
    keys = _keys(chosen)
    from redrive import app as wiring

    with on_this_machine():
        in_use = asyncio.run(wiring.key_in_use(chosen))
    rows = [{"key_id": key.id, "seals": at == 0, "in_use": key.id == in_use} for at, key in enumerate(keys)]
    match output:
        case "json":
            print_json({"key_file": str(chosen.key_path()), "keys": rows})
        case "jsonl":
            print_lines(rows)
        case _:
            opens = in_use is None or any(row["in_use"] for row in rows)
            shown = [
                {"key_id": row["key_id"], "use": _use(row) if opens else "opens nothing here"} for row in rows
            ]
            print_table([column("KEY", "key_id"), column("USE", "use")], shown)
    if in_use is not None and in_use not in {key.id for key in keys}:
        raise Stop(
            ExitCode.CONFLICT,
            f"{name_of(chosen)} is sealed under {in_use}, which is not in {chosen.key_path()}",
            _ADVICE,
        )
    return ExitCode.OK


@app.command(help_epilogue="Example: redrive key rotate")
def rotate(
    *,
    own_key: Annotated[
        bool, Parameter(help="Also give the database a new key of its own; see below.", negative=())
    ] = False,
    database: Database = DATABASE,
) -> int:
    """Seal the database under a new key, beside whoever runs on it.

    The new key is put in front of the key file; those before it stay, since older backups open with them.
    Run again after it was cut short, it ends what it began. Secrets are sealed under a key of the database's
    own, and that one under the file's: --own-key is for when both may have been stolen. Restart every process
    then: the first seals all secrets anew, and what another cannot open until it is restarted waits there.
    """
    chosen = settings(database=database)
    must_exist(chosen)
    _keys(chosen)
    from redrive import app as wiring

    with on_this_machine():
        made = asyncio.run(wiring.rotate_key(chosen, renews=own_key))
    if made is None:
        wrong = f"nothing is sealed in {name_of(chosen)} yet"
        raise Stop(
            ExitCode.CONFLICT,
            wrong,
            "`redrive serve` does it at its first start; then there is a key to rotate",
        )
    print(f"{name_of(chosen)} is sealed under {made} now, the first key of {chosen.key_path()}")
    note(
        "Keep a copy of that file, and give it to every process of this database before it starts again; "
        + ("restart all of them now." if own_key else "those that run need nothing.")
    )
    return ExitCode.OK


def _keys(chosen: "Settings") -> "list[Key]":
    from redrive.delivery.keyfile import read_keys
    from redrive.delivery.sealing import BadKeys

    try:
        found = read_keys(chosen.key_path())
    except BadKeys as error:
        raise Stop(ExitCode.UNAVAILABLE, str(error), _ADVICE) from error
    if found is None:
        raise Stop(ExitCode.NOT_FOUND, f"there is no key file at {chosen.key_path()}", _ADVICE)
    return found


def _use(row: "dict[str, object]") -> str:
    if row["in_use"]:
        return "the database is sealed under it"
    return "seals next: run `redrive key rotate`" if row["seals"] else "opens older backups"
