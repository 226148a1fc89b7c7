"""Mutual TLS with real certificates: who we are, whom we trust, and whose a kept connection is."""

import ssl
from pathlib import Path

import pytest
import trustme
from msgspec.structs import replace

from redrive.delivery.http import HttpDeliverer
from redrive.delivery.tls import Identity, context_of
from redrive.domain.outcome import Failed, Reach, Succeeded
from tests.delivery.receivers import OK, Call, a_request, answering, playing

RECEIVERS, OURS = trustme.CA(), trustme.CA()


def issued(name: str, by: trustme.CA = OURS, *, trusting: trustme.CA = RECEIVERS) -> Identity:
    leaf = by.issue_cert(name)
    chain = "".join(pem.bytes().decode() for pem in leaf.cert_chain_pems)
    return Identity(chain, leaf.private_key_pem.bytes().decode(), trusting.cert_pem.bytes().decode())


def asking_for_one() -> ssl.SSLContext:
    """A receiver that talks to nobody without a certificate of OURS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    RECEIVERS.issue_cert("partner.test").configure_cert(context)
    OURS.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


US, THEM = issued("us.example"), issued("them.example")


class Names:
    """Whom each connection was of, by its certificate."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def script(self, call: Call) -> None:
        certificate = call._writer.get_extra_info("peercert")
        self.seen += [value for kind, value in certificate["subjectAltName"] if kind == "DNS"]
        await answering(OK)(call)


async def test_we_are_known_by_our_certificate(deliverer: HttpDeliverer) -> None:
    names = Names()
    async with playing(names.script, tls=asking_for_one()) as partner:
        request = a_request(partner.port, scheme="https", host="partner.test")

        outcome = await deliverer.send(replace(request, identity=US))

    assert isinstance(outcome, Succeeded)
    assert names.seen == ["us.example"]


async def test_a_connection_is_kept_for_who_made_it(deliverer: HttpDeliverer) -> None:
    names = Names()
    async with playing(names.script, tls=asking_for_one()) as partner:
        request = a_request(partner.port, scheme="https", host="partner.test")

        for identity in (US, US, THEM, US):
            assert isinstance(await deliverer.send(replace(request, identity=identity)), Succeeded)

        assert partner.connections == 2
    assert names.seen == ["us.example", "them.example"]


@pytest.mark.parametrize(
    "identity",
    [None, issued("us.example", by=trustme.CA()), issued("us.example", trusting=trustme.CA())],
    ids=["none", "of nobody the receiver trusts", "trusting another receiver"],
)
async def test_who_does_not_fit_does_not_get_through(
    deliverer: HttpDeliverer, identity: Identity | None
) -> None:
    async with playing(answering(OK), tls=asking_for_one()) as partner:
        request = a_request(partner.port, scheme="https", host="partner.test")

        outcome = await deliverer.send(replace(request, identity=identity))

        assert isinstance(outcome, Failed)
        assert outcome.code in ("TLS_ERROR", "ECONNRESET")
        assert partner.requests == []


async def test_the_name_of_the_receiver_is_checked_with_an_authority_of_our_own(
    deliverer: HttpDeliverer,
) -> None:
    async with playing(answering(OK), tls=asking_for_one()) as partner:
        request = a_request(partner.port, scheme="https", host="other.test")

        outcome = await deliverer.send(replace(request, identity=US))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.reach) == ("TLS_ERROR", Reach.NOT_SENT)


def test_a_private_key_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))

    context_of.__wrapped__(US)

    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
