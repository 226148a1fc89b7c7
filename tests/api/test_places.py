"""Where an integration may be placed: what is clear without a lookup is answered when it is registered."""

from typing import Any

import pytest

from tests.api.service import INTEGRATIONS, Partner, Service

# The service's rules: http, and 127.0.0.0/8 on every port, which a name might lead to.
PRIVATE = "is a private, reserved or translated address"
DENIED = [
    ("https://10.1.2.3/hooks", f"10.1.2.3 {PRIVATE}"),
    ("https://[::1]/", f"::1 {PRIVATE}"),
    ("https://[::ffff:10.0.0.1]/", f"::ffff:10.0.0.1 {PRIVATE}"),
    ("https://169.254.169.254/latest", "169.254.169.254 belongs to a cloud's own services"),
    ("https://1.1.1.1:22/", "port 22 is not allowed"),
]
OAUTH2 = {"client_id": "us", "client_secret": "s3cr3t"}


def refusals(reply: Any) -> list[tuple[str, str]]:
    assert (reply.status, reply.json()["error_code"]) == (400, "INT-400-INVALID-PAYLOAD"), reply
    return [(fault["pointer"], fault["detail"]) for fault in reply.json()["errors"]]


@pytest.mark.parametrize(("url", "told"), DENIED)
@pytest.mark.parametrize("lifecycle_status", ["active", "draft", "retired"])
def test_a_denied_address_or_port_is_not_registered(
    service: Service, url: str, told: str, lifecycle_status: str
) -> None:
    document = {"integration_id": "nowhere", "url": url, "lifecycle_status": lifecycle_status}

    [(pointer, detail)] = refusals(service.admin.post(INTEGRATIONS, document))

    assert pointer == "/url"
    assert detail.startswith(told)
    assert service.admin.get(f"{INTEGRATIONS}/nowhere").status == 404


def test_our_own_listener_is_not_registered(service: Service, partner: Partner) -> None:
    [(pointer, detail)] = refusals(partner.change(url=f"http://127.0.0.1:{service.port}/healthz"))

    assert (pointer, "this service itself" in detail) == ("/url", True)


def test_every_denied_url_is_told_at_once(partner: Partner) -> None:
    credentials = OAUTH2 | {"token_url": "https://10.0.0.3/token"}

    reply = partner.change(
        url="https://10.0.0.1/",
        health_url="https://10.0.0.2/",
        auth_mode="oauth2",
        credentials=credentials,
    )

    assert [pointer for pointer, _ in refusals(reply)] == ["/url", "/health_url", "/credentials/token_url"]


def test_what_is_denied_changes_nothing(partner: Partner) -> None:
    before = partner.facts()

    refusals(partner.change(name="other", url="https://10.0.0.1/"))

    assert partner.facts() == before


def test_a_name_is_judged_when_it_is_sent_to(service: Service) -> None:
    document = {"integration_id": "by-name", "url": "https://localhost/hooks"}

    assert service.admin.post(INTEGRATIONS, document).status == 201


def test_what_was_registered_under_other_rules_can_still_be_changed(
    service: Service, partner: Partner, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = service.admin.get(partner.url).json()["url"]
    monkeypatch.setattr(service.engine.catalogue, "judge", lambda *_: "not any more")

    assert partner.change(lifecycle_status="paused").status == 200
    assert partner.change(url=url, name="the same place").status == 200
    assert refusals(partner.change(url=f"{url}/elsewhere")) == [("/url", "not any more")]


def test_an_integration_is_judged_by_its_own_ranges(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_inside(integration_id: str, _: object) -> str | None:
        return None if integration_id == "inside" else "outside"

    monkeypatch.setattr(service.engine.catalogue, "judge", only_inside)
    inside, outside = (
        service.admin.post(INTEGRATIONS, {"integration_id": name, "url": "https://10.0.0.1/"})
        for name in ("inside", "outside")
    )

    assert inside.status == 201
    assert refusals(outside) == [("/url", "outside")]
