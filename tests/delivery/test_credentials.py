"""Which credentials are taken, what is told of those that are not, and how they are shown."""

from typing import Any

import pytest
import trustme

from redrive.delivery.credentials import (
    KINDS,
    Basic,
    Bearer,
    Header,
    OAuth2,
    as_header,
    check_credentials,
    pack,
    token_request,
    unpack,
)
from redrive.domain.errors import InvalidPayload

OURS = trustme.CA()
CERTIFICATE = OURS.issue_cert("redrive.example")
OTHER = OURS.issue_cert("other.example")
PEM = b"".join(blob.bytes() for blob in CERTIFICATE.cert_chain_pems).decode()
KEY = CERTIFICATE.private_key_pem.bytes().decode()
CA = OURS.cert_pem.bytes().decode()
TOKEN_URL = "https://idp.example/token"
GOOD: list[tuple[str, dict[str, str]]] = [
    ("header", {"name": "X-Api-Key", "value": "a b"}),
    ("header", {"name": "Authorization", "value": "Token x"}),
    ("basic", {"username": "us", "password": "pä:ss"}),
    ("bearer", {"token": "abc.DEF-_~+/=="}),
    ("oauth2", {"token_url": TOKEN_URL, "client_id": "us", "client_secret": "s", "scope": "a b"}),
    ("oauth2", {"token_url": TOKEN_URL, "client_id": "us", "client_secret": "s", "client_auth": "body"}),
    ("mtls", {"certificate": PEM, "private_key": KEY}),
    ("mtls", {"certificate": PEM, "private_key": KEY, "ca": CA}),
]


@pytest.mark.parametrize(("mode", "given"), GOOD)
def test_credentials_are_taken_and_come_back_as_they_were(mode: str, given: dict[str, str]) -> None:
    taken = check_credentials(mode, given, allow_http=False)

    assert unpack(mode, pack(taken)) == taken
    assert {name: getattr(taken, name) for name in given} == given


SECRET = "s3cr3t"
BAD: list[tuple[str, dict[str, str], str]] = [
    ("header", {"value": SECRET}, "/credentials/name"),
    ("header", {"name": "X-Api-Key"}, "/credentials/value"),
    ("header", {"name": "Host", "value": SECRET}, "/credentials/name"),
    ("header", {"name": "webhook-id", "value": SECRET}, "/credentials/name"),
    ("header", {"name": "Signature", "value": SECRET}, "/credentials/name"),
    ("header", {"name": "X Y", "value": SECRET}, "/credentials/name"),
    ("header", {"name": "X-Y", "value": f"{SECRET}\r\nX-Z: 1"}, "/credentials/value"),
    ("header", {"name": "X-Y", "value": f"{SECRET}ä"}, "/credentials/value"),
    ("basic", {"username": "a:b", "password": SECRET}, "/credentials/username"),
    ("basic", {"username": "a", "password": f"{SECRET}\n"}, "/credentials/password"),
    ("basic", {"username": "a", "password": ""}, "/credentials/password"),
    ("basic", {"username": "a" * 1025, "password": SECRET}, "/credentials/username"),
    ("bearer", {"token": f"{SECRET} x"}, "/credentials/token"),
    ("bearer", {"token": f"={SECRET}"}, "/credentials/token"),
    ("bearer", {"token": f"{SECRET}ä"}, "/credentials/token"),
    ("bearer", {"token": "x" * 5000}, "/credentials/token"),
    ("bearer", {"token": "x", "password": SECRET}, "/credentials"),
    ("oauth2", {"token_url": TOKEN_URL, "client_id": "us"}, "/credentials/client_secret"),
    (
        "oauth2",
        {"token_url": "http://a.example", "client_id": "a", "client_secret": SECRET},
        "/credentials/token_url",
    ),
    (
        "oauth2",
        {"token_url": "https://127.1/", "client_id": "a", "client_secret": SECRET},
        "/credentials/token_url",
    ),
    (
        "oauth2",
        {"token_url": TOKEN_URL, "client_id": "a", "client_secret": SECRET, "scope": 'a"b'},
        "/credentials/scope",
    ),
    (
        "oauth2",
        {"token_url": TOKEN_URL, "client_id": "a", "client_secret": SECRET, "client_auth": "jwt"},
        "/credentials/client_auth",
    ),
    ("mtls", {"certificate": PEM}, "/credentials/private_key"),
    ("mtls", {"certificate": "no", "private_key": KEY}, "/credentials/certificate"),
    (
        "mtls",
        {"certificate": PEM, "private_key": OTHER.private_key_pem.bytes().decode()},
        "/credentials/private_key",
    ),
    ("mtls", {"certificate": KEY, "private_key": PEM.replace("M", "N")}, "/credentials/private_key"),
    ("mtls", {"certificate": PEM, "private_key": KEY, "ca": KEY}, "/credentials/ca"),
    ("mtls", {"certificate": PEM * 40, "private_key": KEY}, "/credentials/certificate"),
]


@pytest.mark.parametrize(("mode", "given", "pointer"), BAD)
def test_what_is_wrong_with_them_is_told_and_they_are_not(
    mode: str, given: dict[str, str], pointer: str
) -> None:
    with pytest.raises(InvalidPayload) as caught:
        check_credentials(mode, given, allow_http=False)

    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert SECRET not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_every_mode_that_shows_some_has_its_kind() -> None:
    assert set(KINDS) == {mode for mode, _ in GOOD}


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        (Header("X-A", "1"), (("X-A", "1"),)),
        (
            Basic("Aladdin", "open sesame"),
            (("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),),
        ),  # RFC 7617
        (Bearer("mF_9.B5f-4.1JqM"), (("Authorization", "Bearer mF_9.B5f-4.1JqM"),)),  # RFC 6750
    ],
)
def test_each_is_shown_as_its_standard_has_it(credentials: Any, header: Any) -> None:
    assert as_header(credentials) == header


def test_a_token_is_asked_for_with_the_secret_in_the_header() -> None:
    """RFC 6749 §2.3.1: client_id and client_secret are form-encoded before they are Basic."""
    headers, body = token_request(OAuth2(TOKEN_URL, "a b", "c:ä", "x y"))

    assert dict(headers)["Authorization"] == "Basic YStiOmMlM0ElQzMlQTQ="  # a+b:c%3A%C3%A4
    assert body == b"grant_type=client_credentials&scope=x+y"


def test_a_token_is_asked_for_with_the_secret_in_the_body() -> None:
    headers, body = token_request(OAuth2(TOKEN_URL, "a b", "c&d", client_auth="body"))

    assert "Authorization" not in dict(headers)
    assert body == b"grant_type=client_credentials&client_id=a+b&client_secret=c%26d"
