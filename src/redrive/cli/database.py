"""Commands that work on the database: which one, and what its refusals mean here."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.output import note

if TYPE_CHECKING:
    from redrive.config import Settings
    from redrive.store.port import Store

Database = Annotated[
    str | None,
    Parameter(
        help=(
            "sqlite:///path.db or postgresql://user@host/database"
            " [default: REDRIVE_DATABASE, else a file of its own]"
        )
    ),
]
DATABASE: Final[str | None] = None
Answer = TypeVar("Answer")
_LED_ELSEWHERE: Final = (
    "is this the directory that `redrive serve` runs in? --database and REDRIVE_DATA_DIR lead there"
)


def settings(*, options: Mapping[str, str] = {}, **overrides: str | None) -> "Settings":
    """The settings, with what the command line says; ends the command when something is wrong with them.

    *options*: how this command calls a setting, when that is not the setting's own name.
    """
    from redrive.config import load

    with on_this_machine():
        return load(overrides, options=options)


def name_of(chosen: "Settings") -> str:
    """The database that was chosen, as a person may read it: a file from the root on, or an address."""
    path = chosen.sqlite_path()
    return chosen.database_address() if path is None else str(path.absolute())


def must_exist(chosen: "Settings", advice: str = _LED_ELSEWHERE) -> None:
    """End the command when the SQLite file that was chosen is not there, or cannot be."""
    if is_missing(chosen):
        from redrive import app

        with on_this_machine():
            app.must_have_a_place(chosen)
        raise Stop(ExitCode.NOT_FOUND, f"there is no database at {name_of(chosen)}", advice)


def is_missing(chosen: "Settings") -> bool:
    """Whether a SQLite file was chosen that is not there; ends the command when nobody can tell."""
    path = chosen.sqlite_path()
    with on_this_machine():
        return path is not None and not path.exists()


def ask_store(
    database: str | None, question: "Callable[[Store], Awaitable[Answer]]", *, may_make: bool = False
) -> Answer:
    """Open the database beside whoever runs on it, and answer *question*; only with *may_make* create it."""
    chosen = settings(database=database)
    is_new = is_missing(chosen)
    if not may_make:
        must_exist(chosen)

    async def ask() -> Answer:
        from redrive import app

        async with app.open_store(chosen) as store:
            return await question(store)

    with on_this_machine():
        answer = asyncio.run(ask())
    if is_new:
        note(f"This made a new database: {name_of(chosen)}")
    return answer


@contextmanager
def on_this_machine() -> Iterator[None]:
    """What keeps the server side from working ends the command. Print outside of it."""
    from redrive.config import BadSettings
    from redrive.store.port import StoreInconsistent, StoreOwned, StoreUnavailable

    try:
        yield
    except BadSettings as error:
        problems = str(error).splitlines()
        what = "all of it" if len(problems) > 1 else "it"
        raise Stop(
            ExitCode.USAGE, "; ".join(problems), f"correct {what} and run the command again"
        ) from error
    except (StoreUnavailable, StoreInconsistent, StoreOwned) as error:
        known = error.advice if isinstance(error, StoreUnavailable) else ""
        advice = known or "`redrive doctor` looks at the database and says more"
        raise Stop(ExitCode.UNAVAILABLE, str(error), advice) from error
    except OSError as error:
        if error.filename is None:  # not about a file the operator chose
            raise
        wrong = f"cannot use {error.filename}: {error.strerror}"
        raise Stop(
            ExitCode.UNAVAILABLE, wrong, "check --database, REDRIVE_DATA_DIR and who may write there"
        ) from error
