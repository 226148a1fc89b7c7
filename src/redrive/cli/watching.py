"""Watching a job until it ends: a bar for people, and what became of it for everyone."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from redrive.cli.bar import Bar
from redrive.cli.errors import ExitCode, Stop
from redrive.cli.job import about, print_job
from redrive.cli.output import Output, note, print_answer, print_json

if TYPE_CHECKING:
    from redrive.client import Answer, Client

LOOK_SECONDS: Final = 0.5
_ENDS: Final = {
    "completed": ExitCode.OK,
    "completed_with_failures": ExitCode.FAILURES,
    "halted": ExitCode.HALTED,
    "cancelled": ExitCode.HALTED,
    "expired": ExitCode.CONFLICT,
}


def watched(client: "Client", integration_id: str, replay_id: str, output: Output) -> ExitCode:
    """Look again and again until it ended; with jsonl each look is a line. How it ended, as a code."""
    try:
        answer = _watch(client, integration_id, replay_id, output)
    except KeyboardInterrupt:
        command = f"redrive replay cancel {integration_id} {replay_id}"
        note(f"The job goes on without you; `{command}` stops it.")
        return ExitCode.INTERRUPTED
    replay = answer["replay"]
    if output == "table":
        print_job(replay)
    elif output == "json":
        print_answer(answer, output)
    if replay["progress"]["failed"] and sys.stderr.isatty():
        note(f"   next: redrive replay items {integration_id} {replay_id} --state failed")
        note(f"         redrive replay plan {integration_id} --failures-of {replay_id}")
    return _ENDS[replay["state"]]


def _watch(client: "Client", integration_id: str, replay_id: str, output: Output) -> "Answer":
    answer = client.replay_job(integration_id, replay_id)
    if answer["replay"]["state"] in ("planning", "planned"):
        raise Stop(
            ExitCode.CONFLICT,
            f"{replay_id} was not run yet",
            f'redrive replay run {integration_id} {replay_id} --reason "…" --watch',
        )
    with Bar(output, answer["replay"]["progress"]["total"]) as bar:
        while True:
            replay = answer["replay"]
            if output == "jsonl":
                print_json(replay)
            bar.show(told(replay), _done(replay["progress"]))
            if replay["state"] in _ENDS:
                return answer
            time.sleep(LOOK_SECONDS)
            answer = client.replay_job(integration_id, replay_id)


def told(replay: Mapping[str, Any]) -> str:
    """How far it is, in a line."""
    progress = replay["progress"]
    left = progress["waiting"] + progress["in_flight"]
    waits_for = replay["waits_for"]
    words = [
        replay["state"] if waits_for is None else f"waits for the {waits_for}",
        f"ok {progress['succeeded']:,}",
        f"fail {progress['failed']:,}",
        f"left {left:,}",
    ]
    if progress["outcomes_per_second"]:
        words.append(f"{progress['outcomes_per_second']:.1f}/s")
    if progress["eta_seconds"] is not None:
        words.append(f"eta {about(progress['eta_seconds'])}")
    return " · ".join(words)


def _done(progress: Mapping[str, int]) -> int:
    return progress["succeeded"] + progress["failed"] + progress["skipped"] + progress["cancelled"]
