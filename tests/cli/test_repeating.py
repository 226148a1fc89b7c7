"""A change whose outcome nobody knows can be asked for again: each is made under a key, which is told."""

import re
from typing import Any

import pytest

from redrive.cli.errors import ExitCode, Stop
from redrive.cli.service import Service, changing
from tests.cli.terminal import Terminal
from tests.cli.test_commands import commands
from tests.cli.test_replay import answered
from tests.client.peer import Canned, Peer

WHY = ("--reason", "why")
CHANGES: dict[str, tuple[str, ...]] = {
    "integration add": ("b", "https://partner.example/hooks"),
    "integration rotate-secret": ("b",),
    "integration probe": ("b",),
    "integration contain": ("b", *WHY),
    "integration release": ("b", *WHY),
    "queue replay": ("b", "rec_1", *WHY),
    "queue edit": ("b", "rec_1", *WHY, "--no-headers"),
    "queue resolve": ("b", "rec_1", *WHY),
    "queue erase": ("b", "rec_1", *WHY),
    "group acknowledge": ("b", "grp_1"),
    "group resolve": ("b", "grp_1", *WHY, "--yes"),
    "group reopen": ("b", "grp_1", *WHY),
    "group mute": ("b", "grp_1", "--until", "now"),
    "group comment": ("b", "grp_1", "--text", "words"),
    "replay plan": ("b",),
    "replay run": ("b", "rpl_1", *WHY, "--yes"),
    "replay pause": ("b", "rpl_1"),
    "replay resume": ("b", "rpl_1"),
    "replay cancel": ("b", "rpl_1"),
    "replay rate": ("b", "rpl_1", "5"),
}


def told_key(err: str) -> str:
    found = re.search(r"next: run it again with --idempotency-key (\S+?)[ :]", err)
    assert found is not None, err
    return found[1]


def refused(peer: Peer, command: str, status: int, error_code: str) -> None:
    """Answer the change that *command* makes with an error."""
    if command == "replay run":
        answered(peer)  # which is looked at first
    peer.problem(status, error_code)


def test_these_are_the_commands_that_take_a_key(terminal: Terminal) -> None:
    takes = {" ".join(c) for c in commands() if "--idempotency-key" in terminal.run(*c, "--help").out}

    assert takes == CHANGES.keys() | {"deliver"}  # whose key is the caller's own, and kept with the item


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_carries_a_key_that_whoever_got_no_answer_is_told(
    peer: Peer, terminal: Terminal, command: str
) -> None:
    refused(peer, command, 503, "INT-503-DEPENDENCY-UNAVAILABLE")

    ended = terminal.run(*command.split(), *CHANGES[command])

    assert ended.code == ExitCode.UNAVAILABLE
    assert told_key(ended.err) == peer.last.headers["idempotency-key"]
    assert told_key(ended.err).startswith("cli-")


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_is_made_under_the_key_that_was_given(peer: Peer, terminal: Terminal, command: str) -> None:
    refused(peer, command, 403, "AUTH-403-FORBIDDEN")

    ended = terminal.run(*command.split(), *CHANGES[command], "--idempotency-key", "mine")

    assert peer.last.headers["idempotency-key"] == "mine"
    assert "--idempotency-key" not in ended.err  # it is known that nothing was done


def test_a_change_that_is_still_being_made_names_its_key(peer: Peer, terminal: Terminal) -> None:
    peer.answers.append(Canned(hangs_up=True))
    peer.problem(409, "INT-409-IDEMPOTENCY-IN-PROGRESS")

    ended = terminal.run("queue", "resolve", "b", "rec_1", *WHY)

    assert ended.code == ExitCode.CONFLICT
    assert told_key(ended.err) == peer.last.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("replay", "plan", "b", "--since", "2h"), "since"),
        (("replay", "plan", "b", "--until", "2h"), "until"),
        (("group", "mute", "b", "grp_1", "--until", "2h"), "until"),
        (("integration", "contain", "b", "--until", "2h", *WHY), "until"),
    ],
)
def test_an_instant_that_was_counted_from_now_is_told_with_the_key(
    peer: Peer, terminal: Terminal, words: tuple[str, ...], name: str
) -> None:
    peer.problem(503, "INT-503-DEPENDENCY-UNAVAILABLE")

    ended = terminal.run(*words)

    sent: dict[str, Any] = peer.last.json()
    assert f" --{name} {sent.get('filter', sent)[name]}: however often" in ended.err


def test_whoever_interrupts_a_change_is_told_its_key(peer: Peer) -> None:
    with pytest.raises(Stop) as ended, changing(Service(peer.url), "k 1"):
        raise KeyboardInterrupt

    assert ended.value.code == ExitCode.INTERRUPTED
    assert "--idempotency-key 'k 1'" in str(ended.value.advice)
