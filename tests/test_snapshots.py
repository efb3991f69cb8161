"""Snapshot files: what is written comes back, damage of every byte is found, a failing disk leaves what was there."""

import errno
import os
import random
import secrets

import numpy as np
import pytest

from bitactor.log.contract import CorruptionError, FormatError
from bitactor.log.disk import Disk, make_directories
from bitactor.log.snapshots import SnapshotStore, load

SECTIONS = [("counters", b"\1\2\3"), ("", b""), ("states/vwap", np.arange(100, dtype="u8")), ("é" * 40, b"x" * 64)]


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def small(store, sequence=7):
    return store.write({"sequence": sequence, "position": 99, "fields": ["a", "b"]}, SECTIONS[:3])


def test_what_was_written_comes_back_in_its_order(tmp_path):
    store = SnapshotStore(tmp_path / "deep" / "snapshots")
    path = store.write({"sequence": 7, "position": 99, "fields": {"é": [1, None]}}, SECTIONS)
    snapshot = store.load(path)
    assert snapshot.meta == {"sequence": 7, "position": 99, "fields": {"é": [1, None]}}
    assert list(snapshot.sections) == [name for name, _ in SECTIONS]
    for name, buffer in SECTIONS:
        assert bytes(snapshot.sections[name]) == bytes(buffer)
    array = np.frombuffer(snapshot.sections["states/vwap"], "u8")
    assert array.ctypes.data % 64 == 0
    assert (array == np.arange(100)).all()


def test_a_section_longer_than_every_buffer_comes_back(tmp_path):
    big = np.random.default_rng(5).integers(0, 256, (33 << 20) + 5, dtype=np.uint8)
    snapshot = load(SnapshotStore(tmp_path).write({"sequence": 0}, [("big", big), ("after", b"z")]))
    assert (np.frombuffer(snapshot.sections["big"], "u1") == big).all()
    assert bytes(snapshot.sections["after"]) == b"z"


def test_the_newest_are_kept_and_found_first(tmp_path):
    store = SnapshotStore(tmp_path, keep=2)
    paths = [small(store, sequence) for sequence in (5, 9, 100, 20)]
    assert store.latest() == [paths[2], paths[3]]
    assert names_in(tmp_path) == sorted(path.name for path in (paths[2], paths[3]))


def test_sections_are_asked_for_one_by_one(tmp_path):
    alive = []

    def sections():
        for number in range(3):
            alive.append(number)
            yield f"s{number}", bytes(number)
            assert alive == list(range(number + 1))

    assert list(load(SnapshotStore(tmp_path).write({"sequence": 1}, sections())).sections) == ["s0", "s1", "s2"]


def test_a_snapshot_cut_at_any_byte_is_refused(tmp_path):
    data = small(SnapshotStore(tmp_path)).read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises((CorruptionError, ValueError)) as caught:
            load(cut)
        assert str(cut) in str(caught.value)
        assert isinstance(caught.value, CorruptionError)


def test_a_changed_bit_anywhere_is_found(tmp_path):
    data = bytearray(small(SnapshotStore(tmp_path)).read_bytes())
    changed = tmp_path / "changed"
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        changed.write_bytes(data)
        data[at] ^= 1 << at % 8
        with pytest.raises((CorruptionError, FormatError)):
            load(changed)


def test_bytes_behind_the_end_are_found(tmp_path):
    path = small(SnapshotStore(tmp_path))
    path.write_bytes(path.read_bytes() + bytes(64))
    with pytest.raises(CorruptionError, match="more follow"):
        load(path)


def test_rewritten_bytes_never_crash_the_loader(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    whole = small(SnapshotStore(tmp_path)).read_bytes()
    path = tmp_path / "changed"
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(data))
            data[at : at + dice.choice([0, 1, 8])] = dice.randbytes(dice.choice([0, 1, 8, 64]))
        if data == whole:
            continue
        path.write_bytes(data)
        with pytest.raises((CorruptionError, FormatError)):
            load(path)


def test_a_newer_format_is_refused_and_both_are_named(tmp_path):
    path = small(SnapshotStore(tmp_path))
    data = bytearray(path.read_bytes())
    data[5] = 2
    path.write_bytes(data)
    with pytest.raises(FormatError, match="snapshot format 2; this program knows up to 1"):
        load(path)


def test_the_one_before_is_found_when_the_newest_is_damaged(tmp_path):
    store = SnapshotStore(tmp_path)
    good, bad = small(store, 1), small(store, 2)
    data = bytearray(bad.read_bytes())
    data[200] ^= 1
    bad.write_bytes(data)
    snapshot, problems = store.newest()
    assert snapshot is not None and snapshot.path == good
    assert [type(problem) for problem in problems] == [CorruptionError]
    assert str(bad) in str(problems[0])
    good.unlink()
    assert store.newest()[0] is None


class FailingDisk(Disk):
    """Fails the n-th call, counted over all that can fail; tells what was done."""

    def __init__(self, fail_at=-1):
        self.fail_at, self.done = fail_at, []

    def note(self, what):
        self.done.append(what)
        if len(self.done) == self.fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, path):
        self.note("create")
        return super().create(path)

    def write(self, file, data):
        self.note("write")
        super().write(file, data)

    def sync(self, file):
        self.note("sync")
        super().sync(file)

    def rename(self, old, new):
        self.note("rename")
        super().rename(old, new)

    def sync_directory(self, path):
        self.note(f"sync_directory {path.name}")
        super().sync_directory(path)


def test_a_disk_that_refuses_leaves_the_snapshot_before_and_nothing_else(tmp_path):
    store = SnapshotStore(tmp_path, keep=1)
    before = small(store, 1)
    counting = FailingDisk()
    small(SnapshotStore(tmp_path / "other", keep=1, disk=counting))
    calls = len(counting.done) - counting.done.index("create")
    for fail_at in range(1, calls):  # the last one, syncing the directory, fails when the new one has its name
        with pytest.raises(OSError, match="No space left"):
            small(SnapshotStore(tmp_path, keep=1, disk=FailingDisk(fail_at)), 2)
        assert store.latest() == [before]
        assert not list(tmp_path.glob("*.tmp"))
        load(before)
    with pytest.raises(OSError):
        small(SnapshotStore(tmp_path, keep=1, disk=FailingDisk(calls)), 2)
    assert len(store.latest()) == 2  # the older one goes only when the newer one's name is durable


def test_a_file_is_synced_before_it_gets_its_name_and_directories_are_durable(tmp_path):
    disk = FailingDisk()
    small(SnapshotStore(tmp_path / "a" / "b", disk=disk))
    order = [what for what in disk.done if what != "write"]
    assert order == [
        f"sync_directory {tmp_path.name}",
        "sync_directory a",
        "create",
        "sync",
        "rename",
        "sync_directory b",
    ]
    make_directories(tmp_path / "a" / "b", disk)
    assert len([what for what in disk.done if what != "write"]) == len(order)


def test_what_a_killed_process_left_is_removed(tmp_path):
    store = SnapshotStore(tmp_path)
    (tmp_path / "00000000000000000003.tmp").write_bytes(b"half")
    (tmp_path / "notes.snapshot").write_bytes(b"not ours")
    path = small(store)
    assert names_in(tmp_path) == [path.name, "notes.snapshot"]
    assert store.latest() == [path]


@pytest.mark.parametrize(
    ("meta", "sections", "message"),
    [
        ({}, [], "meta\\['sequence'\\] is None"),
        ({"sequence": -1}, [], "meta\\['sequence'\\] is -1"),
        ({"sequence": 1}, [("a", b""), ("a", b"")], "'a' comes twice"),
        ({"sequence": 1, "x": float("nan")}, [], "JSON"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(tmp_path, meta, sections, message):
    with pytest.raises(ValueError, match=message):
        SnapshotStore(tmp_path).write(meta, sections)
    assert names_in(tmp_path) == []


def test_at_least_one_snapshot_is_kept(tmp_path):
    with pytest.raises(ValueError, match="snapshot.keep is 0: 1 at least"):
        SnapshotStore(tmp_path, keep=0)


def test_a_path_through_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="name one, or a path where one can be made"):
        make_directories(tmp_path / "file")
