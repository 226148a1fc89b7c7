"""`redrive queue import`: deliveries that failed elsewhere, from a file."""

from typing import Annotated

from cyclopts import Parameter

from redrive.cli.bar import Bar
from redrive.cli.errors import Stop, describe_faults
from redrive.cli.lines import Line, Rejection, opened, read_lines
from redrive.cli.output import Output
from redrive.cli.patience import patiently
from redrive.cli.service import HERE, UNCORRELATED, Correlation, IntegrationId, Service, calling
from redrive.cli.tally import Tally
from redrive.client import Answer, Client, ProblemError


def import_(
    integration_id: IntegrationId,
    /,
    *,
    file: Annotated[
        str,
        Parameter(
            help='JSON lines like {"event_type": …, "payload": …, "status": "dlq"}; - is standard input.',
            allow_leading_hyphen=True,
        ),
    ],
    key_prefix: Annotated[
        str | None,
        Parameter(help="Line n gets the idempotency key PREFIX-n, so that a second run is harmless."),
    ] = None,
    correlation: Correlation = UNCORRELATED,
    service: Service = HERE,
    output: Output = "table",
) -> int:
    tally = Tally(output)
    try:
        with opened(file) as lines, calling(service) as client, Bar(output) as bar:
            for line in read_lines(lines, key_prefix):
                _import(client, integration_id, line, correlation, tally)
                bar.show(tally.so_far())
    except Stop as stop:
        raise tally.cut_short(stop, key_prefix) from stop
    except KeyboardInterrupt:
        raise tally.interrupted(key_prefix) from None
    return tally.tell()


def _import(
    client: Client, integration_id: str, line: Line | Rejection, correlation: Correlation, tally: Tally
) -> None:
    if isinstance(line, Rejection):
        tally.reject(line)
        return
    try:
        answer = _hand_over(client, integration_id, line, correlation)
    except ProblemError as problem:
        if problem.status not in (400, 413, 422):
            raise
        tally.reject(Rejection(line.number, problem.error_code, describe_faults(problem)))
    else:
        tally.accept(line.number, answer["recovery_id"], answer["status"], is_duplicate=answer.is_repeated)


def _hand_over(client: Client, integration_id: str, line: Line, correlation: Correlation) -> Answer:
    return patiently(
        lambda: client.import_delivery(
            integration_id, line.written(), idempotency_key=line.idempotency_key, **correlation.ids()
        )
    )
