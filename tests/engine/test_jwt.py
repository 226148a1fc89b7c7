"""A token proves somebody only if every letter of it is right; why it does not is one of a few words."""

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from redrive.domain.access import NotBelieved, Permission, Principal
from redrive.engine.jwks import ALGORITHMS, Key, read_keys
from redrive.engine.jwt import MOST_CHARACTERS, Trust, choose, has_shape, take_apart, verify
from tests.factories import NOW
from tests.issuer import Signer, encoded, key_set

SECONDS = int(NOW.timestamp())
TRUST = Trust("https://id.example", "redrive", grants=(("ops", Permission.OPERATE), ("ops", Permission.VIEW)))
RSA, EC, ED = Signer.new("RS256", "rsa"), Signer.new("ES256", "ec"), Signer.new("EdDSA", "ed")
STRANGER = Signer.new("RS256", "rsa")  # says that it is the provider
KEYS = read_keys(key_set(RSA, EC, ED))


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; what is changed to None is left out."""
    good = {
        "iss": "https://id.example",
        "aud": "redrive",
        "sub": "ada",
        "iat": SECONDS - 10,
        "exp": SECONDS + 300,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def judged(text: str, keys: Sequence[Key] = KEYS, trust: Trust = TRUST) -> tuple[Principal, datetime]:
    token = take_apart(text)
    key = choose(keys, token)
    if key is None:
        raise NotBelieved("key")
    return verify(token, key, trust, NOW)


def why_not(text: str, keys: Sequence[Key] = KEYS) -> str:
    with pytest.raises(NotBelieved) as refused:
        judged(text, keys)
    return refused.value.why


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_algorithm_is_verified_with_a_key_of_its_type(algorithm: str) -> None:
    signer = Signer.new(algorithm, "one")

    principal, until = judged(signer.sign(claims(jti="t-1")), read_keys(key_set(signer)))

    assert principal == Principal("ada", "user", "t-1", frozenset())
    assert until == datetime.fromtimestamp(SECONDS + 360, UTC)


# From RFC 7515 A.3 and RFC 8037 A.4: signed by others, and refused for what they say alone.
OF_THE_STANDARDS = {
    "issuer": (
        {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
         "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
        ("eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb2"
        "90Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
    ),
    "claims": (
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        ("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWb"
        "hijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", OF_THE_STANDARDS)
def test_a_signature_of_a_standards_example_is_good(why: str) -> None:
    jwk, text = OF_THE_STANDARDS[why]
    keys = read_keys(key_set(jwk))

    assert why_not(text, keys) == why
    assert why_not(text[:-6] + "AAAAAA", keys) == "signature"


def test_a_time_may_be_off_by_a_minute_and_no_more() -> None:
    for good in ({"exp": SECONDS - 59}, {"iat": SECONDS + 60}, {"nbf": SECONDS + 60}):
        assert judged(RSA.sign(claims(**good)))
    for bad in ({"exp": SECONDS - 60}, {"iat": SECONDS + 61}, {"nbf": SECONDS + 61}):
        assert why_not(RSA.sign(claims(**bad))) in ("expired", "early")


@pytest.mark.parametrize("aud", ["redrive", ["redrive"], ["other", "redrive"]])
def test_an_audience_may_be_one_of_several(aud: object) -> None:
    assert judged(EC.sign(claims(aud=aud)))


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_an_access_token_may_say_so(typ: str | None) -> None:
    assert judged(EC.sign(claims(), {"typ": typ}))


def test_the_only_key_need_not_be_named() -> None:
    assert judged(RSA.sign(claims(), {"kid": None}), read_keys(key_set(RSA)))


def test_a_kid_that_two_keys_have_means_the_one_of_the_algorithms_type() -> None:
    keys = read_keys(key_set(EC.jwk(kid="same"), RSA.jwk(kid="same")))

    assert judged(RSA.sign(claims(), {"kid": "same"}), keys)
    assert judged(EC.sign(claims(), {"kid": "same"}), keys)


# --- what is refused, and why ----------------------------------------------------------------------


def with_hmac_of_the_public_key() -> str:
    pem = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f'{encoded(b"""{"alg":"HS256","kid":"rsa"}""")}.{encoded(json.dumps(claims()).encode())}'
    return f"{signed}.{encoded(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def unsigned(algorithm: str) -> str:
    return RSA.sign(claims(), {"alg": algorithm}).rpartition(".")[0] + "."


def with_a_der_signature() -> str:
    signed, _, _ = EC.sign(claims()).rpartition(".")
    raw = EC.signature(signed)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return f"{signed}.{encoded(der)}"


def with_signature(change: Callable[[bytes], bytes], signer: Signer = RSA) -> str:
    signed, _, _ = signer.sign(claims()).rpartition(".")
    return f"{signed}.{encoded(change(signer.signature(signed)))}"


def with_other_claims() -> str:
    header, _, signature = RSA.sign(claims()).split(".")
    return f"{header}.{encoded(json.dumps(claims(sub='root')).encode())}.{signature}"


def with_bits_that_mean_nothing() -> str:
    """The same signature, written in another way: 256 bytes leave 4 bits of the last letter unused."""
    text = RSA.sign(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def raw(claim: str) -> bytes:
    """Good claims, then another as it is written."""
    return json.dumps(claims())[:-1].encode() + b", " + claim.encode() + b"}"


def rs(**changes: Any) -> Callable[[], str]:
    return lambda: RSA.sign(claims(**changes))


def headed(**members: Any) -> Callable[[], str]:
    return lambda: RSA.sign(claims(), members)


def saying(claims: bytes) -> Callable[[], str]:
    return lambda: RSA.sign(claims)


def under(header: bytes) -> Callable[[], str]:
    return lambda: RSA.sign(claims(), header)


def cut(change: Callable[[str], str]) -> Callable[[], str]:
    return lambda: change(RSA.sign(claims()))


HOSTILE: dict[str, tuple[Callable[[], str], str]] = {
    # what it is signed with
    "alg none": (lambda: unsigned("none"), "algorithm"),
    "alg NONE": (lambda: unsigned("NONE"), "algorithm"),
    "alg of a good one, and no signature": (lambda: unsigned("RS256"), "signature"),
    "HS256 with the public key as its secret": (with_hmac_of_the_public_key, "algorithm"),
    "alg none of an unknown key": (headed(alg="none", kid="other"), "algorithm"),
    "no alg": (headed(alg=None), "algorithm"),
    "alg no text": (headed(alg=["RS256"]), "algorithm"),
    "alg rs256": (headed(alg="rs256"), "algorithm"),
    "alg ES256K": (headed(alg="ES256K"), "algorithm"),
    "alg RS256 with an EC key": (lambda: RSA.sign(claims(), {"kid": "ec"}), "algorithm"),
    "alg ES256 with an RSA key": (lambda: EC.sign(claims(), {"kid": "rsa"}), "algorithm"),
    "alg ES384 with a P-256 key": (lambda: EC.sign(claims(), {"alg": "ES384"}), "algorithm"),
    "alg EdDSA with an EC key": (lambda: ED.sign(claims(), {"kid": "ec"}), "algorithm"),
    "alg PS256 over an RS256 signature": (headed(alg="PS256"), "signature"),
    "alg RS512 over an RS256 signature": (headed(alg="RS512"), "signature"),
    # whose key it is
    "signed by a stranger": (lambda: STRANGER.sign(claims()), "signature"),
    "a stranger's key, brought along": (lambda: STRANGER.sign(claims(), {"jwk": STRANGER.jwk()}), "header"),
    "a stranger's key, elsewhere": (headed(jku="https://evil.example/keys"), "header"),
    "a stranger's certificate, elsewhere": (headed(x5u="https://evil.example/cert"), "header"),
    "a stranger's certificate": (headed(x5c=["MIIB"]), "header"),
    "what must be understood": (headed(crit=["b64"], b64=False), "header"),
    "nothing that must be understood": (headed(crit=[]), "header"),
    "no kid, and several keys": (headed(kid=None), "kid"),
    "an unknown kid": (headed(kid="other"), "key"),
    "a kid in another case": (headed(kid="RSA"), "key"),
    "a kid that is a path": (headed(kid="../../x"), "key"),
    "a kid with a line break": (headed(kid="rsa\n"), "kid"),
    "a kid that is not ASCII": (headed(kid="rsä"), "kid"),
    "an empty kid": (headed(kid=""), "kid"),
    "a long kid": (headed(kid="k" * 129), "kid"),
    "a kid that is a number": (headed(kid=1), "kid"),
    "a kid that is null": (under(b'{"alg":"RS256","kid":null}'), "kid"),
    # how it is written
    "another type of token": (headed(typ="logout+jwt"), "header"),
    "a type that is no text": (headed(typ=["JWT"]), "header"),
    "claims of another": (with_other_claims, "signature"),
    "a signature cut short": (lambda: with_signature(lambda made: made[:-1]), "signature"),
    "a signature gone on": (lambda: with_signature(lambda made: made + b"\0"), "signature"),
    "a signature in DER": (with_a_der_signature, "signature"),
    "a signature of zeros": (lambda: with_signature(lambda made: bytes(len(made)), EC), "signature"),
    "a signature written otherwise": (with_bits_that_mean_nothing, "shape"),
    "padding": (cut(lambda text: text + "=="), "shape"),
    "standard base64": (cut(lambda text: text[:-4] + "+/AA"), "shape"),
    "a length that base64 does not have": (cut(lambda text: text.replace(".", "A.", 1)), "shape"),
    "a space": (cut(lambda text: text + " "), "shape"),
    "a line break": (cut(lambda text: text + "\n"), "shape"),
    "letters of another script": (cut(lambda text: "é" + text), "shape"),
    "two parts": (cut(lambda text: text.rpartition(".")[0]), "shape"),
    "four parts": (cut(lambda text: text + ".AAAA"), "shape"),
    "an empty header": (cut(lambda text: text[text.index(".") :]), "shape"),
    "nothing": (lambda: "", "shape"),
    "64 KB": (rs(more="x" * 65_536), "length"),
    "a header that is a list": (under(b'["RS256"]'), "shape"),
    "a header that is no JSON": (under(b"{alg:RS256}"), "shape"),
    "a header in UTF-16": (under('{"alg":"RS256","kid":"rsa"}'.encode("utf-16")), "shape"),
    "a header with alg twice": (under(b'{"alg":"none","alg":"RS256","kid":"rsa"}'), "shape"),
    "a header without an end": (under(b"[" * 5000), "shape"),
    "a header with a NaN": (under(b'{"alg":"RS256","kid":"rsa","n":NaN}'), "shape"),
    # what it says
    "claims that are a list": (saying(b"[]"), "claims"),
    "claims that are no JSON": (saying(b"sub=ada"), "claims"),
    "claims with sub twice": (saying(raw('"sub": "root"')), "claims"),
    "claims with something twice far inside": (saying(raw('"a": [{"b": 1, "b": 2}]')), "claims"),
    "claims without an end": (saying(b"[" * 4000), "claims"),
    "exp NaN": (saying(raw('"nbf": NaN')), "claims"),
    "exp of 5,000 digits": (saying(raw('"nbf": ' + "9" * 5_000)), "claims"),
    "no iss": (rs(iss=None), "issuer"),
    "another's iss": (rs(iss="https://evil.example"), "issuer"),
    "iss with a slash more": (rs(iss="https://id.example/"), "issuer"),
    "iss in a list": (rs(iss=["https://id.example"]), "issuer"),
    "no aud": (rs(aud=None), "audience"),
    "another's aud": (rs(aud="billing"), "audience"),
    "an aud that begins alike": (rs(aud="redrive-test"), "audience"),
    "a list without our aud": (rs(aud=["billing", "redrive2"]), "audience"),
    "an empty aud": (rs(aud=[]), "audience"),
    "an aud among what is no text": (rs(aud=["redrive", 1]), "audience"),
    "an aud that is an object": (rs(aud={"redrive": True}), "audience"),
    "no exp": (rs(exp=None), "time"),
    "no iat": (rs(iat=None), "time"),
    "exp as text": (rs(exp=str(SECONDS + 300)), "time"),
    "exp with a fraction": (rs(exp=SECONDS + 300.0), "time"),
    "exp beyond numbers": (saying(json.dumps(claims(exp=None))[:-1].encode() + b', "exp": 1e999}'), "time"),
    "exp too large for a date": (rs(exp=10**15), "time"),
    "exp true": (rs(exp=True), "time"),
    "exp below zero": (rs(exp=-1), "time"),
    "nbf null": (saying(raw('"nbf": null')), "time"),
    "expired": (rs(exp=SECONDS - 61), "expired"),
    "expired long ago": (rs(exp=0, iat=0), "expired"),
    "not valid yet": (rs(nbf=SECONDS + 90), "early"),
    "from the future": (rs(iat=SECONDS + 90), "early"),
    "no sub": (rs(sub=None), "subject"),
    "sub a number": (rs(sub=7), "subject"),
    "an empty sub": (rs(sub=""), "subject"),
    "a long sub": (rs(sub="a" * 129), "subject"),
    "a sub on two lines": (rs(sub="ada\nroot"), "subject"),
    "a sub with a control character": (rs(sub="ada\u0000"), "subject"),
    "a sub that turns the writing around": (rs(sub="\u202eada"), "subject"),
    "a sub with half a character": (rs(sub="\ud800"), "subject"),
    "a sub with space at its end": (rs(sub="ada "), "subject"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_why_is_said_in_a_word(name: str) -> None:
    make, why = HOSTILE[name]

    assert why_not(make()) == why


def test_no_letter_of_a_token_can_be_another() -> None:
    text = EC.sign(claims())

    for at, letter in enumerate(text):
        assert why_not(text[:at] + ("A" if letter != "A" else "B") + text[at + 1 :])


def test_an_empty_set_has_no_key_to_verify_with() -> None:
    for kid in ("rsa", None):
        assert why_not(RSA.sign(claims(), {"kid": kid}), ()) == "key"


def test_what_is_shaped_like_a_token_is_a_matter_of_its_letters_alone() -> None:
    assert has_shape(RSA.sign(claims()))
    assert has_shape(unsigned("none"))
    for other in ("rdr_0aB-_9", "a.b", "a.b.c.d", "a.b.c=", ".b.c", "a.b.c\n", ""):
        assert not has_shape(other)


# --- keys ------------------------------------------------------------------------------------------


def test_of_a_set_only_what_we_know_is_taken() -> None:
    weak = Signer("RS256", "weak", rsa.generate_private_key(public_exponent=65537, key_size=1024))
    other_curve = EC.jwk(crv="secp256k1")
    strange: list[Any] = [
        weak.jwk(), RSA.jwk(use="enc"), RSA.jwk(key_ops=["encrypt"]), RSA.jwk(key_ops="verify"),
        RSA.jwk(alg="RSA-OAEP"), RSA.jwk(alg="HS256"), RSA.jwk(kid="a b"), RSA.jwk(n=None), RSA.jwk(n=5),
        RSA.jwk(d="AQAB"), RSA.jwk(kty="oct", k="c2VjcmV0"), RSA.jwk(kty=["RSA"]), EC.jwk(y=EC.jwk()["x"]),
        ED.jwk(crv="Ed448"), ED.jwk(crv="X25519"), ED.jwk(x="AAAA"), other_curve, {}, 7, None,
    ]  # fmt: skip

    keys = read_keys(json.dumps({"keys": [*strange, RSA.jwk(alg="RS256"), ED.jwk(use=None)]}).encode())

    assert [(key.kid, sorted(key.algorithms)) for key in keys] == [("rsa", ["RS256"]), ("ed", ["EdDSA"])]


def test_a_keys_own_algorithm_is_the_only_one_it_verifies() -> None:
    only_ps = read_keys(key_set(RSA.jwk(alg="PS256")))

    assert why_not(RSA.sign(claims()), only_ps) == "algorithm"


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', b"\xff"]
)
def test_what_is_no_set_of_keys_is_told_apart_from_an_empty_one(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_keys(document)
    assert read_keys(b'{"keys": []}') == ()


# --- permissions -----------------------------------------------------------------------------------

VIEW, OPERATE, DELIVER = Permission.VIEW.value, Permission.OPERATE.value, Permission.DELIVER.value


@pytest.mark.parametrize(
    ("claim", "given", "permitted"),
    [
        ("scope", {"scope": f"openid {VIEW}"}, {VIEW}),
        ("scope", {"scope": [DELIVER]}, {DELIVER}),
        ("scope", {"scope": "ops"}, {VIEW, OPERATE}),
        ("realm_access.roles", {"realm_access": {"roles": ["ops", DELIVER]}}, {VIEW, OPERATE, DELIVER}),
        ("https://a.example/roles", {"https://a.example/roles": ["ops"]}, {VIEW, OPERATE}),
        ("scope", {"scope": f"opss xops OPS {VIEW}x view"}, set()),
        ("scope", {"scope": ["ops", 1]}, set()),
        ("scope", {"scope": {"ops": True}}, set()),
        ("scope", {"scope": None}, set()),
        ("scope", {"scopes": "ops"}, set()),
        ("scope.a.b", {"scope": "ops"}, set()),
        ("realm_access.roles", {"realm_access": ["roles"]}, set()),
    ],
)
def test_the_claim_says_what_is_permitted(claim: str, given: dict[str, Any], permitted: set[str]) -> None:
    trust = Trust(TRUST.issuer, TRUST.audience, claim, TRUST.grants)

    principal, _ = judged(EC.sign(claims(**given)), trust=trust)

    assert principal.permissions == permitted


@pytest.mark.parametrize(
    ("given", "session_id"),
    [
        ({"jti": "a-1", "sid": "b"}, "a-1"),
        ({"sid": "b"}, "b"),
        ({"jti": "two lines\n", "sid": "b"}, "b"),
        ({"jti": 7}, None),
        ({"jti": "x" * 129}, None),
        ({}, None),
    ],
)
def test_a_session_is_what_the_provider_calls_it(given: dict[str, Any], session_id: str | None) -> None:
    assert judged(ED.sign(claims(**given)))[0].session_id == session_id


def test_a_user_is_another_caller_than_a_token_of_that_name() -> None:
    user, token = (Principal("ada", kind, None, frozenset()) for kind in ("user", "token"))

    assert user.caller != token.caller


def test_no_two_callers_are_one() -> None:
    named = [
        Principal(name, kind, None, frozenset(), tenant)
        for name in ("ada", "user", "token", "acme")
        for kind in ("user", "token")
        for tenant in (None, "user", "token", "acme")
    ]

    assert len({each.caller for each in named}) == len(named)


def test_a_token_of_the_most_characters_is_read() -> None:
    spare = MOST_CHARACTERS - len(RSA.sign(claims(more="")))
    text = RSA.sign(claims(more="x" * (spare * 3 // 4)))

    assert MOST_CHARACTERS - 4 < len(text) <= MOST_CHARACTERS
    assert judged(text)


@pytest.mark.parametrize(
    ("given", "tenant"),
    [({"org": "acme"}, "acme"), ({"org": "*"}, None), ({"org": "a-b_c9"}, "a-b_c9")],
    ids=str,
)
def test_a_claim_binds_to_a_tenant(given: dict[str, Any], tenant: str | None) -> None:
    trust = Trust(TRUST.issuer, TRUST.audience, tenant_claim="org")

    principal, _ = judged(EC.sign(claims(**given)), trust=trust)

    assert principal.tenant == tenant


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"org": ""},
        {"org": None},
        {"org": ["acme"]},
        {"org": "acme.b"},
        {"org": "Acme"},
        {"org": "a" * 33},
    ],
    ids=str,
)
def test_whoever_should_be_bound_and_is_to_nothing_is_not_believed(given: dict[str, Any]) -> None:
    trust = Trust(TRUST.issuer, TRUST.audience, tenant_claim="org")

    with pytest.raises(NotBelieved, match="tenant"):
        judged(EC.sign(claims(**given)), trust=trust)


def test_without_such_a_setting_nobody_is_bound() -> None:
    principal, _ = judged(EC.sign(claims(org="acme")))

    assert principal.tenant is None
