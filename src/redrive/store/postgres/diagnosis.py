"""What the facts of a check-up mean for redrive, and what to do about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from redrive.domain.delivery import rfc3339
from redrive.store.postgres.checkup import Content, Facts, Holder, Process, Server

OLDEST_VERSION: Final = 14
MOST_SECONDS_APART: Final = 2.0
LONGEST_SECONDS: Final = 300.0
MOST_TRANSACTIONS: Final = 1_000_000
LEAST_AHEAD: Final = timedelta(weeks=1)


class Remark(NamedTuple):
    """What is to be said about one thing."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is meant to run on the database."""

    processes: int
    connections: int  # of each process, one more to listen
    timeout_seconds: float
    lease_seconds: float


def diagnose(facts: Facts, plan: Plan) -> Iterator[Remark]:
    """One remark about each thing that matters; those about the content where there is any."""
    yield _version(facts.server)
    yield _writable(facts.server)
    yield from _durable(facts.server)
    yield _clock(facts.seconds_apart)
    yield _holder(facts.holder)
    yield _schema(facts)
    yield _connections(facts, plan)
    if facts.content is not None:
        yield _lease(facts.content, plan)
        yield _processes(facts.content)
        yield _lanes(facts.content)
        yield _partitions(facts.content, facts)


def _judge(name: str, told: str, *, ok: bool, advice: str) -> Remark:
    """What is so, and when it is not well what that means and what to do."""
    return Remark(name, ok, told if ok else f"{told}: {advice}")


def _version(server: Server) -> Remark:
    ok = server.version_number >= OLDEST_VERSION * 10_000
    advice = f"redrive needs PostgreSQL {OLDEST_VERSION} or newer"
    return _judge("PostgreSQL", server.version, ok=ok, advice=advice)


def _writable(server: Server) -> Remark:
    if server.is_standby:
        advice = "give the primary's address, or those of all with ?target_session_attrs=read-write"
        return _judge("primary", "this is a standby, which only reads", ok=False, advice=advice)
    advice = "nothing can be written; ALTER DATABASE … RESET default_transaction_read_only, or the role's"
    told = "sessions are read-only from the start" if server.is_read_only else "takes writes"
    return _judge("primary", told, ok=not server.is_read_only, advice=advice)


def _durable(server: Server) -> Iterator[Remark]:
    fatal = "a crash of the machine can destroy the whole database; turn it on in the server's configuration"
    yield _judge("fsync", server.fsync, ok=server.fsync == "on", advice=fatal)
    yield _judge(
        "full_page_writes", server.full_page_writes, ok=server.full_page_writes == "on", advice=fatal
    )
    lossy = (
        "what was answered with 202 can be lost in a crash; ALTER DATABASE … SET synchronous_commit = on"
        " (or the role's, or the server's), then start the processes again"
    )
    told = server.synchronous_commit
    if server.asynchronous_standbys:
        told += " (standbys follow asynchronously: promoting one can lose what was acknowledged)"
    yield _judge("synchronous_commit", told, ok=server.synchronous_commit != "off", advice=lossy)


def _clock(seconds: float) -> Remark:
    told = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} the database's"
    advice = "that one decides when something is due, this one stamps the logs here; synchronise both (NTP)"
    return _judge("clock", told, ok=abs(seconds) <= MOST_SECONDS_APART, advice=advice)


def _holder(holder: Holder | None) -> Remark:
    if holder is None:
        return Remark("oldest transaction", True, "none is open")
    age = "" if holder.seconds is None else f" for {_span(holder.seconds)},"
    told = f"{holder.who},{age} {holder.transactions} transactions back"
    ok = (holder.seconds or 0.0) < LONGEST_SECONDS and holder.transactions < MOST_TRANSACTIONS
    advice = f"no row that changed since can be cleaned up, and tables grow; end it ({holder.remedy})"
    return _judge("oldest transaction", told, ok=ok, advice=advice)


def _schema(facts: Facts) -> Remark:
    server = facts.server
    if facts.trouble_with_schema is not None:
        return Remark("schema", False, facts.trouble_with_schema)
    if server.schema is None:
        return Remark("schema", False, "none of the search_path exists; CREATE SCHEMA makes one")
    told = "of this version" if server.has_schema else "none yet; `redrive serve` makes it when it starts"
    advice = (
        f"{server.role} may make no tables there (those of the weeks to come, for one);"
        f' GRANT CREATE ON SCHEMA "{server.schema}" TO "{server.role}"'
    )
    return _judge("schema", told, ok=bool(server.may_create), advice=advice)


def _connections(facts: Facts, plan: Plan) -> Remark:
    server, each = facts.server, plan.connections + 1
    processes = max(plan.processes, len(facts.content.processes) if facts.content else 0)
    told = (
        f"up to {processes * each} for {_count(processes, 'process', 'processes')} (each"
        f" {plan.connections} database_connections, and one to listen), of the {server.connections} that"
        f" max_connections leaves; {server.connected} open now"
    )
    advice = "raise max_connections, or lower REDRIVE_DATABASE_CONNECTIONS"
    return _judge("connections", told, ok=processes * each <= server.connections, advice=advice)


def _lease(content: Content, plan: Plan) -> Remark:
    timeout = max(content.longest_timeout or 0.0, plan.timeout_seconds)
    told = (
        f"the work of a process that the database does not hear of for {plan.lease_seconds:g} s"
        " (lease_seconds) goes to the others"
    )
    if timeout > plan.lease_seconds:
        told += (
            f"; attempts may take longer ({timeout:g} s), which is well: it is renewed while they go on. A"
            " process that cannot renew it cuts them off, and they are recorded as LEASE_EXPIRED"
        )
    return Remark("lease", True, told)


def _processes(content: Content) -> Remark:
    live = _live(content)
    told = f"{len(live)}: {', '.join(map(_process, live))}" if live else "none runs on this database"
    if gone := [process for process in content.processes if process not in live]:
        told += f"; not heard of: {', '.join(map(_gone, gone))}, whose work goes to whichever sends next"
    ok = not live or any(process.sends for process in live)
    advice = "none that runs sends; start `redrive serve --role worker`"
    return _judge("processes", told, ok=ok, advice=advice)


def _live(content: Content) -> list[Process]:
    return [process for process in content.processes if process.lease_seconds > 0]


def _process(process: Process) -> str:
    return f"{_name(process)} ({'sends' if process.sends else 'takes calls only'})"


def _gone(process: Process) -> str:
    return f"{_name(process)} (its lease ended {_span(-process.lease_seconds)} ago)"


def _name(process: Process) -> str:
    host, _namespace, _, pid = process.process.rsplit(" ", 3)
    return f"pid {pid} on {host}"


def _lanes(content: Content) -> Remark:
    could_be_owned = any(process.sends for process in _live(content))
    if not content.lanes:
        return Remark("lanes", True, "none; each integration is one, or as many as it has shards")
    if not content.ownerless:
        told = (
            f"{content.lanes} (one for each integration, or for each of its shards), each owned by a process"
        )
        return Remark("lanes", True, told)
    told = f"{content.ownerless} of {content.lanes} (integrations, or shards of them) are owned by no process"
    advice = "nothing is sent there; a process takes them within seconds, so look again, then at its log"
    return _judge("lanes", told, ok=not could_be_owned, advice=advice)


def _partitions(content: Content, facts: Facts) -> Remark:
    table, reach = min(content.reaches.items(), key=lambda pair: pair[1])
    told = f"{table} has them up to {rfc3339(reach)[:10]}, and no other ends earlier"
    advice = "later rows find no place, and are answered 503; restart a `redrive serve`, which makes more"
    return _judge("partitions", told, ok=reach - facts.now >= LEAST_AHEAD, advice=advice)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
