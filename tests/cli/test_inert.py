import json

from hypothesis import given
from hypothesis import strategies as st

from redrive.cli.inert import inert, inert_json
from redrive.cli.tables import word


@given(st.text())
def test_inert_text_prints_itself_and_nothing_else(text: str) -> None:
    assert inert(text).replace("\u200d", "").isprintable()


@given(st.text().filter(str.isprintable))
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert inert(text) == text


@given(st.recursive(st.text(st.characters()), lambda inner: st.dictionaries(st.text(), inner)))
def test_inert_json_is_the_same_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)

    assert json.loads(inert_json(text)) == value
    assert inert_json(text, only_ascii=True).isascii()
    assert not set(inert_json(text)) & set(
        map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F)])
    )


def test_values_are_said_as_people_say_them() -> None:
    assert [word(v) for v in (None, True, 0.25, 3, ["a", "b"], [], {"X-A": "1"}, "\n")] == [
        "-", "yes", "0.25", "3", "a, b", "-", "X-A: 1", "\\n",
    ]  # fmt: skip
