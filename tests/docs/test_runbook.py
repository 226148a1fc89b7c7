"""The runbook works as printed: every command of it is run, in order, in one shell, section by section."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.service import bare_environ, serving
from tests.e2e.httpbin_server import httpbin
from tests.e2e.receiver import OK, Answer, Receiver, Sent, receiving

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text("utf-8")
SECONDS = 400
IS_DOWN = re.compile(r"is down")
IS_UP = re.compile(r"is up")
_SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENDED = "--- the end of this section, with exit code "


class Partner:
    """Down or up, as the headings say."""

    def __init__(self) -> None:
        self.is_up = True

    def __call__(self, sent: Sent) -> Answer:
        return OK if self.is_up else Answer(503)

    def follow(self, heading: str) -> None:
        if IS_DOWN.search(heading):
            self.is_up = False
        elif IS_UP.search(heading):
            self.is_up = True


class Acted:
    """What each section's shell printed, and the partner's own ledger of what reached it."""

    def __init__(self, printed: dict[str, str], partner: Receiver) -> None:
        self.printed = printed
        self.partner = partner

    def codes(self, heading: str) -> list[int]:
        return [int(code) for code in re.findall(r"^exit code (\d+)$", self.printed[heading], re.MULTILINE)]


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acted]:
    """The whole of it, once."""
    directory = tmp_path_factory.mktemp("runbook")
    mood = Partner()
    with ExitStack() as stack:
        partner = stack.enter_context(receiving(mood))
        partner.health = lambda: 200 if mood.is_up else 503
        bin_url = stack.enter_context(httpbin())
        settings = {
            "REDRIVE_ALLOW_HTTP": "true",
            "REDRIVE_ALLOW_TARGETS": "127.0.0.0/8",
            "REDRIVE_BASE_DELAY_SECONDS": "0.05",
            "REDRIVE_BREAKER_FAILURE_SHARE": "0",  # on a slow machine it opens, and not all of them die
        }
        service = stack.enter_context(serving(directory, **settings))
        variables = {
            "REDRIVE_URL": service.url,
            "REDRIVE_DATA_DIR": str(directory),
            "PARTNER": partner.url,
            "HTTPBIN": bin_url,
        }
        shell = stack.enter_context(
            subprocess.Popen(
                ["sh", "-eu"],
                cwd=directory,
                env=bare_environ() | variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        stack.callback(shell.kill)
        alarm = threading.Timer(SECONDS, shell.kill)  # reached only by a broken runbook
        stack.callback(alarm.cancel)
        alarm.start()
        printed = {}
        for heading, text in _SECTION.findall(RUNBOOK):
            mood.follow(heading)
            printed[heading] = _said(shell, "\n".join(_SHELL.findall(text)))
        yield Acted(printed, partner)


def _said(shell: "subprocess.Popen[str]", script: str) -> str:
    """What *shell* printed of *script*; it must not have ended by it."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{script}\necho; echo '{_ENDED}'$?\n")
    shell.stdin.flush()
    lines: list[str] = []
    for line in shell.stdout:
        if line.startswith(_ENDED):
            return "".join(lines)
        lines.append(line)
    raise AssertionError(f"the shell ended ({shell.wait()}) in:\n{script}\n{''.join(lines)}")


def test_every_failed_delivery_of_the_partner_arrives_exactly_once(acted: Acted) -> None:
    arrived = [sent.webhook_id for sent in acted.partner.ledger if sent.answered == 200]

    assert len(arrived) == len(set(arrived)) == 60 + 1 + 40


def test_what_is_refused_or_halts_says_so_by_its_exit_code(acted: Acted) -> None:
    assert acted.codes("Stop") == [5]
    assert acted.codes("One item") == [5]
    assert acted.codes("The partner is down once more") == [7, 6]
    assert sum(len(acted.codes(heading)) for heading in acted.printed) == 4


def test_a_job_that_halts_sends_its_canary_and_nothing_else(acted: Acted) -> None:
    halted = acted.printed["The partner is down once more"]

    assert re.search(r"halted", halted)
    assert re.search(r"succeeded +0\b", halted)
    assert re.search(r"cancelled +35\b", halted)


def test_each_key_event_of_the_runbook_is_found_by_its_request_id(acted: Acted) -> None:
    told = acted.printed["The partner is down"] + acted.printed["One item"]

    for event in (
        *("reprocess_failed", "retry_scheduled", "retry_exhausted"),
        *("replayed", "reprocess_succeeded"),
    ):
        assert f"recovery.{event}" in told


def test_the_proof_holds(acted: Acted) -> None:
    proof = acted.printed["The proof"]

    assert len(re.findall(r"^intact: ", proof, re.MULTILINE)) == 5  # two are made, and three verified
