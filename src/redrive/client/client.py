"""The calls of the service, one method each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack
from urllib.parse import quote, urlencode

from redrive.client.answer import Answer, read, refusal
from redrive.client.bodies import Delivery, instant, write, write_batch, write_delivery, write_object
from redrive.client.errors import BadArgument, ServiceUnreachable
from redrive.client.transport import Transport

_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)
_NOT_GIVEN: Final[Any] = object()


class Correlation(TypedDict, total=False):
    """What every call may carry along; the service stores it with all that the call causes."""

    request_id: str | None
    traceparent: str | None


class Window(TypedDict, total=False):
    """Which page of a list: `limit` is 1 to 200, `cursor` a page's next_cursor."""

    since: datetime | str | None
    until: datetime | str | None
    limit: int | None
    cursor: str | None


class QueueQuery(Window, total=False):
    """Which items of an integration."""

    status: str | None
    failure_code: str | None
    event_type: str | None
    held: bool | None
    resolved: bool | None
    group: str | None
    duplicate_risk: str | None


class GroupQuery(TypedDict, total=False):
    """Which groups of failures of an integration."""

    state: str | None
    limit: int | None
    cursor: str | None


class EventQuery(Window, total=False):
    """Which audit events. `request_id` asks for all that one call caused."""

    request_id: str | None
    event_type: str | None
    integration_id: str | None
    target_id: str | None
    actor: str | None


class _QueueCall(QueueQuery, Correlation, total=False):
    pass


class _GroupCall(GroupQuery, Correlation, total=False):
    pass


class Client:
    """A redrive service, as one caller sees it. Threads may share a client.

    Every method answers the service's JSON object, or raises ProblemError (the service said no),
    ServiceUnreachable (it said nothing) or BadArgument (nothing was sent). The methods take
    `request_id` and `traceparent` for the call itself.

    A call is sent again, once, only when its connection was lost and a second sending is harmless: it reads,
    or it carries an idempotency key (a batch: every delivery in it does). After a timeout never.

    `timeout` is in seconds and bounds each wait for the service, not the whole call.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._transport = Transport(url, timeout)
        self._authorization = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; a later call opens a new one."""
        self._transport.close()

    # integrations

    def integrations(self, **correlation: Unpack[Correlation]) -> Answer:
        """Every integration."""
        return self._get("/platform/integrations", {}, correlation)

    def integration(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One integration."""
        return self._get(_under(integration_id), {}, correlation)

    def create_integration(
        self,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **fields: Any,
    ) -> Answer:
        """Add an integration. A signing secret that the service makes is in this answer, and only here."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        return self._post("/platform/integrations", write(fields), idempotency_key, correlation)

    def update_integration(
        self,
        integration_id: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        **changes: Any,
    ) -> Answer:
        """Change what is given and leave the rest; None goes back to the service's default.

        A signing secret that the service makes for it is in this answer, and only here.
        """
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        return self._call("PATCH", _under(integration_id), write(changes), _correlate(correlation))

    def rotate_secret(
        self,
        integration_id: str,
        *,
        secret: str | None = None,
        signature_scheme: str | None = None,
        overlap_seconds: int | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Answer:
        """Sign with a new secret, given or made (then it is in this answer, and only here).

        Those before it sign as well for *overlap_seconds* (the service's default: a day).
        """
        fields = _given_or_left_out(
            secret=secret, signature_scheme=signature_scheme, overlap_seconds=overlap_seconds
        )
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        path = f"{_under(integration_id)}/secrets/rotate"
        return self._post(path, write(fields), idempotency_key, correlation)

    # containment

    def containment(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """Whether an integration is contained, by whom and why; what waits and what is in flight."""
        return self._get(_under(integration_id, "containment"), {}, correlation)

    def contain(
        self,
        integration_id: str,
        reason: str,
        *,
        mode: str | None = None,
        owner: str | None = None,
        until: datetime | str | None = None,
        for_seconds: float | None = None,
        incident: str | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Stop all that goes to an integration, or change how and until when (the default: in 4 hours).

        Its `state` is `contained` once no attempt can start any more, `containing` until then.
        """
        ends = instant(until) if isinstance(until, datetime) else until
        fields = _given_or_left_out(
            reason=reason, mode=mode, owner=owner, until=ends, for_seconds=for_seconds, incident=incident
        )
        return self._post(_under(integration_id, "containment"), write(fields), idempotency_key, correlation)

    def release(
        self,
        integration_id: str,
        reason: str,
        *,
        rate_per_second: float | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Let an integration send again: what waits at a rate. *dry_run* tells only what that would mean."""
        fields = _given_or_left_out(reason=reason, rate_per_second=rate_per_second, dry_run=dry_run or None)
        path = _under(integration_id, "containment", "release")
        return self._post(path, write(fields), idempotency_key, correlation)

    # how a receiver is

    def integration_health(self, integration_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """A verdict on an integration's receiver, with the facts behind it; nothing is sent."""
        return self._get(_under(integration_id, "health"), {}, correlation)

    def probe(
        self,
        integration_id: str,
        *,
        recovery_id: str | None = None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Make one request to the health URL, or send one item as a trial (with a *reason*).

        It answers when that has ended: whether it succeeded is in the answer's `probe`.
        """
        given = {"recovery_id": recovery_id, "reason": reason}
        fields = {name: value for name, value in given.items() if value is not None}
        return self._post(_under(integration_id, "probe"), write(fields), idempotency_key, correlation)

    # deliveries

    def deliver(
        self,
        integration_id: str,
        *,
        event_type: str,
        payload: Any = _NOT_GIVEN,
        payload_json: bytes | None = None,
        payload_base64: str | bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over one delivery; it is durable when this returns.

        The payload is a JSON value (`payload`), JSON text that must arrive byte for byte (`payload_json`), or
        anything else (`payload_base64`, encoded here when it is bytes, with `content_type`).
        """
        body = write_delivery(
            _given(
                event_type=event_type,
                payload=payload,
                payload_json=_NOT_GIVEN if payload_json is None else payload_json,
                payload_base64=_NOT_GIVEN if payload_base64 is None else payload_base64,
                content_type=_NOT_GIVEN if content_type is None else content_type,
                headers=_NOT_GIVEN if headers is None else dict(headers),
            )
        )
        return self._post(_under(integration_id, "deliveries"), body, idempotency_key, correlation)

    def deliver_batch(
        self,
        integration_id: str,
        deliveries: Sequence[Delivery],
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over up to 1,000 deliveries; the answer is per delivery, in order.

        Each is a mapping with the arguments of `deliver`, or bytes: a delivery already written as JSON, which
        is sent as it is.
        """
        keyed = all(isinstance(one, Mapping) and one.get("idempotency_key") for one in deliveries)
        path = _under(integration_id, "deliveries", "batch")
        return self._call("POST", path, write_batch(deliveries), _correlate(correlation), repeatable=keyed)

    def import_delivery(
        self,
        integration_id: str,
        delivery: Delivery,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hand over a delivery that failed elsewhere, with what is known of it (`status`, …)."""
        path = _under(integration_id, "recovery", "queue")
        return self._post(path, write_delivery(delivery), idempotency_key, correlation)

    # the recovery queue

    def queue(self, integration_id: str, **call: Unpack[_QueueCall]) -> Answer:
        """One page of an integration's items, newest first."""
        query, correlation = _split(call)
        return self._get(_under(integration_id, "recovery", "queue"), query, correlation)

    def queue_all(self, integration_id: str, **call: Unpack[_QueueCall]) -> Iterator[dict[str, Any]]:
        """Every item that matches, newest first, page by page; `limit` is the size of a page."""
        query, correlation = _split(call)
        return self._each(_under(integration_id, "recovery", "queue"), "queue", query, correlation)

    def item(self, integration_id: str, recovery_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One item with its payload, its last answer and its attempts."""
        return self._get(_of_item(integration_id, recovery_id), {}, correlation)

    def replay(
        self,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Open the next cycle of a failed or dlq item."""
        path = _of_item(integration_id, recovery_id, "replay")
        return self._post(path, write({"reason": reason}), idempotency_key, correlation)

    def resolve(
        self,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Close a failed or dlq item for good."""
        path = _of_item(integration_id, recovery_id, "resolve")
        return self._post(path, write({"reason": reason}), idempotency_key, correlation)

    def edit(
        self,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        incident: str | None = None,
        payload: Any = _NOT_GIVEN,
        payload_json: bytes | None = None,
        payload_base64: str | bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Send a corrected copy of a failed or dlq item; what is not given stays as it is.

        A payload is given as to `deliver`; `headers` take the place of all that are there. The copy, an item
        of its own with its own webhook-id, is in the answer as `recovery`.
        """
        body = write_object(
            _given(
                reason=reason,
                incident=_NOT_GIVEN if incident is None else incident,
                payload=payload,
                payload_json=_NOT_GIVEN if payload_json is None else payload_json,
                payload_base64=_NOT_GIVEN if payload_base64 is None else payload_base64,
                content_type=_NOT_GIVEN if content_type is None else content_type,
                headers=_NOT_GIVEN if headers is None else dict(headers),
            )
        )
        return self._post(_of_item(integration_id, recovery_id, "edit"), body, idempotency_key, correlation)

    def erase(
        self,
        integration_id: str,
        recovery_id: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Erase an item's payload, headers and answers for good; a failed or dlq item is closed by it."""
        path = _of_item(integration_id, recovery_id, "erase")
        return self._post(path, write({"reason": reason}), idempotency_key, correlation)

    # groups of failures

    def groups(self, integration_id: str, **call: Unpack[_GroupCall]) -> Answer:
        """One page of an integration's groups of failures, those that failed last first."""
        query, correlation = _split(call)
        return self._get(_under(integration_id, "recovery", "groups"), query, correlation)

    def groups_all(self, integration_id: str, **call: Unpack[_GroupCall]) -> Iterator[dict[str, Any]]:
        """Every group, those that failed last first, page by page; `limit` is the size of a page."""
        query, correlation = _split(call)
        return self._each(_under(integration_id, "recovery", "groups"), "groups", query, correlation)

    def group(
        self,
        integration_id: str,
        group_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One group with a page of its comments, newest first."""
        path = _under(integration_id, "recovery", "groups", group_id)
        return self._get(path, {"limit": limit, "cursor": cursor}, correlation)

    def acknowledge_group(
        self,
        integration_id: str,
        group_id: str,
        reason: str | None = None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Say that you look at an open group."""
        body = {} if reason is None else {"reason": reason}
        path = _under(integration_id, "recovery", "groups", group_id, "acknowledge")
        return self._post(path, write(body), idempotency_key, correlation)

    def resolve_group(
        self,
        integration_id: str,
        group_id: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Close a group and every item that waits in it for good. Cut short, it goes on when called again."""
        body = {"reason": reason}
        path = _under(integration_id, "recovery", "groups", group_id, "resolve")
        return self._post(path, write(body), idempotency_key, correlation)

    def reopen_group(
        self,
        integration_id: str,
        group_id: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Open a group again; items that were resolved with it stay so."""
        body = {"reason": reason}
        path = _under(integration_id, "recovery", "groups", group_id, "reopen")
        return self._post(path, write(body), idempotency_key, correlation)

    def mute_group(
        self,
        integration_id: str,
        group_id: str,
        until: datetime | str | None,
        reason: str | None = None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Hold alerts of a group back until an instant; None ends that."""
        body: dict[str, Any] = {"until": instant(until) if isinstance(until, datetime) else until}
        body |= {} if reason is None else {"reason": reason}
        path = _under(integration_id, "recovery", "groups", group_id, "mute")
        return self._post(path, write(body), idempotency_key, correlation)

    def comment_on_group(
        self,
        integration_id: str,
        group_id: str,
        text: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Write something about a group, for good."""
        body = {"text": text}
        path = _under(integration_id, "recovery", "groups", group_id, "comment")
        return self._post(path, write(body), idempotency_key, correlation)

    # replays of many

    def plan_replay(
        self,
        integration_id: str,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **wanted: Any,
    ) -> Answer:
        """Freeze what matches now (`status`, `group`, `failure_code`, …); nothing is replayed yet."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        given = {name: instant(each) if isinstance(each, datetime) else each for name, each in wanted.items()}
        path = _under(integration_id, "recovery", "replays")
        return self._post(path, write({"filter": given}), idempotency_key, correlation)

    def run_replay(
        self,
        integration_id: str,
        plan_digest: str,
        reason: str,
        *,
        idempotency_key: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
        **options: Any,
    ) -> Answer:
        """Replay what was planned, and nothing else (`rate`, `canary`, `halt_if`, `order`, …)."""
        correlation: Correlation = {"request_id": request_id, "traceparent": traceparent}
        body = {"plan_digest": plan_digest, "reason": reason, **options}
        path = _under(integration_id, "recovery", "replays")
        return self._post(path, write(body), idempotency_key, correlation)

    def replays(
        self,
        integration_id: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One page of an integration's plans and jobs, newest first."""
        path = _under(integration_id, "recovery", "replays")
        return self._get(path, {"limit": limit, "cursor": cursor}, correlation)

    def replays_all(
        self, integration_id: str, *, limit: int | None = None, **correlation: Unpack[Correlation]
    ) -> Iterator[dict[str, Any]]:
        """Every plan and job, newest first, page by page; `limit` is the size of a page."""
        path = _under(integration_id, "recovery", "replays")
        return self._each(path, "replays", {"limit": limit}, correlation)

    def replay_job(self, integration_id: str, replay_id: str, **correlation: Unpack[Correlation]) -> Answer:
        """One plan or job, and how far it is."""
        return self._get(_under(integration_id, "recovery", "replays", replay_id), {}, correlation)

    def replay_items(
        self,
        integration_id: str,
        replay_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """One page of what became of a job's items."""
        path = _under(integration_id, "recovery", "replays", replay_id, "items")
        return self._get(path, {"state": state, "limit": limit, "cursor": cursor}, correlation)

    def replay_items_all(
        self,
        integration_id: str,
        replay_id: str,
        *,
        state: str | None = None,
        limit: int | None = None,
        **correlation: Unpack[Correlation],
    ) -> Iterator[dict[str, Any]]:
        """What became of every item of a job, page by page; `limit` is the size of a page."""
        path = _under(integration_id, "recovery", "replays", replay_id, "items")
        return self._each(path, "items", {"state": state, "limit": limit}, correlation)

    def pause_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Replay nothing more of a job for now."""
        return self._steer((integration_id, replay_id, "pause"), {}, idempotency_key, correlation)

    def resume_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Let a paused job go on."""
        return self._steer((integration_id, replay_id, "resume"), {}, idempotency_key, correlation)

    def cancel_replay(
        self,
        integration_id: str,
        replay_id: str,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Replay nothing more of a job, for good; what was replayed stays so."""
        return self._steer((integration_id, replay_id, "cancel"), {}, idempotency_key, correlation)

    def pace_replay(
        self,
        integration_id: str,
        replay_id: str,
        rate: float | None,
        *,
        idempotency_key: str | None = None,
        **correlation: Unpack[Correlation],
    ) -> Answer:
        """Change how many items a second a job replays; None: as fast as the integration's own limits."""
        return self._steer((integration_id, replay_id, "rate"), {"rate": rate}, idempotency_key, correlation)

    def _steer(
        self,
        where: tuple[str, str, str],
        body: dict[str, Any],
        idempotency_key: str | None,
        correlation: Correlation,
    ) -> Answer:
        integration_id, replay_id, verb = where
        path = _under(integration_id, "recovery", "replays", replay_id, verb)
        return self._post(path, write(body), idempotency_key, correlation)

    # audit

    def audit_events(self, **query: Unpack[EventQuery]) -> Answer:
        """One page of audit events, newest first. Here `request_id` is a filter, not the call's own."""
        return self._get("/platform/audit/events", query, {})

    def audit_events_all(self, **query: Unpack[EventQuery]) -> Iterator[dict[str, Any]]:
        """Every audit event that matches, newest first, page by page; `limit` is the size of a page."""
        return self._each("/platform/audit/events", "events", query, {})

    # evidence

    def evidence(
        self, integration_id: str, recovery_id: str, **correlation: Unpack[Correlation]
    ) -> Iterator[bytes]:
        """The evidence file of one item, in pieces. Without its last line, a manifest, it is not whole."""
        path = _under(integration_id, "recovery", "queue", recovery_id, "evidence")
        return self._stream(path, {}, correlation)

    def audit_export(
        self,
        *,
        incident: str | None = None,
        integration_id: str | None = None,
        request_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> Iterator[bytes]:
        """The evidence file of an incident, an integration or a call (one of them), in pieces."""
        query = {
            "incident": incident,
            "integration_id": integration_id,
            "request_id": request_id,
            "since": since,
            "until": until,
        }
        return self._stream("/platform/audit/export", query, {})

    # the service itself

    def health(self) -> Answer:
        """The process lives."""
        return self._get("/healthz", {}, {})

    def ready(self) -> Answer:
        """It can take work; ProblemError when it cannot."""
        return self._get("/readyz", {}, {})

    def _get(self, path: str, query: Mapping[str, Any], correlation: Correlation) -> Answer:
        return self._call("GET", _asked(path, query), None, _correlate(correlation), repeatable=True)

    def _stream(self, path: str, query: Mapping[str, Any], correlation: Correlation) -> Iterator[bytes]:
        return self._transport.stream(_asked(path, query), self._headers(_correlate(correlation)), refusal)

    def _each(
        self, path: str, rows: str, query: Mapping[str, Any], correlation: Correlation
    ) -> Iterator[dict[str, Any]]:
        page_query = {
            "limit": 200,
            **{name: value for name, value in query.items() if value is not None},
        }
        while True:
            page = self._get(path, page_query, correlation)
            yield from page[rows]
            if page["next_cursor"] is None:
                return
            page_query["cursor"] = page["next_cursor"]

    def _post(self, path: str, body: bytes, idempotency_key: str | None, correlation: Correlation) -> Answer:
        headers = _correlate(correlation)
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self._call("POST", path, body, headers, repeatable=idempotency_key is not None)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        repeatable: bool = False,
    ) -> Answer:
        if body is not None:
            headers["Content-Type"] = "application/json"
        headers = self._headers(headers | {"Accept": "application/json"})
        try:
            return read(self._transport.exchange(method, path, headers, body, repeatable=repeatable))
        except ServiceUnreachable as error:
            error.maybe_sent &= method != "GET"  # a read has no effect to look for
            raise

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        headers |= self._authorization | {"User-Agent": "redrive-client"}
        for name, value in headers.items():
            if not _HEADER_VALUE.fullmatch(value):
                raise BadArgument(f"{_ARGUMENTS.get(name, name)} must be visible ASCII characters")
        return headers


_ARGUMENTS = {
    "Authorization": "the token",
    "Idempotency-Key": "the idempotency key",
    "X-Request-Id": "the request id",
}


def _under(integration_id: str, *rest: str) -> str:
    segments = (integration_id, *rest)
    if not all(segments) or any(segment in (".", "..") for segment in segments):
        raise BadArgument("an id is neither empty nor made of dots")
    return "/platform/integrations/" + "/".join(quote(segment, safe="") for segment in segments)


def _of_item(integration_id: str, recovery_id: str, *verb: str) -> str:
    return _under(integration_id, "recovery", "queue", recovery_id, *verb)


def _asked(path: str, query: Mapping[str, Any]) -> str:
    """The target of a call: its path, with what is given of its query."""
    given = urlencode({name: _word(value) for name, value in query.items() if value is not None})
    return f"{path}?{given}" if given else path


def _correlate(correlation: Correlation) -> dict[str, str]:
    given = {
        "X-Request-Id": correlation.get("request_id"),
        "traceparent": correlation.get("traceparent"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _split(call: Mapping[str, Any]) -> tuple[dict[str, Any], Correlation]:
    query = dict(call)
    correlation: Correlation = {
        "request_id": query.pop("request_id", None),
        "traceparent": query.pop("traceparent", None),
    }
    return query, correlation


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not _NOT_GIVEN}


def _given_or_left_out(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return instant(value) if isinstance(value, datetime) else str(value)
