"""Named queries: `-- name: x` in a .sql file starts the query that code calls `x`."""

from collections.abc import Mapping
from importlib.resources import files


def load_queries(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """Every named query of *file* in *package*, comments included (they explain themselves in logs)."""
    queries: dict[str, str] = {}
    for block in files(package).joinpath(file).read_text("utf-8").split("-- name: ")[1:]:
        name, _, sql = block.partition("\n")
        if name in queries:
            raise ValueError(f"two queries are named {name}")
        queries[name] = sql.strip().rstrip(";")
    return queries
