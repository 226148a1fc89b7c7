"""Commands that work on the database: which one, and what its refusals mean here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from redrive.cli.errors import ExitCode, Stop

if TYPE_CHECKING:
    from redrive.config import Settings
    from redrive.store.port import Store

Database = Annotated[
    str | None,
    Parameter(help="sqlite:///path.db or postgresql://… [default: REDRIVE_DATABASE, else a file of its own]"),
]
DATABASE: Final[str | None] = None
Answer = TypeVar("Answer")


def settings(**overrides: str | None) -> "Settings":
    """The settings, with what the command line says; ends the command when something is wrong with them."""
    from redrive.config import BadSettings, load

    try:
        return load(overrides)
    except BadSettings as error:
        raise Stop(
            ExitCode.USAGE, "; ".join(str(error).splitlines()), "correct all of it and start again"
        ) from error


def ask_store(database: str | None, question: "Callable[[Store], Awaitable[Answer]]") -> Answer:
    """Open the database beside whoever runs on it, and answer *question*."""
    chosen = settings(database=database)
    from redrive import app
    from redrive.store.port import StoreInconsistent, StoreOwned, StoreUnavailable

    async def ask() -> Answer:
        async with app.open_store(chosen) as store:
            return await question(store)

    try:
        return asyncio.run(ask())
    except (StoreUnavailable, StoreInconsistent, StoreOwned) as error:
        advice = "`redrive doctor` says what is wrong with the database"
        raise Stop(ExitCode.UNAVAILABLE, str(error), advice) from error
