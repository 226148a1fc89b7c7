"""How a plan, and the job it became, are shown."""

from collections.abc import Mapping
from typing import Any

from redrive.cli.tables import instant, print_facts


def print_plan(replay: Mapping[str, Any]) -> None:
    """Print what a plan would do."""
    made = replay["plan"]
    facts: dict[str, object] = {
        "plan": replay["replay_id"],
        "state": replay["state"],
        "as of": instant(replay["as_of"]),
        "expires": instant(replay["expires_at"]),
    }
    if made is not None:
        skipped = sum(made["skipped"].values())
        facts |= {
            "eligible": f"{made['eligible']:,}",
            "skipped": f"{skipped:,}" + (f" ({_counts(made['skipped'])})" if skipped else ""),
            "duplicate risk": _counts(made["duplicate_risk"]) or None,
            "oldest": instant(made["oldest_at"]),
            "about": _about(made["estimated_seconds"]),
            "digest": made["digest"],
        }
    print_facts(facts)


def print_job(replay: Mapping[str, Any]) -> None:
    """Print how far a job is."""
    options, progress = replay["options"], replay["progress"]
    print_facts(
        {
            "replay": replay["replay_id"],
            "state": replay["state"],
            "because": replay["because"],
            "waits for": replay["waits_for"],
            "total": f"{progress['total']:,}",
            "succeeded": f"{progress['succeeded']:,}",
            "failed again": f"{progress['failed']:,}",
            "skipped": f"{progress['skipped']:,}",
            "cancelled": f"{progress['cancelled']:,}",
            "in flight": f"{progress['in_flight']:,}",
            "waiting": f"{progress['waiting']:,}",
            "outcomes a second": progress["outcomes_per_second"] or None,
            "eta": _about(progress["eta_seconds"]),
            "rate": options["rate"],
            "reason": options["reason"],
            "incident": options["incident"],
            "run by": replay["run_by"],
            "run": instant(replay["run_at"]),
            "request id": replay["run_request_id"],
        }
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _about(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
