"""Settings: precedence, units, what is refused and how it is told, and that the page of settings is theirs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import settings_page
from pydantic import ValidationError

from bitactor.config import ConfigError, Settings, is_loopback, load, sources, units
from bitactor.config.load import OTHER_VARIABLES, flag, value_of, variable
from bitactor.config.settings import is_secret, leaves

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name="bitactor.toml"):
    Path(name).write_text(text)
    return Path(name)


def problems(*given, environ=None, **named):
    with pytest.raises(ConfigError) as caught:
        load(*given, environ=environ or {}, **named)
    return list(caught.value.problems)


# A second value for every setting that can stand alone: (text, value).
OTHER = {
    "app": ("a.py", "a.py"),
    "data_dir": ("d", Path("d")),
    "ingest.host": ("::1", "::1"),
    "ingest.plain_text_on_loopback": ("true", True),
    "admin.host": ("localhost", "localhost"),
    "log.kind": ("none", "none"),
    "log.durability": ("off", "off"),
    "log.size_bytes_max": ("3GiB", 3 << 30),
    "nats.urls": ("tls://a:1, tls://b:2", "tls://a:1, tls://b:2"),
    "nats.plain_text": ("true", True),
    "nats.stream": ("other", "other"),
    "nats.replicas": ("5", 5),
    "nats.size_bytes_max": ("3GiB", 3 << 30),
    "nats.snapshot_bytes_max": ("3GiB", 3 << 30),
    "nats.monitor_urls": ("http://a:8222", "http://a:8222"),
    "cluster.lanes": ("8", 8),
    "cluster.replica": ("a", "a"),
    "limits.connections_max": ("2000", 2000),
    "limits.output_bytes_max": ("1 MiB", 1 << 20),
    "telemetry.otlp_endpoint": ("http://c:4318", "http://c:4318"),
    "telemetry.sample_ratio": ("0.5", 0.5),
    "logging.level": ("debug", "debug"),
    "logging.format": ("json", "json"),
    "engine.ring_signals": ("8192", 8192),
    "limits.window_signals": ("8192", 8192),
}
ALONE = [
    name
    for name, field, _ in leaves()
    if not name.startswith(("tls.", "auth.", "nats.user"))
    and not re.match(r"nats\..*_file", name)
    and name != "admin.token_file"
    and not is_secret(field)
]


@pytest.mark.parametrize("name", ALONE)
def test_each_setting_is_taken_from_default_file_environment_and_flag_in_rising_order(name):
    text, value = OTHER.get(name, ("7", 7))
    default = value_of(Settings(), name)
    assert default != value
    section, _, key = name.rpartition(".")
    head = f"[{section}]\n" if section else ""
    nothing = load(environ={})
    assert value_of(nothing, name) == default and sources(nothing)[name] == "default"
    write(f'{head}{key} = "{text}"\n')
    from_file = load(environ={})
    assert value_of(from_file, name) == value
    assert sources(from_file)[name] == f"bitactor.toml:{2 if head else 1}"
    third = "" if default is None else str(default)  # the default again, said by a variable
    from_variable = load(environ={variable(name): third})
    assert value_of(from_variable, name) == default
    assert sources(from_variable)[name] == variable(name)
    from_flag = load({name: text}, environ={variable(name): third})
    assert value_of(from_flag, name) == value
    assert sources(from_flag)[name] == flag(name)


def test_the_file_is_the_named_one_then_that_of_the_variable_then_the_one_in_this_directory():
    write("[ingest]\nport = 1\n")
    write("[ingest]\nport = 2\n", "b.toml")
    write("[ingest]\nport = 3\n", "c.toml")
    assert load(environ={}).ingest.port == 1
    assert load(environ={"BITACTOR_CONFIG": "b.toml"}).ingest.port == 2
    assert load(environ={"BITACTOR_CONFIG": "b.toml"}, config=Path("c.toml")).ingest.port == 3
    assert problems(config=Path("none.toml")) == ["none.toml: No such file or directory"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ingest]\n\nprot = 1\n", "bitactor.toml:3: ingest.prot is not a setting; did you mean ingest.port?"),
        ("port = 1\n", "bitactor.toml:1: port is not a setting; did you mean ingest.port?"),
        ("[igest]\nport = 1\n", "bitactor.toml:2: igest.port is not a setting; did you mean ingest.port?"),
        ("# x\n[log]\nzzzz = 1\n", "bitactor.toml:3: log.zzzz is not a setting"),
        ("log = 3\n", "bitactor.toml:1: log is a section: write [log] and its settings below"),
        ("log.kind = 'x'\n", "bitactor.toml:1: log.kind: 'x': input should be 'sqlite', 'none' or 'jetstream'"),
        ("[ingest]\nport = 65536\n", "bitactor.toml:2: ingest.port: 65536: input should be less than or equal to"),
        ("[snapshot]\nevery_s = '3 weeks'\n", "bitactor.toml:2: snapshot.every_s: '3 weeks': give a duration such as"),
        ("[log]\nsize_bytes_max = 'big'\n", "bitactor.toml:2: log.size_bytes_max: 'big': give a size such as"),
        ("[engine]\nring_signals = 10000\n", "ring_signals is a power of two, such as 8192 or 16384"),
        ("[ingest\n", "bitactor.toml: not TOML: "),
        ("[ingest.port]\nx = 1\n", "bitactor.toml:1: ingest.port: {'x': 1}: input should be a valid integer"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_file_and_line(text, told):
    write(text)
    found = problems()
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BITACTOR_INGEST__PROT", "1", "BITACTOR_INGEST__PROT: not a setting; did you mean BITACTOR_INGEST__PORT?"),
        ("BITACTOR_INGEST_PORT", "1", "BITACTOR_INGEST_PORT: not a setting; did you mean BITACTOR_INGEST__PORT?"),
        ("BITACTOR_CONIFG", "1", "BITACTOR_CONIFG: not a setting; did you mean BITACTOR_CONFIG?"),
        ("BITACTOR_ADMIN__PORT", "x", "BITACTOR_ADMIN__PORT: admin.port: 'x': input should be a valid integer"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_with_its_variable(name, value, told):
    assert problems(environ={name: value})[0].startswith(told)


def test_every_problem_is_told_at_once_each_with_its_source():
    write("[ingest]\nport = -1\n[log]\nkind = 'x'\n")
    assert [one.split(": ")[0] for one in problems({"admin.port": "y"}, environ={"BITACTOR_SNAPSHOT__KEEP": "0"})] == [
        "bitactor.toml:2",
        "bitactor.toml:4",
        "BITACTOR_SNAPSHOT__KEEP",
        "--admin-port",
    ]


def test_variables_that_kubernetes_sets_for_a_service_named_bitactor_are_no_settings_but_mistyped_ones_are_told():
    links = {
        "BITACTOR_SERVICE_HOST": "10.0.0.1",
        "BITACTOR_SERVICE_PORT": "9090",
        "BITACTOR_SERVICE_PORT_INGEST": "9090",
        "BITACTOR_PORT": "tcp://10.0.0.1:9090",
        "BITACTOR_PORT_9090_TCP": "tcp://10.0.0.1:9090",
        "BITACTOR_PORT_9090_TCP_PROTO": "tcp",
        "BITACTOR_ADMIN_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.2"}
    assert load(environ=pod | links) == Settings()
    assert len(problems(environ=links)) == len(links)
    assert problems(environ=pod | {"BITACTOR_INGEST_PORT": "1"}) == [
        "BITACTOR_INGEST_PORT: not a setting; did you mean BITACTOR_INGEST__PORT?"
    ]


def test_a_secret_comes_from_a_variable_or_from_a_file_named_by_one_and_is_never_shown():
    write("x-key=deep secret\n", "headers")
    for environ in (
        {"BITACTOR_TELEMETRY__OTLP_HEADERS": "x-key=deep secret"},
        {"BITACTOR_TELEMETRY__OTLP_HEADERS_FILE": "headers"},
    ):
        settings = load(environ=environ)
        assert settings.telemetry.otlp_headers.get_secret_value() == "x-key=deep secret"
        assert sources(settings)["telemetry.otlp_headers"] == next(iter(environ))
        assert "deep" not in repr(settings) + str(settings) + settings.model_dump_json()
    write("[telemetry]\notlp_headers_file = 'headers'\n")
    assert load(environ={}).telemetry.otlp_headers.get_secret_value() == "x-key=deep secret"
    write("[telemetry]\notlp_headers = ['deep secret']\n")
    assert problems() == ["bitactor.toml:2: telemetry.otlp_headers: input should be a valid string"]
    assert problems(environ={"BITACTOR_TELEMETRY__OTLP_HEADERS_FILE": "none"})[0].endswith(
        "none: No such file or directory"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ingest.host": "0.0.0.0", "auth.file": "a"}, "tls.cert_file: needed to listen on 0.0.0.0"),
        ({"ingest.host": "example.com", "auth.file": "a"}, "tls.cert_file: needed to listen on example.com"),
        (
            {"ingest.host": "::", "tls.cert_file": "a", "tls.key_file": "a"},
            "auth.file: needed to listen on ::; the development token is for loopback only",
        ),
        (
            {"ingest.host": "10.0.0.1", "ingest.plain_text_on_loopback": "true", "auth.file": "a"},
            "ingest.plain_text_on_loopback: 10.0.0.1 is not loopback",
        ),
        (
            {"ingest.plain_text_on_loopback": "true", "tls.cert_file": "a", "tls.key_file": "a"},
            "ingest.plain_text_on_loopback: tls.cert_file and tls.key_file ask for TLS; choose one",
        ),
        ({"tls.cert_file": "a"}, "tls.key_file: needed, because tls.cert_file is given"),
        ({"tls.key_file": "a"}, "tls.cert_file: needed, because tls.key_file is given"),
        ({"admin.host": "0.0.0.0"}, "admin.token_file: needed to listen on 0.0.0.0"),
        ({"limits.connections_max": "10"}, "limits.connections_per_peer_max: 256 is more than"),
        ({"nats.urls": "nats://h:1"}, "nats.urls: nats://h:1 is not on this machine: write tls://"),
        ({"nats.urls": "nats://127.0.0.1,h:1"}, "nats.urls: h:1 is not of the form nats://host:port"),
        ({"nats.urls": "nats://u:secret@localhost"}, "nats.urls name no users: give user and password_file"),
        ({"nats.replicas": "2"}, "nats.replicas is 1, 3 or 5; 2 was given"),
        ({"nats.user": "a"}, "nats.password_file: needed, because nats.user is given"),
        (
            {"nats.user": "a", "nats.password_file": "b", "nats.nkey_file": "c"},
            "nats.user: nats.nkey_file says already",
        ),
        ({"nats.tls_cert_file": "a"}, "nats.tls_key_file: needed, because nats.tls_cert_file is given"),
        (
            {"nats.plain_text": "true", "nats.tls_ca_file": "a"},
            "nats.plain_text: nats.tls_ca_file, nats.tls_cert_file or tls://",
        ),
        ({"nats.urls": "nats://h:port"}, "nats.urls: nats://h:port is not of the form nats://host:port"),
        ({"nats.urls": "nats://h:66666"}, "nats.urls: nats://h:66666 is not of the form nats://host:port"),
        ({"nats.monitor_urls": "http://a:b"}, "nats.monitor_urls: http://a:b is not of the form http://host:port"),
        ({"nats.monitor_urls": "a:8222"}, "nats.monitor_urls: a:8222 is not of the form http://host:port"),
        ({"nats.stream": "a.b"}, "nats.stream: 'a.b': string should match pattern"),
        ({"telemetry.otlp_endpoint": "collector:4318"}, "telemetry.otlp_endpoint begins with http:// or https://"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_the_setting_to_change(given, told):
    found = [one.partition(": ")[2] if one.startswith("--") else one for one in problems(given, files=False)]
    assert len(found) == 1
    assert found[0].startswith(told)


def test_files_that_are_named_must_be_readable_and_keys_not_open_to_everyone(tmp_path):
    key, cert = write("x", "key.pem"), write("x", "cert.pem")
    key.chmod(0o644)
    tls = {"tls.cert_file": str(cert), "tls.key_file": str(key)}
    assert problems(tls) == [
        "--tls-key-file: tls.key_file: key.pem can be read or written by everyone on this machine: chmod 600 key.pem"
    ]
    key.chmod(0o640)  # group: as Kubernetes mounts secrets
    load(tls, environ={})
    assert problems(tls | {"tls.client_ca_file": "ca.pem", "auth.file": "no"}) == [
        "--tls-client-ca-file: tls.client_ca_file: ca.pem: No such file or directory",
        "--auth-file: auth.file: no: No such file or directory",
    ]
    load(tls | {"tls.client_ca_file": "ca.pem"}, environ={}, files=False)
    write("x", "data")
    assert problems({"data_dir": "data"}) == ["--data-dir: data_dir: data is not a directory"]


def test_settings_made_in_code_are_checked_and_cannot_be_changed():
    settings = Settings(ingest={"port": 0}, limits={"idle_s": "2m"})
    assert settings.limits.idle_s == 120 and sources(settings)["ingest.port"] == "default"
    with pytest.raises(ValidationError, match="frozen"):
        settings.ingest.port = 1
    with pytest.raises(ValidationError, match="tls.cert_file: needed to listen"):
        Settings(ingest={"host": "0.0.0.0"})
    with pytest.raises(KeyError, match="did you mean ingest.port"):
        load({"ingest.prot": 1}, environ={})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("10GiB", 10 << 30),
        ("64 kib", 64 << 10),
        ("1.5MiB", 3 << 19),
        ("500MB", 500_000_000),
        ("1_000 B", 1000),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text, size):
    assert units.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "B", "-1", "1 GiBs", "1e3", "1..5", "GiB 1"])
def test_texts_that_are_no_size_are_refused(text):
    with pytest.raises(ValueError, match="give a size"):
        units.size_bytes(text)


def test_durations_are_those_that_actors_take_too():
    from bitactor.schema import duration_ns

    for text in ("1d", "90s", "1.5h", "500ms", "20us", "7ns", "3m", " 2 s "):
        assert units.seconds(text) == pytest.approx(duration_ns(text, "x") / 1e9)
    assert units.seconds("30") == 30.0 and units.seconds(2.5) == 2.5
    for text in ("", "s", "1 w", "-1s", "1 S"):
        with pytest.raises(ValueError, match="give a duration"):
            units.seconds(text)


def test_only_addresses_of_this_machine_are_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "example.com", "", "localhost.example.com"]))


def test_the_page_of_settings_is_made_from_the_models():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert settings_page.with_table(page) == page, "run `python tools/settings_page.py`"


def test_every_variable_that_the_code_reads_is_known():
    read = subprocess.run(
        ["grep", "-rhoE", "--include=*.py", "--include=*.pyx", "BITACTOR_[A-Z]+(_[A-Z]+)*", "src"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    examples = {variable(name) for name, _, _ in leaves()} | {"BITACTOR_INGEST", "BITACTOR_TELEMETRY"}
    assert set(read.stdout.split()) - set(OTHER_VARIABLES) - examples == set()


def test_without_pydantic_one_line_says_what_to_install():
    code = "import sys; sys.modules['pydantic'] = None\nimport bitactor.config"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: bitactor's service needs more packages: pip install 'bitactor[service]'"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_that_cannot_be_written_is_told(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    assert "data is not writable" in problems({"data_dir": str(data)})[0]
