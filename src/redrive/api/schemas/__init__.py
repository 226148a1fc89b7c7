"""The JSON Schemas (2020-12) of what goes in and out: from the code's own words wherever it has them."""

from redrive.api.schemas import (
    containment,
    deliveries,
    groups,
    health,
    integrations,
    queue,
    replays,
    system,
)
from redrive.api.schemas.parts import Schema


def components() -> dict[str, Schema]:
    """Every schema by its name."""
    themes = (deliveries, integrations, queue, groups, replays, containment, health, system)
    return {name: schema for theme in themes for name, schema in theme.SCHEMAS.items()}
