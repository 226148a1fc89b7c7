"""Commands of the machine redrive runs on: serve, demo, migrate, doctor."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from redrive.cli.database import DATABASE, Database, name_of, on_this_machine, settings
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.inert import inert
from redrive.cli.output import Output, print_json, print_lines
from redrive.cli.tables import Fit, column, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def serve(
    *,
    database: Database = DATABASE,
    role: Annotated[
        str | None,
        Parameter(help="What it does: answer calls (api), send (worker), or all. [default: all]"),
    ] = None,
    workers: Annotated[
        str | None,
        Parameter(help="How many processes to start; more than one needs PostgreSQL. [default: 1]"),
    ] = None,
    host: Annotated[str | None, Parameter(help="The address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[str | None, Parameter(help="The port to listen on. [default: 8080]")] = None,
    data_dir: Annotated[
        str | None, Parameter(help="The directory for redrive's own files. [default: redrive-data]")
    ] = None,
) -> int:
    chosen = settings(database=database, role=role, workers=workers, host=host, port=port, data_dir=data_dir)
    from redrive import app, supervisor
    from redrive.server import CannotServe

    try:
        with on_this_machine():
            if chosen.workers > 1:
                return supervisor.serve(chosen)
            app.serve(chosen)
    except CannotServe as error:
        advice = f"`redrive doctor --host {chosen.host} --port {chosen.port}` says more"
        if chosen.sqlite_path() is not None:
            with suppress(OSError):  # of a lock that cannot be read, which the doctor tells
                if (owner := app.owner(chosen)) is not None:
                    advice = f"{owner}, runs on this database already: is it the one you want?"
        raise Stop(ExitCode.UNAVAILABLE, str(error), advice) from error
    return ExitCode.OK


def demo(
    *,
    port: Annotated[
        int | None, Parameter(help="The port of its service. [default: a free one near 8080]")
    ] = None,
    data_dir: Annotated[
        Path | None, Parameter(help="Keep its files here. [default: they go with the demo]")
    ] = None,
    once: Annotated[bool, Parameter(help="End when the story is told.", negative=())] = False,
) -> int:
    from redrive import demo as play

    if data_dir is not None and not data_dir.name:
        wrong = f"--data-dir: {str(data_dir)!r} names no directory of its own"
        raise Stop(ExitCode.USAGE, wrong, "name one, or leave it out: then its files go with the demo")
    return play.run(port=port, data_dir=data_dir, once=once)


def migrate(*, database: Database = DATABASE) -> int:
    chosen = settings(database=database)
    from redrive import app

    with on_this_machine():
        applied = app.migrate(chosen)
    name = name_of(chosen)
    for step in applied:
        print(inert(f"applied {step} to {name}"))
    if not applied:
        print(inert(f"nothing to do: {name} is at this version"))
    return ExitCode.OK


def doctor(
    *,
    database: Database = DATABASE,
    host: Annotated[
        str | None, Parameter(help="The address `serve` is to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[str | None, Parameter(help="The port `serve` is to listen on. [default: 8080]")] = None,
    output: Output = "table",
) -> int:
    chosen = settings(database=database, host=host, port=port)
    from redrive.doctor import examine

    with on_this_machine():
        findings = examine(chosen)
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
                [column("STATE", "state"), column("CHECK", "name"), column("DETAIL", "detail", fit=Fit.WRAP)],
                shown,
            )
    return ExitCode.OK if all(finding.ok for finding in findings) else ExitCode.FAILURES
