"""`python -m redrive.docs [--check]`, in a checkout."""

import sys
from pathlib import Path

from redrive.docs.pages import PAGES

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def main(arguments: list[str]) -> int:
    """Write every page, or say which are not what they would be written as."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m redrive.docs [--check]", file=sys.stderr)
        return 2
    pages = {REFERENCE / name: make() for name, make in PAGES.items()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    left = [path for path in REFERENCE.glob("*") if path not in pages]
    if arguments:
        for path in stale + left:
            print(f"docs/reference/{path.name} is stale; run python -m redrive.docs", file=sys.stderr)
        return 1 if stale or left else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(pages[path], "utf-8")
        print(f"wrote docs/reference/{path.name}")
    for path in left:
        path.unlink()
        print(f"removed docs/reference/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
