"""Settings: one row each, read once at start into a frozen value that is passed, never imported.

A setting comes from the command line, else its REDRIVE_<NAME> variable, else redrive.toml; else it
has its default.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args, get_type_hints

from redrive.domain.access import Permission
from redrive.domain.alerting import Thresholds
from redrive.domain.errors import InvalidPayload
from redrive.domain.integration import INTEGRATION_ID, MAX_ATTEMPTS, MAX_TIMEOUT_SECONDS, Defaults, is_line
from redrive.domain.outcome import RETRYABLE_NETWORK_CODES
from redrive.domain.proxy import Proxy, parse_proxy
from redrive.domain.target import parse_target

Network = IPv4Network | IPv6Network
Role = Literal["all", "api", "worker"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]
DATA_DIR: Final = "<data_dir>"  # in a database URL or a path, stands for that setting
_FILE: Final = "redrive.toml"
_PREFIX: Final = "REDRIVE_"
_CONFIG: Final = "REDRIVE_CONFIG"
_OTHER_VARIABLES: Final = (_CONFIG, "REDRIVE_URL", "REDRIVE_TOKEN")
_SQLITE: Final = "sqlite:///"
# Written as a path, or as other programs have it.
_FILE_PATH = re.compile(r"(?:(?:sqlite|file):(?://)?)?((?!//)[\w./-]+\.(?:db|sqlite3?))", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?", re.ASCII)
_NETWORK = re.compile(r"[0-9A-Fa-f:.]{1,64}(?:/[0-9]{1,3})?", re.ASCII)
# What ends a part of a URL is percent-encoded in a password, or what follows is taken for a host or a port.
_POSTGRES = re.compile(
    r"postgres(?:ql)?://([^/?#\[\]]*@)?{host}(,{host})*(/[^?#]*)?(\?{pair}(&{pair})*)?".format(
        host=r"([^@:,/?#\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", pair=r"[^=&#]+=[^&#]*"
    ),
    re.ASCII,
)


class BadSettings(Exception):
    """The settings are wrong and nothing was started; `problems` has a sentence for each."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting is written: in words, as text (`read` raises ValueError), and in TOML."""

    word: str
    read: Callable[[str], Any]
    toml: tuple[type, ...] = (str,)  # a string, read like a variable's, will do for every kind


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: what can be set, and what it does."""

    name: str
    kind: Kind
    default: Any
    sentence: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return _PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return f"--{self.name.replace('_', '-')}"


def _text(text: str) -> str:
    if not is_line(text, 1024):
        raise ValueError
    return text


def _integration_id(text: str) -> str:
    if text and not INTEGRATION_ID.fullmatch(text):
        raise ValueError
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _database(text: str) -> str:
    if _POSTGRES.fullmatch(_text(text)):
        return text
    path = text.removeprefix(_SQLITE)
    if path == text and (bare := _FILE_PATH.fullmatch(text)):
        raise ValueError(f"a file is written {_SQLITE}{bare[1]}")
    # :memory: would not outlive the process; ? and # are where other programs put parameters
    if path in (text, "", ":memory:") or path.endswith("/") or "?" in path or "#" in path:
        raise ValueError
    return text


def _network(text: str) -> Network:
    if not _NETWORK.fullmatch(text):  # ip_network would also take a netmask, a hostmask, a zone
        raise ValueError(f"{text!r} is none")
    return ip_network(text)


def _network_of(text: str) -> tuple[str, Network]:
    integration_id, _, network = text.partition("=")
    if not INTEGRATION_ID.fullmatch(integration_id):
        raise ValueError(f"{text!r} does not begin with an integration_id and =")
    return integration_id, _network(network)


def _permission_of(text: str) -> tuple[str, Permission]:
    value, _, name = text.rpartition("=")
    if not is_line(value, 256) or name not in set(Permission):
        raise ValueError(f"{text!r} does not end with = and a permission")
    return value, Permission(name)


def _integer(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Kind(f"an integer from {low} to {high}", read, (int,))


def _number(low: float, high: float) -> Kind:
    def read(text: str) -> float:
        if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return Kind(f"a number from {low:g} to {high:g}", read, (int, float))


def _choice(words: tuple[str, ...]) -> Kind:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Kind(f"{', '.join(words[:-1])} or {words[-1]}", read)


def _list(word: str, read_one: Callable[[str], Any]) -> Kind:
    def read(text: str) -> tuple[Any, ...]:
        return tuple(read_one(part.strip(" ")) for part in text.split(",")) if text else ()

    return Kind(f"a comma-separated list of {word}", read, (list,))


_TEXT = Kind("text on one line, without space at either end", _text)
_PATH = Kind("a path", lambda text: Path(_text(text)))
_FLAG = Kind("true or false", _flag, (bool,))
_DATABASE = Kind(
    "sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database"
    " (%2F for a / in a password)",
    _database,
)
_PROXY = Kind(
    "http://host:port, or http://user:password@host:port (%40 for an @ in a password)",
    lambda text: parse_proxy(text) if text else None,
)
_NETWORKS = _list("ranges such as 10.0.0.0/8", _network)
_NETWORKS_OF = _list("ranges, each of an integration, such as billing=10.0.0.0/8", _network_of)
_PERMISSIONS_OF = _list(
    "values of the claim, each with a permission, such as"
    f" operators={Permission.OPERATE},operators={Permission.VIEW}",
    _permission_of,
)
_PORTS = _list("ports", _integer(1, 65535).read)
_CODES = _list(f"codes among {' '.join(RETRYABLE_NETWORK_CODES)}", _choice(RETRYABLE_NETWORK_CODES).read)
_INTEGRATION = Kind("an integration_id, or nothing", _integration_id)
_DELAY = _number(0.001, 86_400)
_BUILT_IN: Final = Defaults()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator chose; each field is one row."""

    database: Annotated[str, _DATABASE, f"Where everything is kept; it may hold {DATA_DIR}."] = field(
        default=f"{_SQLITE}{DATA_DIR}/redrive.db",
        repr=False,  # it may hold a password
    )
    data_dir: Annotated[Path, _PATH, "The directory for redrive's own files."] = Path("redrive-data")
    key_file: Annotated[
        str,
        _TEXT,
        f"The file of the keys that secrets are sealed under; it may hold {DATA_DIR}. None: beside a SQLite"
        " database, under its name; else redrive.keys in data_dir.",
    ] = ""
    seal_content: Annotated[
        bool, _FLAG, "Whether payloads and the bodies of answers are sealed at rest, as secrets always are."
    ] = False
    role: Annotated[
        Role, _choice(get_args(Role)), "What a process does: answer calls (api), send (worker), or all."
    ] = "all"
    host: Annotated[str, _TEXT, "The address the HTTP server listens on."] = "127.0.0.1"
    port: Annotated[int, _integer(0, 65535), "The port the HTTP server listens on; 0 takes any free one."] = (
        8080
    )
    metrics_port: Annotated[
        int,
        _integer(0, 65_000),
        "A port of its own for /metrics, /healthz and /readyz; 0: none. With workers, each has the next one.",
    ] = 0
    allow_targets: Annotated[
        tuple[Network, ...], _NETWORKS, "Private ranges deliveries may go to, on every port."
    ] = ()
    allow_targets_of: Annotated[
        tuple[tuple[str, Network], ...],
        _NETWORKS_OF,
        "Private ranges that deliveries of one integration may go to, on every port.",
    ] = ()
    allow_ports: Annotated[
        tuple[int, ...], _PORTS, "Ports deliveries may go to besides 443 (and 80 with allow_http)."
    ] = ()
    allow_http: Annotated[bool, _FLAG, "Whether targets may be plain http."] = False
    egress_proxy: Annotated[
        Proxy | None,
        _PROXY,
        "A forward proxy that everything is sent through, in tunnels (CONNECT) to the judged addresses.",
    ] = None
    max_attempts: Annotated[
        int, _integer(1, MAX_ATTEMPTS), "How many attempts a cycle has, the first one included."
    ] = _BUILT_IN.max_attempts
    base_delay_seconds: Annotated[
        float,
        _DELAY,
        "Seconds from the first attempt to the second (and up to 50 ms); each further delay doubles.",
    ] = _BUILT_IN.base_delay_seconds
    max_delay_seconds: Annotated[float, _DELAY, "Seconds a delay grows to at most, before jitter."] = (
        _BUILT_IN.max_delay_seconds
    )
    jitter: Annotated[
        float, _number(0, 1), "The share of a delay that chance adds or takes away at most."
    ] = _BUILT_IN.jitter
    timeout_seconds: Annotated[
        float, _number(0.1, MAX_TIMEOUT_SECONDS), "Seconds one attempt may take in all."
    ] = _BUILT_IN.timeout_seconds
    concurrency: Annotated[
        int, _integer(1, 10_000), "How many attempts to one integration may be in flight."
    ] = _BUILT_IN.concurrency
    retryable_network_codes: Annotated[
        tuple[str, ...], _CODES, "Network failures that are worth another attempt."
    ] = _BUILT_IN.retryable_network_codes
    breaker_failure_share: Annotated[
        float,
        _number(0, 1),
        "The share of recent attempts that must fail for an integration's breaker to open; 0: it never does.",
    ] = _BUILT_IN.breaker_failure_share
    breaker_minimum: Annotated[
        int, _integer(1, 10_000), "How many attempts must have ended for a breaker to open."
    ] = _BUILT_IN.breaker_minimum
    breaker_window_seconds: Annotated[
        float, _number(5, 3600), "Seconds for which an attempt that ended counts as recent for a breaker."
    ] = _BUILT_IN.breaker_window_seconds
    slots: Annotated[int, _integer(1, 100_000), "How many attempts may be in flight in one process."] = 1024
    drain_seconds: Annotated[
        float,
        _number(0, 3600),
        "Seconds a stop waits for what is in flight; 65 is over the longest timeout.",
    ] = 65.0
    max_queued: Annotated[
        int,
        _integer(1, 1_000_000),
        "How many deliveries may wait for their commit; further ones are answered 429.",
    ] = 10_000
    auth_failures_per_minute: Annotated[
        int,
        _integer(1, 1_000_000),
        "Tokens an address may show that are not valid; further unknown ones from there are answered 429.",
    ] = 100
    calls_per_second: Annotated[
        int,
        _integer(0, 1_000_000),
        "Calls one token's subject may make to a process; further ones are answered 429. 0: no limit.",
    ] = 0
    jwt_issuer: Annotated[
        str, _TEXT, "The OpenID Connect provider whose tokens (JWTs) callers may use: their `iss`, a URL."
    ] = ""
    jwt_audience: Annotated[str, _TEXT, "What stands for this service in their `aud`."] = ""
    jwt_jwks_url: Annotated[
        str, _TEXT, "Where the provider's keys are; none: where its discovery document says."
    ] = ""
    jwt_permissions_claim: Annotated[
        str,
        _TEXT,
        "The claim that says what a caller may do; a dot leads into an object: realm_access.roles.",
    ] = "scope"
    jwt_permissions: Annotated[
        tuple[tuple[str, Permission], ...],
        _PERMISSIONS_OF,
        "What values of that claim permit; a permission's own name always permits it.",
    ] = ()
    jwt_tenant_claim: Annotated[
        str,
        _TEXT,
        "The claim that names the tenant a caller is bound to, or is *; none: no caller is bound to one.",
    ] = ""
    workers: Annotated[
        int, _integer(1, 256), "How many processes `redrive serve` starts on this machine (PostgreSQL)."
    ] = 1
    readers: Annotated[int, _integer(1, 64), "How many threads read the SQLite file."] = 2
    database_connections: Annotated[
        int, _integer(2, 200), "How many connections a process opens to PostgreSQL, one more to listen."
    ] = 10
    lease_seconds: Annotated[
        float,
        _number(3, 300),
        "Seconds after which a process that PostgreSQL has not heard of is dead, and others send its work.",
    ] = 15.0
    history_days: Annotated[
        int,
        _integer(0, 36_500),
        "Days that finished deliveries are kept, with their attempts; 0 keeps them for ever.",
    ] = 0
    resolved_days: Annotated[
        int,
        _integer(0, 36_500),
        "Days that what a person resolved is kept, at least history_days; 0: as long as those.",
    ] = 0
    audit_days: Annotated[
        int,
        _integer(0, 36_500),
        "Days that audit events are kept, and longer while older work is open; 0 keeps them for ever.",
    ] = 0
    database_is_pooled: Annotated[
        bool, _FLAG, "Whether a pooler in transaction mode (PgBouncer) stands before PostgreSQL."
    ] = False
    alerts_to: Annotated[
        str, _INTEGRATION, "The integration that operators are told through; none: they are not told."
    ] = ""
    alert_dead_letters: Annotated[
        int,
        _integer(1, 1_000_000),
        "More deliveries of an integration than this, dead within alert_window_minutes, are told.",
    ] = 100
    alert_window_minutes: Annotated[int, _integer(1, 1440), "Minutes over which those are counted."] = 10
    alert_quiet_minutes: Annotated[
        int,
        _integer(0, 10_080),
        "Minutes in which the same is not told again of the same integration.",
    ] = 60
    log_level: Annotated[
        LogLevel, _choice(get_args(LogLevel)), "The least that is logged; debug has every attempt."
    ] = "info"
    log_format: Annotated[
        LogFormat,
        _choice(get_args(LogFormat)),
        "How log lines look; auto is console on a terminal and json elsewhere.",
    ] = "auto"
    otel: Annotated[
        bool, _FLAG, "Whether attempts become OpenTelemetry spans, sent as the OTEL_* variables say."
    ] = False

    def defaults(self) -> Defaults:
        """What an integration that says nothing gets."""
        return Defaults(**{name: getattr(self, name) for name in Defaults.__struct_fields__})

    def alerting(self) -> Thresholds:
        """What is too much to go without saying."""
        return Thresholds(
            self.alert_dead_letters,
            timedelta(minutes=self.alert_window_minutes),
            timedelta(minutes=self.alert_quiet_minutes),
        )

    def database_address(self) -> str:
        """The database, as anyone may read it."""
        return without_secrets(self.database)

    def key_path(self) -> Path:
        """The key file, from the root on."""
        if self.key_file:
            return Path(self.key_file.replace(DATA_DIR, str(self.data_dir))).absolute()
        database = self.sqlite_path()
        return (
            self.data_dir / "redrive.keys" if database is None else database.with_suffix(".keys")
        ).absolute()

    def sqlite_path(self) -> Path | None:
        """The file of a SQLite database; None when the database is another."""
        path = self.database.removeprefix(_SQLITE)
        return None if path == self.database else Path(path.replace(DATA_DIR, str(self.data_dir)))


def without_secrets(url: str) -> str:
    """A database's URL without its user and parameters: a password may be in either."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _rows() -> Iterator[Setting]:
    hints = get_type_hints(Settings, include_extras=True)
    for row in fields(Settings):
        kind, sentence = hints[row.name].__metadata__
        yield Setting(row.name, kind, row.default, sentence)


SETTINGS: Final = tuple(_rows())
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


class _Given(NamedTuple):
    source: str  # what the operator would look for: --port, REDRIVE_PORT, redrive.toml: port
    value: Any


def load(
    overrides: Mapping[str, str | None] = {},
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
    *,
    options: Mapping[str, str] = {},
) -> Settings:
    """Read the settings, or raise BadSettings with every problem there is.

    *overrides* come from the command line, by setting name (None: not given); *options* says where
    there, when it is not the option of that name. *file* must exist, and so must REDRIVE_CONFIG if set;
    redrive.toml in the working directory may.
    """
    problems: list[str] = []
    given = _from_file(file, environ, problems)
    given |= _from_environ(environ, problems)
    given |= _from_overrides(overrides, options, problems)
    values = {setting.name: setting.default for setting in SETTINGS}
    for name, (source, value) in given.items():
        try:
            values[name] = _BY_NAME[name].kind.read(_written(value, _BY_NAME[name].kind))
        except ValueError as error:
            why = f"; {error}" if str(error) else ""
            problems.append(f"{source} must be {_BY_NAME[name].kind.word}{why}")
            del values[name]
    problems += _contradictions(values)
    if problems:
        raise BadSettings(*problems)
    return Settings(**values)


def _from_file(file: Path | None, environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    path = file or (Path(environ[_CONFIG]) if _CONFIG in environ else None)
    if path is None and not Path(_FILE).exists():
        return {}
    path = path or Path(_FILE)
    try:
        rows = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both
        problems.append(f"{path} is not TOML: {error}")
    else:
        strange = [name for name in rows if name not in _BY_NAME]
        problems += [f"{path}: {_unknown(name, tuple(_BY_NAME))}" for name in strange]
        return {name: _Given(f"{path}: {name}", rows[name]) for name in rows if name in _BY_NAME}
    return {}


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Given]:
    known = {setting.variable: setting.name for setting in SETTINGS}
    names = (*known, *_OTHER_VARIABLES)
    ours = (name for name in environ if name.startswith(_PREFIX))
    problems += [_unknown(name, names) for name in ours if name not in names]
    return {known[name]: _Given(name, value) for name, value in environ.items() if name in known}


def _from_overrides(
    overrides: Mapping[str, str | None], options: Mapping[str, str], problems: list[str]
) -> dict[str, _Given]:
    problems += [_unknown(name, tuple(_BY_NAME)) for name in overrides if name not in _BY_NAME]
    return {
        name: _Given(options.get(name, _BY_NAME[name].option), text)
        for name, text in overrides.items()
        if name in _BY_NAME and text is not None
    }


def _unknown(name: str, names: tuple[str, ...]) -> str:
    prefix = _PREFIX if name.startswith(_PREFIX) else ""  # shared, it would make every name look near
    near = get_close_matches(name.removeprefix(prefix), [n.removeprefix(prefix) for n in names], n=1)
    return f"{name} is not a setting" + (f"; did you mean {prefix}{near[0]}?" if near else "")


def _written(value: Any, kind: Kind) -> str:
    """A TOML value as text, so that every source is read by the same grammar."""
    if isinstance(value, str):
        return value
    if type(value) not in kind.toml:  # a bool is an int to isinstance
        raise ValueError
    if isinstance(value, list):
        if not all(isinstance(one, str | int) for one in value):
            raise ValueError
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else repr(value).removesuffix(".0")


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with values that are right one by one; a bad one is missing."""
    base, most = values.get("base_delay_seconds"), values.get("max_delay_seconds")
    if base is not None and most is not None and base > most:
        yield f"base_delay_seconds ({base:g}) must not be more than max_delay_seconds ({most:g})"
    port, first, count = (values.get(name) for name in ("port", "metrics_port", "workers"))
    if port and first and count and first <= port < first + count:
        yield f"port ({port}) must not be one of the {count} metrics ports that begin with {first}"
    history, resolved = values.get("history_days"), values.get("resolved_days")
    if history is not None and resolved and not history <= resolved:
        yield f"resolved_days ({resolved}) must not be fewer than history_days ({history})"
    if resolved and history == 0:
        yield "resolved_days means nothing without history_days: all is kept for ever"
    yield from _contradictions_of_jwt(values)


def _contradictions_of_jwt(values: Mapping[str, Any]) -> Iterator[str]:
    issuer, url = values.get("jwt_issuer"), values.get("jwt_jwks_url")
    if issuer == "":
        rest = ("jwt_audience", "jwt_jwks_url", "jwt_permissions", "jwt_tenant_claim")
        yield from (f"{name} means nothing without jwt_issuer" for name in rest if values.get(name))
    if not issuer:
        return
    if values.get("jwt_audience") == "":
        yield "jwt_issuer needs jwt_audience, or tokens for other services would be taken here"
    if url is not None:
        try:
            parse_target(url or issuer, allow_http=values.get("allow_http", False))
        except InvalidPayload as error:
            yield f"{'jwt_jwks_url' if url else 'jwt_issuer'}: {error.faults[0].detail}"
