"""The admin interface over the real service, and `bitactor query` as a process."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bitactor.admin.server import AdminServer
from bitactor.client import Client
from bitactor.config import Settings
from bitactor.runtime.service import Service
from tests.admin_service import ask, trades
from tests.service_app import app


def bitactor(*arguments, text=True, **environ):
    return subprocess.run(
        [sys.executable, "-m", "bitactor", *map(str, arguments)],
        capture_output=True, text=text, env=os.environ | environ, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return Settings(
        data_dir=tmp_path / "data",
        ingest={"port": 0, "plain_text_on_loopback": True},
        admin={"port": 0},
        limits={"heartbeat_s": 0.2},
        engine={"shards": 1},
    )


async def with_service(settings, check, *, before=None):
    service = Service(settings, app)
    admin = AdminServer(service)
    await admin.start()
    try:
        if before is not None:
            await asyncio.to_thread(before, admin)
        await service.start()
        host, port = service.ingest.addresses[0]
        token = (settings.data_dir / "dev" / "token").read_bytes().strip()
        await asyncio.to_thread(check, service, admin, f"{host}:{port}", token)
        await service.stop()
        assert ask_later(await asyncio.to_thread(ask, admin.port, "/readyz")) == 503
    finally:
        await admin.stop()


def ask_later(reply):
    return reply.status


def test_what_a_client_sent_is_seen_over_http_and_commands_are_durable(settings):
    signals = trades(5000)

    def before(admin):
        assert ask(admin.port, "/livez").status == 200
        assert ask(admin.port, "/startupz").status == 503
        assert ask(admin.port, "/api/v1/statistics").json()["code"] == "not_ready"
        assert b"bitactor_started 0.0" in ask(admin.port, "/metrics").body

    def check(service, admin, address, token):
        with Client(address, producer="eu-1", token=token, plain_text=True) as client:
            client.send_batch(signals)
            client.send("trade", "AAPL", 10.0, aux=3)
            client.flush(20)
        assert ask(admin.port, "/readyz").status == 200
        told = ask(admin.port, "/api/v1/statistics").json()
        assert told["position"] == told["statistics"]["log"]["durable_position"] == 5001 and told["names"] == 1
        assert told["statistics"]["log"]["sync_seconds"]["counts"]
        volume = np.bincount(signals["key"].astype("i8"), signals["aux"])
        rows = ask(admin.port, "/api/v1/actors/vwap/table?columns=volume&limit=1000").json()["rows"]
        assert {row[0]: row[2] for row in rows if row[1] is None} == dict(enumerate(volume.astype(int).tolist()))
        assert [row[1:] for row in rows if row[1]] == [["AAPL", 3]]
        (producer,) = ask(admin.port, "/api/v1/producers").json()["producers"]
        assert (producer["name"], producer["next"]) == ("eu-1", 5001)
        scraped = ask(admin.port, "/metrics").body.decode()
        assert "bitactor_signals_accepted_total 5001.0" in scraped and "bitactor_log_fsync_seconds_count" in scraped
        url = ("--url", admin.url.rstrip("/"))
        shown = bitactor("query", "select name, volume from vwap where name is not null", *url)
        assert shown.returncode == 0 and "AAPL" in shown.stdout and "at position 5,001" in shown.stdout, shown.stderr
        lines = bitactor("query", "from vwap select key, volume order by key limit 2", "--format", "json", *url).stdout
        assert [json.loads(line) for line in lines.splitlines()] == [
            {"key": k, "volume": int(volume[k])} for k in (0, 1)
        ]
        cut = bitactor("query", "select key from vwap order by key", "--format", "csv", "--limit", 2, *url)
        assert cut.stdout == "key\n0\n1\n" and "cut after 2 rows" in cut.stderr
        stream = bitactor(
            "query", "select sum(volume)::bigint v from vwap", "--format", "arrow", *url, text=False
        ).stdout
        assert pa.ipc.open_stream(stream).read_all().to_pylist() == [{"v": int(volume.sum()) + 3}]
        wrong = bitactor("query", "copy vwap to 'x'", BITACTOR_ADMIN_URL=url[1])
        assert wrong.returncode == 1 and wrong.stderr.startswith("bitactor: one SELECT is what may be asked")
        assert ask(admin.port, "/api/v1/erase", "POST", {"key": "AAPL"}).status == 200
        assert ask(admin.port, "/api/v1/actors/vwap/state/AAPL").status == 404
        assert ask(admin.port, "/api/v1/statistics").json()["names"] == 0
        written = ask(admin.port, "/api/v1/snapshot", "POST").json()["snapshot"]
        assert written["position"] == 5001 and Path(written["path"]).exists()
        assert ask(admin.port, "/api/v1/producers/forget", "POST", {"name": "eu-1"}).status == 200
        assert ask(admin.port, "/api/v1/producers").json()["producers"] == []

    asyncio.run(with_service(settings, check, before=before))


def test_a_query_without_a_service_says_what_to_start():
    done = bitactor("query", "select 1", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1 and "is `bitactor serve` running there?" in done.stderr
