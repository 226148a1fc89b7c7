"""Asking a person before something that cannot be taken back."""

import sys

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.inert import inert


def must_agree(to: str, *, wanted: str = "yes", declined: str) -> None:
    """Go on only if the person at the terminal types *wanted*; where nobody is, the command ends."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Stop(ExitCode.USAGE, f"it would {to}, and nobody is there to be asked", "give --yes")
    print(inert(f"{to}? type {wanted} to go on: "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().replace(",", "") != wanted:
        raise Stop(ExitCode.USAGE, declined, "run it again when you are sure")
