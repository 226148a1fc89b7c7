"""How a plan, and the job it became, are shown."""

from collections.abc import Mapping
from typing import Any

from redrive.cli.tables import instant, print_facts, word


def print_plan(replay: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> None:
    """Print what a plan would do; with *options*, also how it would be run."""
    made = replay["plan"]
    facts: dict[str, object] = {
        "plan": replay["replay_id"],
        "state": state_of(replay),
        "filter": _filter(replay["filter"]),
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
            "about": about(made["estimated_seconds"]),
            "digest": made["digest"],
        }
    print_facts(facts | ({} if options is None else _how(options)))


def print_job(replay: Mapping[str, Any]) -> None:
    """Print how far a job is."""
    options, progress = replay["options"], replay["progress"]
    print_facts(
        {
            "replay": replay["replay_id"],
            "state": state_of(replay),
            "because": _because(replay),
            "filter": _filter(replay["filter"]),
            "total": f"{progress['total']:,}",
            "succeeded": f"{progress['succeeded']:,}",
            "failed again": f"{progress['failed']:,}",
            "skipped": f"{progress['skipped']:,}",
            "cancelled": f"{progress['cancelled']:,}",
            "in flight": f"{progress['in_flight']:,}",
            "waiting": f"{progress['waiting']:,}",
            "outcomes a second": progress["outcomes_per_second"] or None,
            "eta": about(progress["eta_seconds"]),
            **_how(options),
            "reason": options["reason"],
            "incident": options["incident"],
            "run by": replay["run_by"],
            "run": instant(replay["run_at"]),
            "request id": replay["run_request_id"],
        }
    )


def state_of(replay: Mapping[str, Any]) -> str:
    """Where it stands, and what keeps it from going on."""
    waits_for = replay["waits_for"]
    return str(replay["state"]) + (f", waits for the {waits_for}" if waits_for else "")


def about(seconds: float | None) -> str | None:
    """How long that is, as people say it."""
    if seconds is None:
        return None
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _because(replay: Mapping[str, Any]) -> str | None:
    """Why it is in this state; a person's verb leaves the sentence of the state before."""
    if replay["state"] in ("paused", "cancelled"):
        return f"{replay['updated_by']} did so at {instant(replay['updated_at'])}"
    because: str | None = replay["because"]
    return because


def _filter(wanted: Mapping[str, Any]) -> str:
    given = {name: value for name, value in wanted.items() if value is not None}
    return word(given) if given else "all that is dead"


def _how(options: Mapping[str, Any]) -> dict[str, object]:
    """How it is run, as it was asked for; what was not is left out."""
    canary, halt_if, rate = options["canary"], options["halt_if"], options.get("rate")
    first = f"{canary['size']} first, of which {canary['share']:.0%} must succeed"
    return {
        "rate": f"{rate:g} a second" if rate else "the integration's own limits",
        "concurrency": options.get("concurrency"),
        "canary": first if canary["size"] else "none",
        "halt if": f"more than {halt_if['share']:.0%} of the last {halt_if['last']} failed",
        "order": f"the {options['order']} first",
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
