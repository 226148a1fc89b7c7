# ruff: noqa: RUF001 - digits of other scripts are what some cases are about
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redrive.domain.trace import child, new_traceparent, parse_traceparent, parse_tracestate

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"
flags = st.integers(0, 255).map(lambda n: f"{n:02x}")
trace_ids = st.binary(min_size=16, max_size=16).filter(any)
span_ids = st.binary(min_size=8, max_size=8).filter(any)


@pytest.mark.parametrize("text", [VALID, f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-ff"])
def test_a_valid_traceparent_is_kept_as_it_is(text: str) -> None:
    assert parse_traceparent(text) == text


@pytest.mark.parametrize("rest", ["", "-", "-what-comes-later", "-é"])
def test_a_later_version_is_read_as_far_as_we_know_it(rest: str) -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01{rest}") == VALID


@pytest.mark.parametrize(
    "text",
    [
        "", "00", VALID[:-1], VALID + "0", VALID + "-", VALID + "-00", VALID + "\n", " " + VALID, VALID + " ",
        VALID.upper(), VALID.replace("-", "_"), VALID.replace("a", "A", 1), VALID.replace("a", "g", 1),
        f"ff-{TRACE}-{SPAN}-01", f"FF-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01x",
        f"cc-{TRACE}-{SPAN}-01.later", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{'0' * 32}-{SPAN}-01-x", f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-0g", f"٠٠-{TRACE}-{SPAN}-01",
        f"{VALID},{VALID}",
    ],
)  # fmt: skip
def test_a_broken_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    parsed = parse_traceparent(text)

    assert parsed is None or parse_traceparent(parsed) == parsed


@given(trace_ids, span_ids)
def test_a_trace_of_our_own_is_valid_and_not_sampled(trace_id: bytes, span_id: bytes) -> None:
    made = new_traceparent(trace_id, span_id)

    assert parse_traceparent(made) == made
    assert made == f"00-{trace_id.hex()}-{span_id.hex()}-02"


@given(trace_ids, span_ids, flags, span_ids)
def test_a_child_keeps_the_trace_and_the_flags_we_know(
    trace_id: bytes, parent: bytes, given_flags: str, span_id: bytes
) -> None:
    received = f"00-{trace_id.hex()}-{parent.hex()}-{given_flags}"

    made = child(received, span_id)

    assert parse_traceparent(made) == made
    assert made == f"00-{trace_id.hex()}-{span_id.hex()}-{int(given_flags, 16) & 3:02x}"


LONG_KEY, LONG_TENANT, LONG_SYSTEM = "a" * 256, "1" * 241, "b" * 14
MANY = [f"k{n}=v" for n in range(33)]


@pytest.mark.parametrize(
    "text",
    [
        "a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, b=2", "a=1 ,\tb=2", "a=1,,b=2", ",a=1,",
        " a=1 ",
        "a-b_c*d/e=1", "1tenant@system=1", f"{LONG_KEY}=1", f"{LONG_TENANT}@{LONG_SYSTEM}=1", "a=b c", "a= b",
        f"a={'x' * 256}", "a=!~", "a@b=1", ",".join(MANY[:32]), "a=" + "x" * 250 + ",b=1",
    ],
)  # fmt: skip
def test_a_valid_tracestate_is_kept_as_it_is(text: str) -> None:
    assert parse_tracestate(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ",", " , ", "a", "a=", "=1", "a==1", "a=1=2", "A=1", "é=1", "a=é", "1a=1", "a b=1",
        "a@1b=1", "a@=1",
        "@a=1", "a@b@c=1", "a=1,a=2", "a=1,b", "a=1;b=2", "a=\x00", "a=1\n", "a=1\r\nX-Evil: 1", "a=b\tc",
        f"{LONG_KEY}a=1", f"{LONG_TENANT}1@b=1", f"a@{LONG_SYSTEM}b=1", f"a={'x' * 257}", ",".join(MANY),
        ",".join(f"k{n}={'x' * 250}" for n in range(9)),
    ],
)  # fmt: skip
def test_a_broken_tracestate_is_dropped_as_a_whole(text: str) -> None:
    assert parse_tracestate(text) is None


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_what_is_kept_is_fit_for_a_header(text: str) -> None:
    kept = parse_tracestate(text)

    assert kept in (None, text)
    assert kept is None or all(c == "\t" or " " <= c <= "~" for c in kept)
