"""Snapshots in JetStream: written once, the pointer goes forward only, damage falls back, old ones go."""

import threading

import pytest

from bitactor.log.contract import CorruptionError, LogFullError, LogSettingsError
from bitactor.log.objects import ObjectSnapshots, SnapshotOvertakenError
from tests.jetstream_tools import JetStream, unique

FINGERPRINT = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with JetStream(tmp_path_factory.mktemp("nats")) as jetstream:
        jetstream.connect()
        yield jetstream


def store(jetstream, directory, prefix, *, lane=0, keep=2, connection=None, size_bytes_max=64 << 20):
    return jetstream.loop(
        ObjectSnapshots.open(
            connection or jetstream.connections[0], prefix, lane=lane, directory=directory, keep=keep,
            replicas=min(jetstream.servers.nodes, 3), size_bytes_max=size_bytes_max,
        )
    )  # fmt: skip


def meta(sequence, fingerprint=FINGERPRINT):
    return {"sequence": sequence, "position": sequence * 10, "app": {"fingerprint": fingerprint}}


def sections(sequence, length=700_000):
    return [("a", bytes([sequence % 251]) * length), ("b", b"")]


def loaded(snapshots):
    """Sequences of all that load, newest first, each seen to hold what was written."""
    found = []
    for path in snapshots.latest():
        snapshot = snapshots.load(path)
        assert bytes(snapshot.sections["a"]) == sections(snapshot.meta["sequence"])[0][1]
        assert int(path.stem) == snapshot.meta["sequence"]
        found.append(snapshot.meta["sequence"])
    return found


def subjects(snapshots):
    """What the store holds: (chunks, names), of all lanes."""
    there = snapshots._connection.wait(snapshots._subjects())
    return [each for each in there if ".C." in each], [each for each in there if ".M." in each]


def test_a_snapshot_is_read_by_another_process_and_the_last_few_are_kept(one, tmp_path):
    prefix = unique()
    first = store(one, tmp_path / "a", prefix)
    assert first.latest() == []
    for sequence in (3, 7, 12):
        path = first.write(meta(sequence), sections(sequence))
        assert path.stat().st_size > 700_000
    for directory in ("a", "elsewhere"):
        assert loaded(store(one, tmp_path / directory, prefix)) == [12, 7]
    chunks, names = subjects(first)
    assert len(chunks) == len(names) == 2
    assert store(one, tmp_path / "a", prefix, lane=1).latest() == []


def test_the_pointer_never_goes_back(one, tmp_path):
    prefix = unique()
    owner, zombie = store(one, tmp_path / "a", prefix), store(one, tmp_path / "b", prefix)
    owner.write(meta(5), sections(5))
    zombie.write(meta(6), sections(6))  # it was the owner until here
    owner.write(meta(9), sections(9))
    for late in (6, 8, 9):
        with pytest.raises(SnapshotOvertakenError, match=f"record 9 already; this one is of {late}"):
            zombie.write(meta(late), sections(late))
    assert loaded(zombie) == loaded(owner) == [9, 6]
    chunks, names = subjects(owner)
    assert len(chunks) == len(names) == 2


def stopped_before_it_is_named(jetstream, snapshots, sequence):
    """(thread, event that lets it go on, errors) of a write whose chunks are all stored."""
    stopped, resume, told = threading.Event(), threading.Event(), []

    async def name(stored, really=snapshots._name):
        stopped.set()
        await jetstream.loop.loop.run_in_executor(None, resume.wait)
        return await really(stored)

    def write():
        try:
            snapshots.write(meta(sequence), sections(sequence))
        except BaseException as error:  # noqa: BLE001
            told.append(error)

    snapshots._name = name
    writing = threading.Thread(target=write)
    writing.start()
    assert stopped.wait(30)
    return writing, resume, told


def test_an_older_one_that_is_finished_meanwhile_does_not_take_chunks_of_a_newer_one(one, tmp_path):
    prefix = unique()
    former, owner = store(one, tmp_path / "a", prefix), store(one, tmp_path / "b", prefix)
    writing, resume, told = stopped_before_it_is_named(one, owner, 20)
    former.write(meta(15), sections(15))
    resume.set()
    writing.join()
    assert told == []
    assert loaded(store(one, tmp_path / "c", prefix)) == [20, 15]


def test_one_that_is_overtaken_while_it_uploads_loses_and_leaves_nothing_behind(one, tmp_path):
    prefix = unique()
    owner, zombie = store(one, tmp_path / "a", prefix), store(one, tmp_path / "b", prefix)
    writing, resume, told = stopped_before_it_is_named(one, zombie, 8)
    owner.write(meta(9), sections(9))
    resume.set()
    writing.join()
    assert [type(error) for error in told] == [SnapshotOvertakenError]
    assert loaded(owner) == [9]
    owner.write(meta(10), sections(10))
    assert loaded(owner) == [10, 9]
    chunks, names = subjects(owner)
    assert len(chunks) == len(names) == 2


def test_of_two_that_store_the_same_state_both_succeed_with_one_object(one, tmp_path):
    prefix = unique()
    stores = [store(one, tmp_path / name, prefix) for name in "ab"]
    wrong = []

    def write(each):
        try:
            each.write(meta(4), sections(4))
        except SnapshotOvertakenError:
            pass
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(each,)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [loaded(each) for each in stores] == [[4], [4]]
    stores[0].write(meta(5), sections(5))
    assert len(subjects(stores[0])[1]) == 2


def test_damage_is_found_and_the_one_before_it_is_whole(one, tmp_path):
    prefix = unique()
    writer = store(one, tmp_path / "a", prefix)
    for sequence in (3, 7):
        writer.write(meta(sequence), sections(sequence))
    newest = writer._connection.wait(writer.pointer())[0][0]
    connection = one.connections[0]
    subject = f"$O.{writer.bucket}.C.{newest.chunks_of}"
    one.loop(connection.jetstream().purge_stream(f"OBJ_{writer.bucket}", subject=subject, keep=2))
    for directory in ("b", "c"):
        reader = store(one, tmp_path / directory, prefix)
        paths = reader.latest()
        with pytest.raises(CorruptionError, match="does not make its digest: parts are missing or damaged"):
            reader.load(paths[0])
        paths[0].rename(paths[0].with_suffix(".damaged"))  # as recovery does
        assert reader.load(paths[1]).meta["sequence"] == 3
    path = store(one, tmp_path / "a", prefix).latest()[0]
    assert writer.load(path).meta["sequence"] == 7  # its file is still here, whole
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptionError, match="digest"):
        writer.load(path)
    writer.write(meta(8), sections(8))
    assert writer.load(writer.latest()[0]).meta["sequence"] == 8


def test_a_full_store_says_so_and_the_latest_stays(one, tmp_path):
    prefix = unique()
    snapshots = store(one, tmp_path, prefix, size_bytes_max=2 << 20)
    snapshots.write(meta(1), sections(1))
    with pytest.raises(LogFullError, match=r"take all the bytes that they may.*raise nats.snapshot_bytes_max"):
        snapshots.write(meta(2), [("a", bytes(3 << 20))])
    assert loaded(snapshots) == [1]
    snapshots.write(meta(3), sections(3))  # what the failed one sent does not take up room
    assert loaded(snapshots) == [3, 1]


def test_a_bucket_with_less_than_asked_for_is_refused(one, tmp_path):
    prefix = unique()
    store(one, tmp_path, prefix, size_bytes_max=2 << 20)
    with pytest.raises(LogSettingsError, match="max_bytes is 2097152, 67108864 was asked for"):
        store(one, tmp_path, prefix)


def test_snapshots_are_written_and_read_while_servers_fail(tmp_path):
    with JetStream(tmp_path / "nats", 3) as three:
        three.connect()
        prefix = unique()
        snapshots = store(three, tmp_path / "a", prefix)
        snapshots.write(meta(1), sections(1, 100_000))
        written = threading.Event()
        failed = []

        def write():
            try:
                for sequence in range(2, 6):
                    snapshots.write(meta(sequence), sections(sequence))
            except BaseException as error:  # noqa: BLE001
                failed.append(error)
            written.set()

        threading.Thread(target=write).start()
        leader = three.servers.leader_of(f"OBJ_{snapshots.bucket}")
        three.servers.kill(leader)
        assert written.wait(120)
        assert failed == []
        assert loaded(store(three, tmp_path / "b", prefix)) == [5, 4]
        three.servers.start(leader)
        assert loaded(store(three, tmp_path / "c", prefix)) == [5, 4]
