"""What is generated is fresh, and every link leads somewhere."""

import re
from pathlib import Path

import pytest

from redrive.docs import __main__ as docs

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)[^)]*\)")


def test_the_reference_is_what_the_code_says() -> None:
    assert docs.main(["--check"]) == 0, "run python -m redrive.docs"


def test_a_stale_page_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs, "REFERENCE", tmp_path)
    docs.main([])
    (tmp_path / "errors.md").write_text("nothing can go wrong")
    (tmp_path / "left-over.md").touch()

    code = docs.main(["--check"])

    assert code == 1
    assert re.findall(r"docs/reference/(\S+) is stale", capsys.readouterr().err) == [
        "errors.md",
        "left-over.md",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    seen, left = {index}, [index]
    while left:
        page = left.pop()
        for target in _LINK.findall(page.read_text("utf-8")):
            found = (page.parent / target).resolve()
            if found.suffix == ".md" and found not in seen:
                seen.add(found)
                left.append(found)

    assert set((ROOT / "docs").rglob("*.md")) <= seen


def test_what_the_threat_model_names_as_held_is_there() -> None:
    """Each file of tests that SECURITY.md names; a bare name is beside the one before it."""
    directory = ROOT / "tests"
    named = re.findall(
        r"`([\w/]*\.?(?:tests/[\w/]+|test_\w+\.py)[\w/.]*)`", (ROOT / "SECURITY.md").read_text("utf-8")
    )

    assert len(named) > 20
    for name in named:
        path = ROOT / name if name.startswith("tests/") else directory / name
        assert path.exists(), name
        directory = path.parent
