"""The command line. Each command's module is imported when it runs, so that every one answers at once."""

import errno
import io
import os
import shutil
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError

from redrive import __version__
from redrive.cli.errors import ExitCode, Stop, report

NARROWEST = 40
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
app = App(
    name="redrive",
    help="Deliver a platform's calls to its partners, retry, dead-letter, replay, and prove it.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
    help_epilogue=(
        "Try `redrive demo`. Commands that talk to a service read REDRIVE_URL and REDRIVE_TOKEN. "
        "Exit codes: 0 ok, 2 usage, 3 not found, 4 not allowed, 5 conflict, 6 finished with failures, "
        "7 halted, 8 unavailable."
    ),
)
app.command(
    "redrive.cli.server:serve",
    help=(
        "Run the service until it is told to stop (SIGTERM or Ctrl-C).\n\n"
        "It needs no other set-up: a SQLite file that is not there is made. Its log goes to standard error. "
        "Every further setting is a REDRIVE_<NAME> variable or a line of redrive.toml, such as "
        "REDRIVE_ALLOW_TARGETS=127.0.0.0/8."
    ),
    help_epilogue="Example: redrive serve --port 8080 --data-dir /var/lib/redrive",
)
app.command(
    "redrive.cli.server:demo",
    help="See redrive at work: a service, a platform and its partners, all played on this machine.",
    help_epilogue="Example: redrive demo",
)
app.command(
    "redrive.cli.server:migrate",
    help=(
        "Bring the database to this version of redrive.\n\n"
        "On SQLite no service may run meanwhile, and `serve` does it too when it starts. On PostgreSQL it is "
        "done beside the processes of the older version, before those of this one start."
    ),
    help_epilogue="Example: redrive migrate --database sqlite:///redrive.db",
)
app.command(
    "redrive.cli.server:doctor",
    help="Check that redrive can run here, and say what is wrong; exit 6 when something is.",
    help_epilogue="Example: redrive doctor --output json",
)
app.command(
    "redrive.cli.backup:backup",
    help=(
        "Back up the SQLite database to a file, also while the service runs.\n\n"
        "FILE is the whole database as it was when the command began, checked and on disk when it is there. "
        "Keep it on another machine. The secrets in it open with the key file alone (redrive.keys in the "
        "data directory, or REDRIVE_KEY_FILE), which is not in it: keep a copy of that too, elsewhere."
    ),
    help_epilogue="Example: redrive backup /mnt/backups/redrive-$(date +%F).db",
)
app.command(
    "redrive.cli.backup:restore",
    help=(
        "Put a backup in the place of the SQLite database.\n\n"
        "Stop the service first. FILE is checked before anything is replaced, and what it replaces is kept "
        "beside it, under a name that is printed. What happened after the backup was made is not known any "
        "more: deliveries accepted since are gone, what was still open then is sent again, and tokens "
        "revoked since are valid. docs/guides/scale-out.md has the whole list."
    ),
    help_epilogue="Example: redrive restore /mnt/backups/redrive-2026-01-31.db",
)
app.command(
    "redrive.cli.copy:copy",
    help=(
        "Carry everything over from a SQLite database to an empty PostgreSQL database.\n\n"
        "Stop the service first; the file stays as it is. Ids, keys, tokens, history and audit events are "
        "the same afterwards, and work goes on where it stood. It is one transaction, in which every row is "
        "read back and compared: all of it is there in the end, or nothing. Interrupted, it can be run again."
    ),
    help_epilogue=(
        "Example: redrive copy --from sqlite:////var/lib/redrive/redrive.db --to postgresql://redrive@db/redrive"
    ),
)
app.command(
    "redrive.cli.deliver:deliver",
    help=(
        "Hand over one delivery, or a file of them; payloads arrive byte for byte.\n\n"
        "Exit 6: some lines failed. Each is told with its number and the reason."
    ),
    help_epilogue=(
        "Example: redrive deliver billing --event-type invoice.paid --payload '{\"id\":7}'\n"
        "Example: redrive deliver billing --file invoices.jsonl --key-prefix november"
    ),
)
for name, sentence in {
    "token": "Make, list and revoke callers' tokens.",
    "key": "Make, list and rotate the keys that secrets are sealed under.",
    "integration": "Add, list, show and change integrations, and rotate their secrets.",
    "queue": "Look at the recovery queue, and replay from it.",
    "group": "Look at why deliveries failed: groups of failures of one cause.",
    "replay": "Replay many: plan it, run it with a canary and at a pace, watch it, stop it.",
    "audit": "Ask the audit trail who did what, and what it caused.",
}.items():
    app.command(f"redrive.cli.{name}:app", name=name, help=sentence)


def run(arguments: Sequence[str]) -> int:
    """Run one command and answer its exit code; what a person can meet raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _set_width()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        if error.filename is not None or error.errno not in _CANNOT_WRITE:
            raise
        _give_up_stdout()
        wrong = f"cannot write the output: {error.strerror}"
        return report(Stop(ExitCode.UNAVAILABLE, wrong, "check where standard output goes"))
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return report(_usage(error, arguments))
    except Stop as stop:
        return report(stop)
    return code if isinstance(code, int) else ExitCode.OK


def _set_width() -> None:
    """Cyclopts and rich believe any COLUMNS; a width of 0, or of a few columns, breaks their wrapping."""
    width = shutil.get_terminal_size().columns  # which takes a COLUMNS that makes no sense for none
    if "COLUMNS" in os.environ or width < NARROWEST:
        os.environ["COLUMNS"] = str(max(width, NARROWEST))


def _give_up_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the flush at exit finds somewhere to go


def _usage(error: CycloptsError, arguments: Sequence[str]) -> Stop:
    text = str(error)
    wrong = _missing(error) or (text if text.endswith("...") else text.removesuffix("."))
    command = " ".join(["redrive", *(error.command_chain or ())])
    if command == "redrive integration add" and "TARGET_URL" in text and _has_url(arguments):
        advice = "--url is the service's address; the destination is TARGET_URL, after INTEGRATION_ID"
        return Stop(ExitCode.USAGE, wrong, advice)
    return Stop(ExitCode.USAGE, wrong, f"`{command} --help` shows how it is used")


def _missing(error: CycloptsError) -> str | None:
    """What a parameter that was left out is for, in its own words; None: that is not what is wrong."""
    if type(error) is not MissingArgumentError or error.argument is None:
        return None
    if error.keyword is not None or error.unused_tokens:  # without its value, or under a name like it
        return None
    what_for = (error.argument.parameter.help or "").removesuffix(".")
    return f"{error.argument.name} is missing: {what_for[:1].lower()}{what_for[1:]}"


def _has_url(arguments: Sequence[str]) -> bool:
    return any(word.partition("=")[0] == "--url" for word in arguments)
