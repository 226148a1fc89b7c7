"""Who calls, what they may do, and what their call carries along."""

from enum import StrEnum

from msgspec import Struct

from redrive.domain.errors import Forbidden


class Permission(StrEnum):
    """None implies another."""

    VIEW = "platform.member_admin.view"
    OPERATE = "platform.member_admin.operate"
    DELIVER = "platform.integration.deliver"


class Principal(Struct, frozen=True):
    """An authenticated caller. `session_id` names the credential used, never its secret."""

    id: str
    type: str  # "token" for one of our own, "user" for an identity provider's, "system" for redrive itself
    session_id: str | None
    permissions: frozenset[Permission]

    @property
    def caller(self) -> str:
        """Names the caller among all of them: a user is another one than a token's subject of that name."""
        return self.id if self.type == "token" else f"{self.type}\n{self.id}"  # an id is on one line


SYSTEM = Principal("redrive", "system", None, frozenset())


class NotBelieved(Exception):
    """A credential proves nothing. `why` is a word of ours, with nothing of the credential in it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Call(Struct, frozen=True):
    """One call: who made it and the correlation ids everything it causes is stored under."""

    principal: Principal
    request_id: str
    traceparent: str
    tracestate: str | None = None

    def require(self, permission: Permission) -> None:
        """Raise Forbidden unless the caller has *permission*."""
        if permission not in self.principal.permissions:
            raise Forbidden(permission)
