"""The command line. Each command's module is imported when it runs, so that every one answers at once."""

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from redrive import __version__
from redrive.cli.errors import ExitCode, Stop, report

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
app.command("redrive.cli.server:serve", name="serve", help="Run the service.")
app.command("redrive.cli.server:demo", name="demo", help="See redrive at work, with everything played for you.")
app.command("redrive.cli.server:migrate", name="migrate", help="Bring the database to this version.")
app.command("redrive.cli.server:doctor", name="doctor", help="Check that redrive can run here.")
app.command("redrive.cli.token:app", name="token", help="Make, list and revoke callers' tokens.")
app.command("redrive.cli.integration:app", name="integration", help="Add, list, show and change integrations.")
app.command("redrive.cli.deliver:deliver", name="deliver", help="Hand deliveries to the service.")
app.command("redrive.cli.queue:app", name="queue", help="Look at the recovery queue and replay from it.")
app.command("redrive.cli.audit:app", name="audit", help="Ask the audit trail who did what, and what it caused.")


def run(arguments: Sequence[str]) -> int:
    """Run one command and answer its exit code; nothing is raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return report(_usage(error))
    except Stop as stop:
        return report(stop)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the flush at exit finds somewhere to go
        return ExitCode.BROKEN_PIPE
    return code if isinstance(code, int) else ExitCode.OK


def _usage(error: CycloptsError) -> Stop:
    chain = " ".join(["redrive", *(error.command_chain or ())])
    return Stop(ExitCode.USAGE, str(error).rstrip("."), f"`{chain} --help` shows how it is used")
