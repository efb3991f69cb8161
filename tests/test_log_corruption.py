"""Bits that changed in a log's files: told with the record and the offset, never skipped."""

import contextlib
import random
import re
import secrets

import pytest

from bitactor.log import database
from bitactor.log.contract import CorruptionError, FormatError, LogError
from bitactor.log.sqlite import SqliteLog
from bitactor.log.wal import frames
from tests.log_contract.records import record

HEADER_FIELDS = [  # offset in the record, offset that is named, what is said
    (0, 0, "begins with"),
    (4, 4, "its version is"),
    (5, 32, "its CRC says"),
    (15, 32, "its CRC says"),
    (23, 32, "its CRC says"),
    (31, 32, "its CRC says"),
    (33, 32, "its CRC says"),
    (39, 32, "its CRC says"),
    (47, 44, "its payload should have"),
    (56, 32, "its CRC says"),
]


def filled(path, lengths):
    made = [record(sequence, length) for sequence, length in enumerate(lengths)]
    with contextlib.closing(SqliteLog.open(path)) as log:
        for each in made:
            each.to(log)
    return [each.record for each in made]


def flip(path, at, bit=0):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def read_all(path):
    with contextlib.closing(SqliteLog.open(path)) as log:
        return [bytes(each) for each in log.read(log.first().sequence)]


@pytest.mark.parametrize(("offset", "named", "said"), HEADER_FIELDS)
def test_a_changed_bit_of_a_header_names_record_and_offset(tmp_path, offset, named, said):
    records = filled(tmp_path, [500] * 10)
    path = tmp_path / "log.sqlite"
    flip(path, path.read_bytes().index(records[6]) + offset)
    with contextlib.closing(SqliteLog.open(tmp_path)) as log:
        reading = log.read(0)
        assert [next(reading) for _ in range(6)] == records[:6]
        with pytest.raises(CorruptionError, match=f"log.sqlite: record 6, offset {named}: .*{said}") as caught:
            next(reading)
        assert (caught.value.sequence, caught.value.offset) == (6, named)
        assert list(log.read(7)) == records[7:]  # by asking for them, never by passing over


def test_a_changed_bit_anywhere_in_a_payload_names_its_record(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    lengths = [dice.choice([100, 5_000, 70_000, 400_000]) for _ in range(20)]
    records = filled(tmp_path, lengths)
    path = tmp_path / "log.sqlite"
    data = path.read_bytes()
    for _ in range(40):
        sequence = dice.randrange(1, 19)  # the first and the last are read at opening
        places = []
        while not places:  # none: a page ends there; several: SQLite moved a record and left its old bytes behind
            offset = dice.randrange(64, len(records[sequence]) - 8)
            places = [match.start() for match in re.finditer(re.escape(records[sequence][offset : offset + 8]), data)]
        bit = dice.randrange(8)
        for at in places:
            flip(path, at, bit)
        with contextlib.closing(SqliteLog.open(tmp_path)) as log:
            reading = log.read(0)
            assert [next(reading) for _ in range(sequence)] == records[:sequence]
            with pytest.raises(CorruptionError) as caught:
                next(reading)
            assert (caught.value.sequence, caught.value.offset) == (sequence, 32)
        for at in places:
            flip(path, at, bit)
    assert read_all(tmp_path) == records


@pytest.mark.parametrize("sequence", [0, 4])
def test_a_damaged_first_or_last_record_is_found_at_opening(tmp_path, sequence):
    records = filled(tmp_path, [500] * 5)
    path = tmp_path / "log.sqlite"
    flip(path, path.read_bytes().index(records[sequence]) + 100)
    with pytest.raises(CorruptionError, match=f"record {sequence}, offset 32"):
        SqliteLog.open(tmp_path)


def edit(path, sql):
    import apsw

    with contextlib.closing(apsw.Connection(str(path / "log.sqlite"))) as connection:
        connection.execute(sql)


@pytest.mark.parametrize(
    ("sql", "sequence", "said", "at_opening"),
    [
        ("DELETE FROM record WHERE sequence = 4", 4, "it is missing: record 5 comes where it was expected", False),
        ("DELETE FROM record WHERE sequence < 2", 0, "it is missing; record 2 is the first", True),
        ("DELETE FROM record WHERE sequence > 6", 7, "records up to 9 were kept at the last checkpoint", True),
        ("UPDATE record SET position = 41 WHERE sequence = 4", 4, "filed as", False),
        ("UPDATE record SET wall_ns = 1 WHERE sequence = 4", 4, "filed as", False),
        ("UPDATE record SET record = zeroblob(20) WHERE sequence = 4", 4, "a header alone has 64", False),
        ("UPDATE record SET record = (SELECT record FROM record WHERE sequence = 3) WHERE sequence = 4", 4,
         "its header says that it is record 3", False),
    ],
)  # fmt: skip
def test_rows_that_were_tampered_with_are_told(tmp_path, sql, sequence, said, at_opening):
    filled(tmp_path, [100] * 10)
    edit(tmp_path, sql)
    with pytest.raises(CorruptionError, match=said) as caught:
        read_all(tmp_path)
    assert caught.value.sequence == sequence
    if not at_opening:
        with contextlib.closing(SqliteLog.open(tmp_path)) as log:
            assert log.end().sequence == 10


@pytest.mark.parametrize("what", ["position", "wall time"])
def test_records_that_do_not_follow_one_another_are_told(tmp_path, what):
    from tests.log_contract.records import make

    filled(tmp_path, [100] * 10)
    bad = make(4, 41 if what == "position" else 40, 10, 5 if what == "wall time" else 1_002, b"")
    edit(
        tmp_path,
        f"UPDATE record SET record = x'{bad.hex()}', position = {41 if what == 'position' else 40}, "
        f"wall_ns = {5 if what == 'wall time' else 1002} WHERE sequence = 4",
    )
    with pytest.raises(CorruptionError, match=f"record 4, offset (16|24): its {what}"):
        read_all(tmp_path)


def test_changed_bytes_anywhere_in_the_file_never_change_what_is_read(tmp_path):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    records = filled(tmp_path, [dice.choice([50, 900, 150_000]) for _ in range(60)])
    path = tmp_path / "log.sqlite"
    whole = path.read_bytes()
    page = 65536
    told = 0
    for _ in range(150):
        # mostly where SQLite keeps its own structure: the first bytes of a page, cells, the first page
        at = dice.choice([dice.randrange(len(whole)), dice.randrange(len(whole) // page) * page + dice.randrange(200)])
        flip(path, at, dice.randrange(8))
        try:
            assert read_all(tmp_path) == records
        except (LogError, FormatError):
            told += 1
        for left in tmp_path.glob("log.sqlite*"):
            left.unlink()
        path.write_bytes(whole)
    assert told > 10


def test_no_bit_of_the_first_pages_head_makes_a_log_look_like_a_new_one(tmp_path):
    records = filled(tmp_path, [100] * 3)
    path = tmp_path / "log.sqlite"
    data = path.read_bytes()
    told = 0
    for at in range(112):  # SQLite's header, then what the page says of the tables: how many there are, and where
        for bit in range(8):
            flip(path, at, bit)
            try:
                assert read_all(tmp_path) == records, f"byte {at}, bit {bit}"
            except LogError:
                told += 1
            for file in tmp_path.glob("log.sqlite-*"):
                file.unlink()
            path.write_bytes(data)
    assert told > 100


def killed_with_a_wal(path, count=12, durability="full"):
    """The log of a process that died: nothing was checkpointed since it was opened."""
    log = SqliteLog.open(path, durability=durability)
    records = [record(sequence, 30_000) for sequence in range(count)]
    for each in records:
        each.to(log)
    database.abandon(log._connection)
    log._lock.release()
    return [each.record for each in records], path / "log.sqlite-wal"


@pytest.mark.parametrize("offset", [8, 20, 32, 40, 50, 5_000])
def test_a_changed_bit_inside_the_wal_of_a_killed_process_is_told(tmp_path, offset):
    records, wal = killed_with_a_wal(tmp_path)
    whole = wal.read_bytes()
    frame = 65536 + 24
    for at in [offset] if offset < 32 else [offset, offset + 3 * frame, offset + 6 * frame]:
        flip(wal, at)
        for _ in range(2):  # it stays told
            with pytest.raises(CorruptionError, match="log.sqlite-wal: record [0-9]+: its frame [0-9]+ is damaged"):
                SqliteLog.open(tmp_path)
        wal.write_bytes(whole)
        (tmp_path / "log.sqlite-shm").unlink()
    assert read_all(tmp_path) == records


def test_the_unfinished_end_of_a_wal_is_no_damage(tmp_path):
    records, wal = killed_with_a_wal(tmp_path)
    flip(wal, wal.stat().st_size - 100)  # of the last transaction, as if its sync had not ended
    assert read_all(tmp_path) == records[:-1]


def test_a_wal_written_without_syncs_may_lack_any_of_its_end(tmp_path):
    records, wal = killed_with_a_wal(tmp_path, durability="normal")
    flip(wal, 40 + 6 * (65536 + 24))
    kept = read_all(tmp_path)
    assert kept == records[: len(kept)]
    assert len(kept) < len(records)


def test_frames_of_an_older_wal_are_no_damage(tmp_path):
    log = SqliteLog.open(tmp_path, checkpoint_bytes=1 << 19)
    records = [record(sequence, 30_000) for sequence in range(40)]
    for each in records:
        each.to(log)
        log.tidy()
    database.abandon(log._connection)
    log._lock.release()
    salts, found = frames(tmp_path / "log.sqlite-wal", database.PAGE_BYTES)
    assert any(frame.salts != salts for frame in found)
    assert read_all(tmp_path) == [each.record for each in records]
