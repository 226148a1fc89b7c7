"""Who calls, what they may do, and what their call carries along."""

import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

from redrive.domain.errors import Forbidden

TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?", re.ASCII)


class Permission(StrEnum):
    """None implies another."""

    VIEW = "platform.member_admin.view"
    OPERATE = "platform.member_admin.operate"
    DELIVER = "platform.integration.deliver"
    EDIT = "platform.integration.edit"


class Principal(Struct, frozen=True):
    """An authenticated caller. `session_id` names the credential used, never its secret.

    One that is bound to a tenant sees the integrations whose id begins with its name and a dot, and nothing
    else; what it does not see is for it as if it were not there.
    """

    id: str
    type: str  # "token" for one of our own, "user" for an identity provider's, "system" for redrive itself
    session_id: str | None
    permissions: frozenset[Permission]
    tenant: str | None = None

    @property
    def caller(self) -> str:
        """Names the caller among all of them: others may have its id, of another type or tenant."""
        return f"{self.type}\n{self.tenant or ''}\n{self.id}"  # each is on one line

    def sees(self, integration_id: str) -> bool:
        """Whether there is such an integration, as far as it may know."""
        return self.tenant is None or integration_id.startswith(f"{self.tenant}.")


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
