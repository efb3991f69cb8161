"""A real `bitactor serve` in trouble and in care: a failing sync, new certificates, a backup served elsewhere."""

import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import pytest

import bitactor as ba
from bitactor.ingest import certs
from tests.admin_service import ask
from tests.service_app import app
from tests.service_oracle import assert_same_state, read_log
from tests.service_process import Producer, Served, number_of
from tests.test_crash import KEEP_ALL, check_everything, finish, newest_snapshot

# fsync and fdatasync fail from when the file is there that FAIL_SYNC_WHEN names.
FAILING_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int failing(void) { const char *f = getenv("FAIL_SYNC_WHEN"); return f && !access(f, F_OK); }
static int call(const char *name, int fd) {
  if (failing()) { errno = EIO; return -1; }
  return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}
int fsync(int fd) { return call("fsync", fd); }
int fdatasync(int fd) { return call("fdatasync", fd); }
"""


def seed():
    made = int(os.environ.get("BITACTOR_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {made}")
    return made


def test_a_sync_that_fails_ends_the_process_without_an_ack_and_the_next_one_replays_cleanly(tmp_path):
    source, library, failing = tmp_path / "sync.c", tmp_path / "sync.so", tmp_path / "failing"
    source.write_text(FAILING_SYNC)
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    chance = seed()
    with Served(tmp_path, **KEEP_ALL) as served:
        producers = [Producer(served, name, 1_000_000, chance, frame_max=30) for name in ("a", "b")]
        for turn in range(2):
            served.start(LD_PRELOAD=str(library), FAIL_SYNC_WHEN=str(failing)).ready()
            if not turn:
                for producer in producers:
                    producer.start()
            for producer in producers:
                producer.acknowledged()
            failing.touch()
            assert served.process.wait(60) == 1
            served.process.stdout.close()
            told = served.error.read_text()
            assert "appending failed" in told and "nothing more is acknowledged" in told
            failing.unlink()
        acked = [producer.acked for producer in producers]
        assert min(acked) > 0
        served.start().ready()
        finish(producers, 5_000)
        assert served.stop() == 0
        check_everything(served, producers)


def serial(context, port):
    """Of the certificate that a new connection is shown."""
    plain = socket.create_connection(("127.0.0.1", port), 20)
    with context.wrap_socket(plain, server_hostname="localhost") as connection:
        return connection.getpeercert()["serialNumber"]


@pytest.mark.parametrize("told", ["SIGHUP", "by the file's change alone"])
def test_new_certificates_are_used_by_new_connections_and_no_open_one_is_dropped(tmp_path, told):
    directory = tmp_path / "certs"
    certs.make_ca(directory)
    made = certs.make_server(directory)
    newer = certs.make_server(directory, file="newer")
    context = ssl.create_default_context(cafile=directory / "ca.pem")
    flags = {"tls_cert_file": made.cert_file, "tls_key_file": made.key_file}
    with Served(tmp_path, **flags) as served:
        admin_port = int(served.start().ready()["admin"].rstrip("/").rpartition(":")[2])
        token = tmp_path / "data" / "dev" / "token"
        with ba.Client(
            f"127.0.0.1:{served.port}", producer="a", token_file=token, ca_file=directory / "ca.pem",
            server_name="localhost",
        ) as client:  # fmt: skip
            before, probes = serial(context, served.port), 1
            newer.key_file.replace(made.key_file)
            newer.cert_file.replace(made.cert_file)
            if told == "SIGHUP":
                served.process.send_signal(signal.SIGHUP)
            end = time.monotonic() + 60
            while serial(context, served.port) == before:
                probes += 1
                assert time.monotonic() < end, "the new certificate is not used"
                client.send("trade", 1, 1.5, 1)
                client.flush(20)
                time.sleep(0.05)
            client.send("trade", 1, 1.5, 1)
            client.flush(20)
            probes += 1
            counted = ask(admin_port, "/api/v1/statistics").json()["statistics"]["ingest"]
            assert counted["connections_total"] - probes == 1, "the client had to connect again"
            assert client.connected and client.acked == client.next > 0
        assert served.stop() == 0


def test_a_backup_of_a_busy_service_is_served_elsewhere_and_its_producers_go_on(tmp_path):
    chance = seed()
    with Served(tmp_path / "one", **KEEP_ALL) as served:
        served.start().ready()
        producers = [Producer(served, name, 1_000_000, chance, frame_max=300) for name in ("a", "b")]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.acknowledged()
        command = [sys.executable, "-m", "bitactor", "log"]
        archive = tmp_path / "backup.tar"
        subprocess.run([*command, "backup", archive, served.directory / "data"], check=True, capture_output=True)
        for producer in producers:
            producer.total = 0
        assert served.stop() == 0
    with Served(tmp_path / "two", **KEEP_ALL) as served:  # another machine has the archive alone
        subprocess.run([*command, "restore", archive, served.directory / "data"], check=True, capture_output=True)
        there = read_log(served.directory / "data", app).producers
        served.start().ready()
        again = [Producer(served, name, 1_000_000, chance, frame_max=300) for name in ("a", "b")]
        for producer in again:
            producer.total = there[number_of(producer.label)]["next"] + 3_000
            producer.start()
        for producer in again:
            producer.finished()
        assert served.stop() == 0
        _, state = newest_snapshot(served)
        truth = read_log(served.directory / "data", app)
        assert_same_state(state, truth.state)
        for producer in again:
            assert truth.sent[number_of(producer.label)].tobytes() == producer.signals[: producer.total].tobytes()
