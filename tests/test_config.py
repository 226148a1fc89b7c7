from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from redrive.config import SETTINGS, BadSettings, Settings, load
from redrive.domain.access import Permission
from redrive.domain.errors import InvalidPayload
from redrive.domain.integration import Defaults, check_integration
from redrive.domain.proxy import Proxy


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(
    environ: dict[str, str] | None = None,
    *,
    toml: str | None = None,
    overrides: dict[str, str | None] | None = None,
) -> tuple[str, ...]:
    if toml is not None:
        Path("redrive.toml").write_text(toml)
    with pytest.raises(BadSettings) as stopped:
        load(overrides or {}, environ or {})
    return stopped.value.problems


def test_without_any_setting_everything_has_its_default() -> None:
    assert load({}, {}) == Settings()


def test_every_row_is_a_field_with_a_sentence() -> None:
    assert [setting.name for setting in SETTINGS] == [field.name for field in fields(Settings)]
    assert all(setting.sentence.endswith(".") for setting in SETTINGS)


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default() -> None:
    Path("redrive.toml").write_text("port = 1\nslots = 1\nreaders = 1")
    environ = {"REDRIVE_PORT": "2", "REDRIVE_SLOTS": "2"}

    settings = load({"port": "3", "role": None}, environ)

    assert (settings.port, settings.slots, settings.readers, settings.role) == (3, 2, 1, "all")


def test_a_file_may_be_named_by_option_or_variable(elsewhere: Path) -> None:
    (elsewhere / "a.toml").write_text("port = 1")
    (elsewhere / "b.toml").write_text("port = 2")
    environ = {"REDRIVE_CONFIG": "a.toml"}

    assert load({}, environ).port == 1
    assert load({}, environ, elsewhere / "b.toml").port == 2


def test_a_named_file_must_exist() -> None:
    assert problems({"REDRIVE_CONFIG": "gone.toml"}) == (
        "gone.toml cannot be read: No such file or directory",
    )


def test_every_kind_of_value_is_read_alike_from_the_environment_and_from_toml() -> None:
    environ = {
        "REDRIVE_ALLOW_TARGETS": "127.0.0.0/8, fd00::/8",
        "REDRIVE_ALLOW_TARGETS_OF": "billing=10.0.0.0/8,crm=fd00::/8",
        "REDRIVE_ALLOW_PORTS": "8443,9443",
        "REDRIVE_ALLOW_HTTP": "true",
        "REDRIVE_JITTER": "0.5",
        "REDRIVE_DRAIN_SECONDS": "2",
        "REDRIVE_MAX_ATTEMPTS": "9",
        "REDRIVE_DATA_DIR": "/var/lib/redrive",
        "REDRIVE_RETRYABLE_NETWORK_CODES": "EPIPE,ECONNRESET",
        "REDRIVE_LOG_LEVEL": "debug",
    }
    Path("redrive.toml").write_text(
        """
        allow_targets = ["127.0.0.0/8", "fd00::/8"]
        allow_targets_of = ["billing=10.0.0.0/8", "crm=fd00::/8"]
        allow_ports = [8443, "9443"]
        allow_http = true
        jitter = 0.5
        drain_seconds = 2
        max_attempts = 9
        data_dir = "/var/lib/redrive"
        retryable_network_codes = ["EPIPE", "ECONNRESET"]
        log_level = "debug"
        """
    )

    from_file, from_environ = load({}, {}), load({}, environ, file=empty_file())

    assert from_file == from_environ
    assert from_file == Settings(
        allow_targets=(ip_network("127.0.0.0/8"), ip_network("fd00::/8")),
        allow_targets_of=(("billing", ip_network("10.0.0.0/8")), ("crm", ip_network("fd00::/8"))),
        allow_ports=(8443, 9443),
        allow_http=True,
        jitter=0.5,
        drain_seconds=2.0,
        max_attempts=9,
        data_dir=Path("/var/lib/redrive"),
        retryable_network_codes=("EPIPE", "ECONNRESET"),
        log_level="debug",
    )


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "Billing=10.0.0.0/8", "billing=", "billing=10.0.0.1/8", "=::/0"]
)
def test_a_range_of_an_integration_names_both(text: str) -> None:
    [problem] = problems({"REDRIVE_ALLOW_TARGETS_OF": text})

    assert "such as billing=10.0.0.0/8" in problem


def test_an_empty_list_setting_allows_none() -> None:
    Path("redrive.toml").write_text('allow_targets = ["10.0.0.0/8"]')

    assert load({}, {"REDRIVE_ALLOW_TARGETS": ""}).allow_targets == ()


@pytest.mark.parametrize(
    "text", ["", "1_0", "\u0663", "+5", " 5", "5 ", "05", "5.0", "0x5", "1e1", "9" * 5000]
)
def test_an_integer_is_ascii_digits_and_nothing_else(text: str) -> None:
    assert problems({"REDRIVE_SLOTS": text}) == ("REDRIVE_SLOTS must be an integer from 1 to 100000",)


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "1_0.0", "\u0660.\u0665", ".5", "1.", "5e-1", "0,5", "-0.1", "1.01"]
)
def test_a_number_is_plain_decimals_within_its_range(text: str) -> None:
    assert problems({"REDRIVE_JITTER": text}) == ("REDRIVE_JITTER must be a number from 0 to 1",)


@pytest.mark.parametrize("text", ["2.9", "0", "301"])
def test_a_lease_leaves_time_to_renew_it_and_ends_some_time(text: str) -> None:
    assert problems({"REDRIVE_LEASE_SECONDS": text}) == (
        "REDRIVE_LEASE_SECONDS must be a number from 3 to 300",
    )


@pytest.mark.parametrize("text", ["", "True", "1", "yes"])
def test_a_flag_is_true_or_false(text: str) -> None:
    assert problems({"REDRIVE_OTEL": text}) == ("REDRIVE_OTEL must be true or false",)


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1/8", "10.0.0.0/255.0.0.0", "10.0.0.0/33", "010.0.0.0/8", "fe80::%eth0/64", "host", "::/0,"],
)
def test_a_range_is_one_address_prefix(text: str) -> None:
    [problem] = problems({"REDRIVE_ALLOW_TARGETS": text})

    assert problem.startswith("REDRIVE_ALLOW_TARGETS must be a comma-separated list of ranges such as")


@pytest.mark.parametrize("text", ["8443,0", "65536", "80,,81", "https"])
def test_a_port_is_one_that_can_be_connected_to(text: str) -> None:
    assert problems({"REDRIVE_ALLOW_PORTS": text}) == (
        "REDRIVE_ALLOW_PORTS must be a comma-separated list of ports",
    )


def test_a_choice_names_its_words() -> None:
    assert problems({"REDRIVE_ROLE": "apo"}) == ("REDRIVE_ROLE must be all, api or worker",)


@pytest.mark.parametrize(
    "row",
    ["host = 1", "port = true", "otel = 1", "slots = 1.5", "jitter = inf", "port = [80]",
     "allow_ports = [[1]]", "data_dir = {a = 1}", "port = 2020-01-01"],
)  # fmt: skip
def test_a_toml_value_of_another_type_is_refused(row: str) -> None:
    [problem] = problems(toml=row)

    assert problem.startswith(f"redrive.toml: {row.partition(' ')[0]} must be ")


def test_every_problem_is_listed_at_once_with_the_nearest_right_name() -> None:
    said = problems(
        {"REDRIVE_MAX_ATEMPTS": "3", "REDRIVE_PORT": "http", "REDRIVE_SLOT": "1", "REDRIVE_XYZZY": "1"},
        toml="max-attempts = 3\n[delivery]\ntimeout = 5",
        overrides={"slots": "none"},
    )

    assert sorted(said) == [
        "--slots must be an integer from 1 to 100000",
        "REDRIVE_MAX_ATEMPTS is not a setting; did you mean REDRIVE_MAX_ATTEMPTS?",
        "REDRIVE_PORT must be an integer from 0 to 65535",
        "REDRIVE_SLOT is not a setting; did you mean REDRIVE_SLOTS?",
        "REDRIVE_XYZZY is not a setting",
        "redrive.toml: delivery is not a setting",
        "redrive.toml: max-attempts is not a setting; did you mean max_attempts?",
    ]


def test_the_clients_variables_are_no_settings_and_no_problem() -> None:
    assert load({}, {"REDRIVE_URL": "http://127.0.0.1", "REDRIVE_TOKEN": "t"}) == Settings()


def test_variables_of_others_are_no_concern() -> None:
    assert load({}, {"PORT": "x", "REDRIVEN": "x"}) == Settings()


def test_a_broken_file_is_one_problem_among_others() -> None:
    said = problems({"REDRIVE_PORT": "http"}, toml="port = ")

    assert len(said) == 2
    assert said[0].startswith("redrive.toml is not TOML: ")


def test_delays_that_contradict_each_other_are_refused() -> None:
    assert problems({"REDRIVE_BASE_DELAY_SECONDS": "90"}) == (
        "base_delay_seconds (90) must not be more than max_delay_seconds (60)",
    )


@pytest.mark.parametrize(
    ("database", "path"),
    [
        ("sqlite:///relative.db", Path("relative.db")),
        ("sqlite:////var/absolute.db", Path("/var/absolute.db")),
        ("sqlite:///<data_dir>/other.db", Path("here/other.db")),
        ("postgresql://user:secret@db/redrive", None),
        ("postgres://user:secret@db/redrive", None),  # as hosting platforms write it
        ("postgresql://us@er:1:0@0%25@[::1]:5432,other:5433/redrive?sslmode=require&user=me@db", None),
    ],
)
def test_a_database_url_names_a_file_or_a_server(database: str, path: Path | None) -> None:
    settings = load({"database": database, "data_dir": "here"}, {})

    assert settings.sqlite_path() == path


def test_the_database_is_in_the_data_directory() -> None:
    assert Settings().sqlite_path() == Path("redrive-data/redrive.db")
    assert Settings(data_dir=Path("/var/lib")).sqlite_path() == Path("/var/lib/redrive.db")


@pytest.mark.parametrize(
    "database",
    ["", "redrive.db", "sqlite://redrive.db", "sqlite:///", "sqlite:///dir/", "sqlite:///:memory:",
     "sqlite:///a.db?mode=ro", "sqlite:///a\n.db", "postgre://db/x", "postgres://", "postgresql://", "postgresql:///x",
     "postgresql://db:port/x", "postgresql://me@/x", "postgresql://db/x?", "postgresql://db/x?sslmode"],
)  # fmt: skip
def test_a_database_url_that_names_neither_is_refused(database: str) -> None:
    [problem] = problems({"REDRIVE_DATABASE": database})

    assert problem.startswith("REDRIVE_DATABASE must be sqlite:///relative.db, ")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("redrive.db", "sqlite:///redrive.db"),
        ("./data/redrive.sqlite3", "sqlite:///./data/redrive.sqlite3"),
        ("/var/redrive.db", "sqlite:////var/redrive.db"),
        ("sqlite:data/redrive.db", "sqlite:///data/redrive.db"),
        ("sqlite:/var/redrive.db", "sqlite:////var/redrive.db"),
        ("sqlite://redrive.db", "sqlite:///redrive.db"),
        ("file:redrive.db", "sqlite:///redrive.db"),
        ("file:///var/redrive.db", "sqlite:////var/redrive.db"),
    ],
)
def test_a_path_in_the_place_of_a_database_url_is_told_how_it_is_written(text: str, written: str) -> None:
    [problem] = problems({"REDRIVE_DATABASE": text})

    assert problem.endswith(f"; a file is written {written}")
    assert load({"database": written}, {}).database == written


@pytest.mark.parametrize("text", ["me:hunter2@db/x.db", "sqlite://me:hunter2@x.db", "a?b.db", "a b.db"])
def test_what_may_be_no_path_is_not_repeated(text: str) -> None:
    [problem] = problems({"REDRIVE_DATABASE": text})

    assert problem.endswith("(%2F for a / in a password)")


def test_a_password_is_in_neither_a_problem_nor_a_representation() -> None:
    assert "hunter2" not in problems({"REDRIVE_DATABASE": "mysql://me:hunter2@db/x"})[0]
    assert "hunter2" not in repr(Settings(database="postgresql://me:hunter2@db/x"))


@pytest.mark.parametrize("password", ["hunter2/x", "hunter2?x", "hunter2#x", "hunter2[x"])
def test_what_ends_a_part_of_a_url_is_refused_in_a_password_without_showing_it(password: str) -> None:
    [problem] = problems({"REDRIVE_DATABASE": f"postgresql://me:{password}@db/x"})

    assert problem.endswith("(%2F for a / in a password)")
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@db/x", "postgresql://db/x?user=m@e&password=hunter2"]
)
def test_the_address_of_a_database_has_no_password(url: str) -> None:
    assert Settings(database=url).database_address() == "postgresql://db/x"


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.internal:3128", Proxy("proxy.internal", 3128)),
        ("http://10.0.0.1:80/", Proxy("10.0.0.1", 80)),
        ("http://[FD00::1]:3128", Proxy("fd00::1", 3128)),
        ("http://me:a%40b%3Ac@proxy:1", Proxy("proxy", 1, "me", "a@b:c")),
        ("http://me:@proxy:1", Proxy("proxy", 1, "me", "")),
        ("", None),
    ],
)
def test_a_proxy_is_read(text: str, proxy: Proxy | None) -> None:
    assert load({}, {"REDRIVE_EGRESS_PROXY": text}).egress_proxy == proxy


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128", "http://proxy", "https://proxy:3128", "socks5://proxy:1080", "http://proxy:0", "http://proxy:65536",
        "http://proxy:3128/path", "http://proxy:3128?q", "http://hunter2@proxy:3128", "http://me:hunter2@a@proxy:1",
        "http://me:hunter2/@proxy:1", "http://a%3Ab:hunter2@proxy:1", "http://me:hunter2%zz@proxy:1", "http://prö:1",
        "http://pro xy:1", "http://me:hunter2\r\n@proxy:1",
    ],
)  # fmt: skip
def test_what_is_no_proxy_is_refused_without_showing_it(text: str) -> None:
    [problem] = problems({"REDRIVE_EGRESS_PROXY": text})

    assert problem.startswith("REDRIVE_EGRESS_PROXY must be http://host:port, or ")
    assert "hunter2" not in problem


def test_a_proxy_shows_where_it_is_and_no_more() -> None:
    settings = load({}, {"REDRIVE_EGRESS_PROXY": "http://someone:hunter2@[fd00::1]:3128"})

    assert str(settings.egress_proxy) == "[fd00::1]:3128"
    for shown in (repr(settings), f"{settings.egress_proxy}", f"{settings.egress_proxy!r}"):
        assert "[fd00::1]:3128" in shown
        assert "hunter2" not in shown
        assert "someone" not in shown


def test_the_defaults_of_integrations_come_from_the_settings() -> None:
    settings = load({"max_attempts": "9", "retryable_network_codes": ""}, {})

    assert settings.defaults() == Defaults(max_attempts=9, retryable_network_codes=())
    assert Settings().defaults() == Defaults()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("timeout_seconds", 0.1, 60.0),
        ("max_attempts", 1, 100),
        ("base_delay_seconds", 0.001, 86400.0),
        ("max_delay_seconds", 0.001, 86400.0),
        ("jitter", 0.0, 1.0),
        ("concurrency", 1, 10000),
    ],
)
def test_a_default_has_the_range_an_integration_has(name: str, low: float, high: float) -> None:
    [setting] = [setting for setting in SETTINGS if setting.name == name]

    assert setting.kind.word.endswith(f" from {low:g} to {high:g}")
    for value in (low, high):
        check_integration({name: value}, allow_http=False)
    for value in (low - 0.0001, high + 0.0001):
        with pytest.raises(InvalidPayload):
            check_integration({name: value}, allow_http=False)


def empty_file() -> Path:
    path = Path("empty.toml")
    path.touch()
    return path


def test_the_port_is_none_of_the_metrics_ports() -> None:
    with pytest.raises(BadSettings, match=r"port \(9001\) must not be one of the 2 metrics ports"):
        load({}, {"REDRIVE_PORT": "9001", "REDRIVE_METRICS_PORT": "9000", "REDRIVE_WORKERS": "2"})


OIDC = {"REDRIVE_JWT_ISSUER": "https://id.example/realm", "REDRIVE_JWT_AUDIENCE": "redrive"}


def test_an_identity_provider_is_an_issuer_and_an_audience_and_what_its_claims_permit() -> None:
    grants = f"ops team={Permission.OPERATE}, a=b={Permission.VIEW}"

    settings = load({}, OIDC | {"REDRIVE_JWT_PERMISSIONS": grants})

    assert settings.jwt_issuer == "https://id.example/realm"
    assert settings.jwt_permissions == (("ops team", Permission.OPERATE), ("a=b", Permission.VIEW))


@pytest.mark.parametrize(
    "text", ["ops", "ops=view", f"={Permission.VIEW}", "ops=", f"ops={Permission.VIEW}x"]
)
def test_a_grant_names_a_value_and_a_permission(text: str) -> None:
    [problem] = problems(OIDC | {"REDRIVE_JWT_PERMISSIONS": text})

    assert problem.endswith(f"; {text!r} does not end with = and a permission")


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"REDRIVE_JWT_AUDIENCE": None}, "jwt_issuer needs jwt_audience, or tokens for other services would"),
        ({"REDRIVE_JWT_ISSUER": None}, "jwt_audience means nothing without jwt_issuer"),
        ({"REDRIVE_JWT_ISSUER": "http://id.example"}, "jwt_issuer: only https is allowed here"),
        ({"REDRIVE_JWT_ISSUER": "id.example"}, "jwt_issuer: write the whole URL"),
        ({"REDRIVE_JWT_JWKS_URL": "http://id.example/keys"}, "jwt_jwks_url: only https is allowed here"),
        ({"REDRIVE_JWT_ISSUER": " "}, "REDRIVE_JWT_ISSUER must be text on one line"),
    ],
)
def test_half_an_identity_provider_is_told_at_start(changed: dict[str, str | None], problem: str) -> None:
    environ = {name: value for name, value in (OIDC | changed).items() if value is not None}

    [said] = problems(environ)

    assert said.startswith(problem)


def test_an_issuer_that_is_no_url_needs_an_address_of_its_keys() -> None:
    settings = load(
        {}, OIDC | {"REDRIVE_JWT_ISSUER": "id", "REDRIVE_JWT_JWKS_URL": "https://id.example/keys"}
    )

    assert settings.jwt_issuer == "id"


@pytest.mark.parametrize(
    ("history", "resolved", "wrong"),
    [("30", "10", True), ("30", "30", False), ("30", "365", False), ("0", "10", True), ("30", "0", False)],
)
def test_what_was_resolved_is_kept_at_least_as_long(history: str, resolved: str, *, wrong: bool) -> None:
    given = {"REDRIVE_HISTORY_DAYS": history, "REDRIVE_RESOLVED_DAYS": resolved}

    if wrong:
        with pytest.raises(BadSettings, match="resolved_days"):
            load({}, given)
    else:
        assert load({}, given).resolved_days == int(resolved)
