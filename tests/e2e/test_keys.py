"""The key file and the secrets that open with it; a canary among them is searched for everywhere."""

import json
import shutil
import stat
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from redrive.client import Client
from tests.e2e.caller import Caller
from tests.e2e.receiver import OK, Answer, Receiver, Sent, receiving
from tests.e2e.service import Service
from tests.e2e.waiting import until

CANARY = "c4n4ry-in-the-coal-mine"
TOKEN = "t0k3n-in-the-coal-mine"
UNAVAILABLE, USAGE = 8, 2
OURS = trustme.CA().issue_cert("us.example")
PEM, PRIVATE = OURS.cert_chain_pems[0].bytes().decode(), OURS.private_key_pem.bytes().decode()


def key_file(service: Service) -> Path:
    return service.home / "data" / "redrive.keys"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(lambda _: OK) as found:
        yield found


def add(caller: Client, name: str, receiver: Receiver, **fields: Any) -> Any:
    return caller.create_integration(integration_id=name, url=receiver.url, **fields)


def arrives(caller: Client, name: str, receiver: Receiver) -> Sent:
    recovery_id = caller.deliver(name, event_type="e", payload=1)["recovery_id"]
    return until(lambda: receiver.sends_of(recovery_id), f"{recovery_id} arrives")[0]


def refuses_to_start(service: Service) -> str:
    """What it says."""
    service.spawn()
    assert service.ended() == UNAVAILABLE
    return " ".join(str(line) for line in service.log)


def test_the_first_start_makes_a_key_for_its_owner_alone(service: Service) -> None:
    listed = service.run("key", "list", "--output", "json").json()
    examined = service.run("doctor", "--output", "json").json()

    [key] = listed["keys"]
    assert stat.S_IMODE(key_file(service).stat().st_mode) == 0o600
    assert key == {"key_id": key["key_id"], "seals": True, "in_use": True}
    assert key["key_id"] in key_file(service).read_text()
    [keys] = [finding for finding in examined["findings"] if finding["name"] == "keys"]
    assert keys["ok"]


def test_a_new_key_beside_a_running_service(service: Service, token: str, receiver: Receiver) -> None:
    with Client(service.url, token) as caller:
        secret = add(caller, "acme", receiver, auth_mode="bearer", credentials={"token": CANARY})
        assert "secret" not in secret
        shutil.copy(key_file(service), service.home / "before.keys")

        rotated = service.run("key", "rotate")

        assert rotated.code == 0, rotated.err
        assert arrives(caller, "acme", receiver).headers["authorization"] == f"Bearer {CANARY}"
    first, second = service.run("key", "list", "--output", "jsonl").lines()
    assert (first["in_use"], second["in_use"]) == (True, False)
    service.stop()
    service.start()
    with Client(service.url, token) as caller:
        assert arrives(caller, "acme", receiver).headers["authorization"] == f"Bearer {CANARY}"
    service.stop()
    shutil.copy(service.home / "before.keys", key_file(service))
    assert first["key_id"] in refuses_to_start(service)


def test_after_a_theft_the_database_gets_a_key_of_its_own_anew(
    service: Service, token: str, receiver: Receiver
) -> None:
    with Client(service.url, token) as caller:
        add(caller, "acme", receiver, auth_mode="bearer", credentials={"token": CANARY})

    rotated = service.run("key", "rotate", "--own-key")
    service.stop()
    service.start()

    assert rotated.code == 0, rotated.err
    assert "restart all of them" in rotated.err
    with Client(service.url, token) as caller:
        assert arrives(caller, "acme", receiver).headers["authorization"] == f"Bearer {CANARY}"


def test_rotations_at_once_lose_no_key(service: Service) -> None:
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: service.run("key", "rotate"), range(4)))

    assert [each.code for each in ended] == [0] * 4
    listed = service.run("key", "list", "--output", "jsonl").lines()
    assert len(listed) == 5
    assert listed[0]["in_use"]
    service.stop()
    service.start()


def test_a_rotation_that_was_cut_short_is_ended_by_the_next(service: Service) -> None:
    """The file has the new key, the database is not sealed under it yet; both open meanwhile."""
    made = service.run("key", "new").out
    before = key_file(service).read_text()
    key_file(service).write_text(made + before)
    service.stop()
    service.start()

    ended = service.run("key", "rotate")

    assert ended.code == 0
    assert made.split()[0] in ended.out
    first, second = service.run("key", "list", "--output", "jsonl").lines()
    assert [first["in_use"], second["in_use"]] == [True, False]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("another", "the secrets of this database cannot be opened"),
        ("gone", "there is no key file at"),
        ("damaged", "is damaged"),
        ("empty", "there is no key in it"),
        ("a directory", "cannot be read"),
    ],
)
def test_without_its_key_a_service_does_not_start_and_nothing_is_changed(
    service: Service, what: str, told: str
) -> None:
    service.stop()
    kept = key_file(service).read_text()
    key_file(service).unlink()
    lines = {
        "another": service.run("key", "new").out,
        "damaged": kept.replace(kept.split()[-1][4:8], "AAAA"),
        "empty": "",
    }
    if what == "a directory":
        key_file(service).mkdir()
    elif what in lines:
        key_file(service).write_text(lines[what])

    assert told in refuses_to_start(service)
    examined = service.run("doctor", "--output", "json")
    [keys] = [finding for finding in examined.json()["findings"] if finding["name"] == "keys"]
    assert told in keys["detail"]
    assert not keys["ok"]
    if what == "gone":
        assert not key_file(service).exists()

    if what == "a directory":
        key_file(service).rmdir()
    key_file(service).write_text(kept)
    service.start()


def test_a_key_that_all_can_read_is_pointed_at(service: Service) -> None:
    key_file(service).chmod(0o644)

    examined = service.run("doctor", "--output", "json").json()

    [keys] = [finding for finding in examined["findings"] if finding["name"] == "keys"]
    assert not keys["ok"]
    assert "chmod 600" in keys["detail"]


CREDENTIALS: list[tuple[str, dict[str, str]]] = [
    ("header", {"name": "X-Api-Key", "value": CANARY}),
    ("basic", {"username": "us", "password": CANARY}),
    ("bearer", {"token": CANARY}),
]


def test_a_secret_is_found_nowhere(service: Service, caller: Caller, token: str, tmp_path: Path) -> None:
    """Planted wherever one can be given; searched for in every file, log, metric, answer, page and backup."""
    raw = CANARY.encode() + b"-" * 9
    signing = "whsec_" + b64encode(raw).decode()
    needles = [
        CANARY,
        TOKEN,
        signing,
        b64encode(raw).decode()[:28],
        b64encode(f"us:{CANARY}".encode()).decode(),
    ]
    needles += PRIVATE.splitlines()[1:2]
    printed: list[str] = []

    def seen(answer: Any) -> Any:
        printed.append(json.dumps(answer))
        return answer

    with (
        receiving(a_failing_partner) as receiver,
        an_idp() as token_url,
        Client(service.url, token) as client,
    ):
        seen(add(client, "signed", receiver, secret=signing))
        for mode, credentials in CREDENTIALS:
            seen(add(client, mode, receiver, auth_mode=mode, credentials=credentials, max_attempts=2))
        mtls = {"certificate": PEM, "private_key": PRIVATE}
        secure = receiver.url.replace("http:", "https:")  # it speaks no TLS
        seen(client.create_integration(integration_id="mtls", url=secure, auth_mode="mtls", credentials=mtls))
        oauth2 = {"token_url": token_url, "client_id": "us", "client_secret": CANARY}
        seen(add(client, "oauth2", receiver, auth_mode="oauth2", credentials=oauth2, max_attempts=2))
        seen(client.update_integration("bearer", credentials={"token": CANARY + "2"}))
        seen(client.rotate_secret("signed", secret=signing))
        names = ["signed", "oauth2", "mtls", *(mode for mode, _ in CREDENTIALS)]
        ids = {name: client.deliver(name, event_type="e", payload=1)["recovery_id"] for name in names}
        for name, recovery_id in ids.items():
            until(partial(caller.is_at_rest, name), f"{name} is at rest")
            seen(client.item(name, recovery_id))
            seen(client.integration(name))
        for shown in (CANARY, TOKEN):
            assert any(shown in str(sent.headers) for sent in receiver.ledger), "the partner is shown it"
        bad = service.run("integration", "add", "bad", receiver.url, "--auth-mode", "bearer", "--credentials",
                          json.dumps({"token": f"{CANARY} !"}), token=token)  # fmt: skip
        assert bad.code == USAGE
        commands = [
            ["audit", "list", "--output", "json"],
            ["integration", "list", "--output", "json"],
            *(["integration", "show", name] for name in names),
            ["key", "list"],
            ["doctor"],
        ]
        for words in commands:
            ended = service.run(*words, token=token)
            printed += [ended.out, ended.err]
        printed += [bad.out, bad.err]
        for path in ("/metrics", "/openapi.json", "/readyz"):
            with urllib.request.urlopen(service.url + path) as answer:
                printed.append(answer.read().decode())
    if service.database.exists():
        printed.append(service.run("backup", str(tmp_path / "backup.db")).out)
    printed += [json.dumps(line) for line in service.log]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"redrive.keys"} <= {path.name for path in files}
    haystack = [*printed, *(path.read_bytes().decode("latin-1") for path in files)]

    assert len(haystack) > len(files) + 20
    for needle in needles:
        assert [text[:200] for text in haystack if needle in text] == []


def a_failing_partner(sent: Sent) -> Answer:
    """It refuses a token that it is shown, and is down for whoever shows none."""
    return Answer(401 if TOKEN in sent.headers.get("authorization", "") else 503)


class _Granting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"access_token": TOKEN, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        pass


@contextmanager
def an_idp() -> Iterator[str]:
    """The address of an endpoint that grants TOKEN to everyone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Granting) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
        server.shutdown()
        serving.join()
