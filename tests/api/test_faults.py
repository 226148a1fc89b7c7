"""What is wrong with a reason or an instant is told in the same words by every call."""

from typing import Any

import pytest

from tests.api.service import Partner

TOLD = "1–256 characters on one line: no control characters, no space at either end"
REASONS: dict[str, dict[str, Any]] = {
    "recovery/queue/rec_0e7xk2m4q9v1c/replay": {},
    "recovery/queue/rec_0e7xk2m4q9v1c/resolve": {},
    "recovery/queue/rec_0e7xk2m4q9v1c/erase": {},
    "recovery/queue/rec_0e7xk2m4q9v1c/edit": {"payload": 1},
    "recovery/groups/grp_5xk2m4q9v1c0e/acknowledge": {},
    "recovery/groups/grp_5xk2m4q9v1c0e/resolve": {},
    "recovery/groups/grp_5xk2m4q9v1c0e/reopen": {},
    "recovery/groups/grp_5xk2m4q9v1c0e/mute": {"until": None},
    "recovery/replays": {"plan_digest": "5c1e"},
    "containment": {},
    "containment/release": {},
    "probe": {},
}
INSTANTS: dict[str, dict[str, Any]] = {
    "recovery/groups/grp_5xk2m4q9v1c0e/mute": {"until": "soon"},
    "recovery/replays": {"filter": {"since": "soon"}},
    "containment": {"reason": "why", "until": "soon"},
}


@pytest.mark.parametrize("path", REASONS)
def test_a_reason_that_is_none(quiet: Partner, path: str) -> None:
    reply = quiet.service.admin.post(f"{quiet.url}/{path}", REASONS[path] | {"reason": "two\nlines"})

    assert reply.status == 400
    assert reply.json()["errors"] == [{"pointer": "/reason", "detail": TOLD}]


@pytest.mark.parametrize("path", INSTANTS)
def test_an_instant_that_is_none(quiet: Partner, path: str) -> None:
    reply = quiet.service.admin.post(f"{quiet.url}/{path}", INSTANTS[path])

    assert reply.status == 400
    [fault] = reply.json()["errors"]
    assert fault["detail"] == "must be an RFC 3339 instant such as 2026-03-01T14:02:11Z"
