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
    type: str  # "token" for a bearer token, "system" for redrive itself
    session_id: str | None
    permissions: frozenset[Permission]


SYSTEM = Principal("redrive", "system", None, frozenset())


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
