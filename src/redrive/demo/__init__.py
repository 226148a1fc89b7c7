"""`redrive demo`: a service, a platform and its partners, played on this machine for a newcomer to watch."""

import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from redrive.demo.partners import Partners
from redrive.demo.screen import Screen
from redrive.demo.stage import CannotPlay, Stage
from redrive.demo.story import Story

OK, UNAVAILABLE = 0, 8


def run(*, port: int | None = None, data_dir: Path | None = None, once: bool = False) -> int:
    """Play until Ctrl-C, or, when *once*, until the story is told; the exit code.

    *port* is any free one near 8080 when not given, *data_dir* a directory that goes with the demo.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="redrive-demo-") as passing:
            uvloop.run(_play(port, data_dir, Path(passing), once=once))
    except asyncio.CancelledError:  # Ctrl-C: how a demo ends
        print("\nstopped: the service and the partners are gone")
    except CannotPlay as error:
        print(f"redrive demo: {error}\n   next: {error.advice}", file=sys.stderr)
        return UNAVAILABLE
    return OK


async def _play(port: int | None, data_dir: Path | None, passing: Path, *, once: bool) -> None:
    playing = asyncio.current_task()
    assert playing is not None  # noqa: S101 - this is one
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
    screen = Screen()
    async with Partners() as partners, Stage(port, data_dir or passing) as stage:
        await Story(screen, partners, stage, is_kept=data_dir is not None).tell(once=once)
