"""`redrive`, also as `python -m redrive`."""

import sys

from redrive.cli import run


def main() -> int:
    """Run the command line and answer its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
