"""The doctor: what it finds on machines good and bad, and that its measurement is one."""

import json
import os
import socket
from pathlib import Path

import pytest

from bitactor import host
from bitactor.cli import machine
from bitactor.cli import run as frame
from bitactor.config import Settings


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(check, **settings):
    return {one.name: one for one in check(Settings(**settings))}


def test_each_thing_has_a_level_and_what_is_not_good_says_what_to_do(capsys):
    status = frame.main(["doctor", "--json", "--ingest-port", "0", "--admin-port", "0"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["level"] for row in rows} <= {"ok", "warn", "fail"}
    assert all(row["advice"] for row in rows if row["level"] != "ok")
    assert all(row["found"] for row in rows)
    names = [row["name"] for row in rows]
    for name in ("clock source", "cpu", "memory", "open files", "sqlite", "handler cache", "disk sync", "disk space"):
        assert name in names
    assert len(set(names)) == len(names)
    assert status == (1 if any(row["level"] == "fail" for row in rows) else 0)
    assert list(Path().iterdir()) == []  # nothing is left behind


def test_the_disk_is_measured_by_syncs_that_really_happen(monkeypatch, tmp_path):
    real, synced = os.fdatasync, []
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(os.fstat(fd).st_size), real(fd)))
    times = machine.sync_times(tmp_path, count=5)
    assert synced == [4096 * i for i in range(1, 6)]
    assert len(times) == 5 and all(0 < one < 5 for one in times)


@pytest.mark.parametrize(
    ("seconds", "level", "word"), [(0.001, "ok", "1.00 ms"), (0.05, "warn", "50.00 ms"), (1e-6, "warn", "0.00 ms")]
)
def test_a_slow_disk_and_one_too_fast_to_be_true_are_told(seconds, level, word, monkeypatch):
    monkeypatch.setattr(machine, "sync_times", lambda _: [seconds] * 100)
    one = found(machine.disk_sync)["disk sync"]
    assert (one.level, word in one.found) == (level, True)


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "ok"), ("xfs", "ok"), ("nfs4", "fail"), ("cifs", "fail"), ("tmpfs", "warn"), ("overlay", "warn")],
)
def test_a_file_system_that_cannot_keep_a_log_is_refused_or_warned_of(kind, level, monkeypatch):
    monkeypatch.setattr(machine, "file_system", lambda _: kind)
    assert found(machine.directory)["data_dir"].level == level
    assert found(machine.directory, log={"kind": "none"})["data_dir"].level == "ok"


def test_the_file_system_is_that_of_the_longest_mount_above_the_path():
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:9 / /data rw - nfs4 host:/x rw\n"
        "3 2 0:9 / /data/a\\040b rw shared:1 - tmpfs tmpfs rw\n"
    )
    assert host.file_system(Path("/var"), mounts) == "ext4"
    assert host.file_system(Path("/data"), mounts) == "nfs4"
    assert host.file_system(Path("/database"), mounts) == "ext4"
    assert host.file_system(Path("/data/a b/c"), mounts) == "tmpfs"


def test_cgroup_limits_are_the_least_on_the_way_up_in_both_versions(tmp_path):
    (tmp_path / "pod/app").mkdir(parents=True)
    (tmp_path / "pod/cpu.max").write_text("150000 100000\n")
    (tmp_path / "pod/app/cpu.max").write_text("max 100000\n")
    (tmp_path / "pod/app/memory.max").write_text("1073741824\n")
    (tmp_path / "pod/memory.max").write_text("max\n")
    assert host.cgroup_cores(tmp_path, "0::/pod/app\n") == 1.5
    assert host.cgroup_memory(tmp_path, "0::/pod/app\n") == 1 << 30
    assert host.cgroup_cores(tmp_path, "0::/\n") is None
    (tmp_path / "cpu,cpuacct/x").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct/x/cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu,cpuacct/x/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    own = "4:memory:/\n3:cpu,cpuacct:/x\n"
    assert host.cgroup_cores(tmp_path, own) == 0.5
    assert host.cgroup_memory(tmp_path, own) is None


def test_less_than_a_core_by_cgroup_is_told(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for granted, level in ((2.0, "ok"), (0.5, "warn")):
        for module in (machine, host):
            monkeypatch.setattr(module, "cgroup_cores", lambda granted=granted: granted)
        one = found(machine.cores)["cpu"]
        assert one.level == level
        assert f"16 usable, {granted:g} by cgroup" in one.found


@pytest.mark.parametrize(
    ("allowed", "granted", "shards"),
    [(16, None, 15), (16, 2.0, 1), (16, 4.5, 3), (16, 0.5, 1), (2, 8.0, 1), (1, None, 1), (128, None, 64)],
)
def test_shards_by_default_follow_from_the_cores_that_the_process_may_use(monkeypatch, allowed, granted, shards):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(host, "cgroup_cores", lambda: granted)
    assert host.default_shards() == shards


def test_too_few_files_for_the_connections_that_are_allowed_fail(monkeypatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (256, 1000))
    assert found(machine.open_files)["open files"].level == "fail"
    assert found(machine.open_files, limits={"connections_max": 500})["open files"].level == "ok"


def test_a_port_in_use_and_an_address_of_another_machine_are_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = found(machine.ports, ingest={"port": port}, admin={"port": 0})
    assert (one["ingest port"].level, one["admin port"].level) == ("warn", "ok")
    outside = Settings().model_copy(update={"ingest": Settings().ingest.model_copy(update={"host": "192.0.2.1"})})
    assert {one.name: one.level for one in machine.ports(outside)}["ingest port"] == "fail"


def test_a_cache_that_others_can_write_is_told_and_so_is_none(tmp_path, monkeypatch):
    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("BITACTOR_CACHE_DIR", str(shared))
    assert found(machine.cache)["handler cache"].level == "warn"
    shared.chmod(0o700)
    assert found(machine.cache)["handler cache"].level == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITACTOR_CACHE_DIR", str(tmp_path / "file/x"))
    assert "BITACTOR_CACHE_DIR" in found(machine.cache)["handler cache"].advice


def test_a_disk_without_room_for_the_whole_log_is_told():
    assert found(machine.disk_space, log={"size_bytes_max": 1 << 60})["disk space"].level == "warn"
    assert found(machine.disk_space, log={"size_bytes_max": 4 << 20})["disk space"].level == "ok"


def test_a_certificate_that_expires_soon_is_told(tmp_path):
    from bitactor.ingest import certs

    certs.make_ca(tmp_path)
    for days, level in ((-1, "fail"), (3, "warn"), (90, "ok")):
        made = certs.make_server(tmp_path, file=f"s{level}", days=days)
        tls = {"cert_file": made.cert_file, "key_file": made.key_file}
        assert found(machine.certificate, tls=tls)["certificate"].level == level
