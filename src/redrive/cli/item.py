"""One item as a page for people."""

import json
from collections.abc import Mapping
from typing import Any

from redrive.cli.inert import inert
from redrive.cli.tables import Column, Fit, column, instant, print_facts, print_table

MAX_LINES = 20
MAX_WIDTH = 200
_INSTANTS = ("created_at", "updated_at", "last_attempt_at", "next_retry_at")
_ATTEMPTS = [
    column("CYCLE", "cycle", is_number=True),
    column("ATTEMPT", "attempt", is_number=True),
    Column("STARTED", lambda row: instant(row.get("started_at"))),
    column("MS", "duration_ms", is_number=True),
    column("HTTP", "http_status", is_number=True),
    column("FAILURE", "failure_code"),
    column("RETRYABLE", "retryable", worth=1),
    column("DETAIL", "failure_detail", fit=Fit.WRAP),
]


def print_item(answer: Mapping[str, Any]) -> None:
    """Print where it stands, its attempts, and the beginnings of what was sent and answered."""
    item = answer["recovery"]
    print_facts(
        {
            "recovery_id": item.get("recovery_id"),
            "integration": item.get("integration_id"),
            "event": item.get("event_type"),
            "status": status_of(item),
            "attempts": "{attempt_count} of {max_attempts} in cycle {cycle}".format_map(item),
            "failure": item.get("failure_code"),
            "detail": item.get("failure_detail"),
            "group": item.get("group_id"),
            "risk": item.get("duplicate_risk"),
            **{name.removesuffix("_at").replace("_", " "): instant(item.get(name)) for name in _INSTANTS},
            "request id": item.get("request_id"),
            "traceparent": item.get("traceparent"),
            "key": item.get("idempotency_key"),
            "created by": item.get("created_by"),
            "updated by": item.get("updated_by"),
            "edit of": item.get("edit_of"),
            "superseded by": item.get("superseded_by"),
            "erased": "{erased_by}: {reason}".format_map(item["erased"]) if item.get("erased") else None,
        }
    )
    if answer["attempts"]:
        print("\nATTEMPTS")
        print_table(_ATTEMPTS, answer["attempts"])
    _print_snapshot("PAYLOAD", item.get("payload_snapshot"))
    _print_snapshot("LAST ANSWER", item.get("response_snapshot"))


def status_of(item: Mapping[str, Any]) -> str:
    """Its status, and what else says whether it is still to be looked at."""
    words = [str(item.get("status"))]
    words += [name for name in ("held", "resolved", "erased") if item.get(name)]
    words += ["superseded"] if item.get("superseded_by") else []
    return ", ".join(words)


def _print_snapshot(title: str, snapshot: Mapping[str, Any] | None) -> None:
    if snapshot is None:
        return
    facts = [
        f"HTTP {snapshot['status']}" if snapshot.get("status") else None,
        snapshot.get("content_type"),
        f"{snapshot.get('size')} bytes",
        "cut short when it was received" if snapshot.get("truncated") else None,
        "as base64" if snapshot.get("encoding") == "base64" else None,
    ]
    print(f"\n{title} ({', '.join(inert(fact) for fact in facts if fact)})")
    body = snapshot.get("body")
    if body is not None:
        _print_beginning(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, indent=2))


def _print_beginning(text: str) -> None:
    lines = text.splitlines()
    for line in lines[:MAX_LINES]:
        print("  " + inert(line.expandtabs(4)[:MAX_WIDTH]))
    if len(lines) > MAX_LINES or any(len(line) > MAX_WIDTH for line in lines[:MAX_LINES]):
        print("  … (--output json has all of it)")
