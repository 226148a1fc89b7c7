"""Commands of the machine redrive runs on: serve, demo, migrate, doctor."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from redrive.cli.database import DATABASE, Database, settings
from redrive.cli.errors import ExitCode
from redrive.cli.output import Output, print_json, print_lines
from redrive.cli.tables import column, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def serve(
    *,
    database: Database = DATABASE,
    role: Annotated[str | None, Parameter(help="all, api or worker. [default: all]")] = None,
    host: Annotated[str | None, Parameter(help="The address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[str | None, Parameter(help="The port to listen on. [default: 8080]")] = None,
    data_dir: Annotated[
        str | None, Parameter(help="The directory for redrive's own files. [default: redrive-data]")
    ] = None,
) -> int:
    chosen = settings(database=database, role=role, host=host, port=port, data_dir=data_dir)
    from redrive import app

    return app.serve(chosen)


def demo() -> int:
    from redrive import demo as play

    return play.run()


def migrate(*, database: Database = DATABASE) -> int:
    chosen = settings(database=database)
    from redrive import app

    for sentence in app.migrate(chosen) or ["nothing to do: the database is at this version"]:
        print(sentence)
    return ExitCode.OK


def doctor(*, database: Database = DATABASE, output: Output = "table") -> int:
    chosen = settings(database=database)
    from redrive import app

    findings = app.doctor(chosen)
    rows: list[Mapping[str, object]] = [
        {"name": finding.name, "ok": finding.ok, "detail": finding.detail} for finding in findings
    ]
    match output:
        case "json":
            print_json({"findings": rows})
        case "jsonl":
            print_lines(rows)
        case _:
            shown = [{**row, "state": "ok" if row["ok"] else "failed"} for row in rows]
            print_table(
                [column("STATE", "state"), column("CHECK", "name"), column("DETAIL", "detail")], shown
            )
    return ExitCode.OK if all(finding.ok for finding in findings) else ExitCode.FAILURES
