"""The ASGI application: find the route, know the caller, run the handler, reply; every error a problem."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any

from redrive.api import problems
from redrive.api.call import SECURITY_HEADERS, Asked, Headers, Reply, Route, correlation
from redrive.domain.errors import Forbidden, MethodNotAllowed, PathNotFound, RedriveError
from redrive.domain.integration import INTEGRATION_ID
from redrive.engine.jwt import MOST_CHARACTERS
from redrive.engine.runtime import Engine
from redrive.store.port import StoreInconsistent, StoreUnavailable
from redrive.telemetry.events import LoopFailed, RequestHandled, StoreFailed

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
UNMATCHED = "(none)"
_SCHEME = "bearer "
_PARAMETER = re.compile(r"\{(\w+)\}")


class Api:
    """Raw ASGI, because the hottest route is; one pipeline for it and all others."""

    def __init__(self, engine: Engine, routes: Sequence[Route]) -> None:
        self.engine = engine
        self._table: list[tuple[re.Pattern[str], str, dict[str, Route]]] = []
        for route in routes:
            self._add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reply to one HTTP call."""
        if scope["type"] != "http":
            return
        started = perf_counter()
        headers = Headers.of(scope["headers"])
        request_id, traceparent, tracestate = correlation(headers)
        raw_path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        method, template = scope["method"], UNMATCHED
        try:
            route, template, path = self._find(raw_path, "GET" if method == "HEAD" else method)
            asked = Asked(
                engine=self.engine,
                headers=headers,
                method=method,
                route=template,
                path=path,
                raw_path=raw_path,
                query_string=scope["query_string"],
                receive=receive,
                request_id=request_id,
                traceparent=traceparent,
                tracestate=tracestate,
            )
            reply = await self._run(route, asked, _address(scope))
        except Exception as error:  # noqa: BLE001 - the edge: each becomes a problem, and ours are reported
            reply = self._problem(error, raw_path, request_id)
        if reply.stream is None:
            reply.headers.append((b"content-length", b"%d" % len(reply.body)))
        reply.headers += [
            (b"content-type", reply.content_type),
            (b"x-request-id", request_id.encode()),
            (b"traceparent", traceparent.encode()),
            *SECURITY_HEADERS,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        if reply.stream is not None and method != "HEAD":
            await self._stream(reply.stream, receive, send)
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else reply.body})
        self.engine.announce(
            RequestHandled(method, template, reply.status, perf_counter() - started, request_id)
        )

    async def _run(self, route: Route, asked: Asked, address: str) -> Reply:
        """401, then 429, then 403, then whatever the handler finds."""
        if route.permission is not None:
            token = _bearer(asked.headers)
            access = self.engine.access
            asked.principal = access.known(token) if token else None
            if asked.principal is None:
                if not token:
                    access.refuse("missing")
                asked.principal = await access.principal(token, address)
            access.admit(asked.principal)
            try:
                asked.call.require(route.permission)
            except Forbidden as error:
                await self._note_denial(asked, error)
                raise
        return await route.handler(asked)

    async def _stream(self, stream: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
        """Send what comes for as long as somebody takes it; what fails on the way cuts the answer off."""
        hung_up = asyncio.create_task(_until_hung_up(receive))
        try:
            async with aclosing(stream):
                async for piece in stream:
                    if hung_up.done():
                        break
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            self._problem(error, "", "")  # it is announced; the caller is told by the end that is missing
            raise
        finally:
            hung_up.cancel()

    async def _note_denial(self, asked: Asked, error: Forbidden) -> None:
        integration_id = asked.path.get("integration_id", "")
        is_known = INTEGRATION_ID.fullmatch(integration_id) and asked.call.principal.sees(integration_id)
        named = integration_id if is_known else None  # nobody writes into the log of another tenant
        await self.engine.access.note_denial(
            asked.call, named, f"{asked.method} {asked.route}", error.permission
        )

    def _find(self, path: str, method: str) -> tuple[Route, str, dict[str, str]]:
        for pattern, template, routes in self._table:
            if (match := pattern.fullmatch(path)) is not None:
                route = routes.get(method)
                if route is None:
                    raise MethodNotAllowed(tuple(sorted(routes)))
                return route, template, match.groupdict()
        raise PathNotFound("there is nothing at this path; GET /openapi.json lists what there is")

    def _problem(self, error: Exception, instance: str, request_id: str) -> Reply:
        if isinstance(error, StoreUnavailable):
            self.engine.health.failed("call", error)
        elif isinstance(error, StoreInconsistent):
            self.engine.announce(StoreFailed("call", str(error)))
        elif not isinstance(error, RedriveError):
            self.engine.announce(LoopFailed("api", error))
        return problems.reply(problems.as_error(error), instance=instance, request_id=request_id)

    def _add(self, route: Route) -> None:
        for _, template, routes in self._table:
            if template == route.path:
                routes[route.method] = route
                return
        # The raw path is matched: what is percent-encoded stays so, and then breaks an id's grammar.
        pattern = re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", route.path.replace(".", r"\.")))
        self._table.append((pattern, route.path, {route.method: route}))


async def _until_hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _address(scope: Scope) -> str:
    """The other end of the connection: a caller's, or a proxy's."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _bearer(headers: Headers) -> str | None:
    value = headers.once(b"authorization")
    if value is None or value[:7].lower() != _SCHEME or len(value) > len(_SCHEME) + MOST_CHARACTERS:
        return None
    return value[7:].strip(" ") or None
