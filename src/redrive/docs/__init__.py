"""Generators of docs/reference: `python -m redrive.docs` writes it, `--check` fails when it is stale."""
