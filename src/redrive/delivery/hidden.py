"""Values that hold a secret: what prints one, by mistake or in a traceback, prints its name alone."""

from msgspec import Struct


class Hidden(Struct, frozen=True):
    """Shows nothing of itself."""

    def __repr__(self) -> str:
        """Its name alone."""
        return f"{type(self).__name__}(…)"
