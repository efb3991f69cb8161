"""docs/protocol.md is true: its examples are the bytes that are written, its tables are those of the code."""

import re
from pathlib import Path

import pytest

import bitactor as ba
from bitactor._core._codec import crc32c, partition
from bitactor.protocol import messages as m
from bitactor.protocol.errors import TABLE, Code
from bitactor.protocol.records import RecordBuilder
from bitactor.protocol.wire import LIMITS, OUTPUTS_MAX
from bitactor.schema import Kind

from . import plain

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "protocol.md").read_text()
PRODUCER = ba.text_key("desk-1")
SIGNAL = ba.make_signals(1, [42], 43.0, 100, 1700000000000000000)
OUTPUT = bytes.fromhex("0002000000000000000000000000002a17979cfe362a00004045800000000000") + bytes.fromhex(
    "0000000000001388" + "00" * 8
)
EXAMPLES = {
    "data": ba.encode_frame(SIGNAL, producer=7, epoch=3, sequence=1000),
    "hello": m.Hello("desk-1", token=b"secret", client="doc"),
    "welcome": m.Welcome(
        *(PRODUCER, 1, 1000, 1049576, 3, 5000, "market", "00112233445566778899aabbccddeeff" * 2),
        *((Kind("trade", 1, "f8", "u4"), Kind("alert", 2, "f8", "u4")), "bitactor 0.1.0"),
    ),
    "ack": m.Ack(1001, 1049577, 3, 5001),
    "error": m.Error(Code.SEQUENCE_GAP, True, 1001, 24, "expected 1001"),
    "ping": m.Ping(7),
    "pong": m.Pong(7),
    "close": m.Close(),
    "close-shutting-down": m.Close(Code.SHUTTING_DOWN, "bye"),
    "subscribe": m.Subscribe(1, (2,)),
    "subscribe-from": m.Subscribe(1, (2,), 5000, 1, live=False),
    "unsubscribe": m.Unsubscribe(1),
    "outputs": m.Outputs(1, 0, OUTPUT),
    "name": m.Name(ba.text_key("AAPL"), "AAPL"),
    "producer": m.Producer(PRODUCER, 2, "desk", "desk-1"),
    "forget-producer": m.ForgetProducer(PRODUCER),
    "erase-key": m.EraseKey(42),
    "part": m.Part(PRODUCER, 2, 1000, 1004, 1000, 990, 0b1001, bytes.fromhex("00000003")),
}


def hex_blocks(text):
    """Name -> bytes of the blocks marked hex; what follows a semicolon is a comment."""
    blocks = re.findall(r"^```hex ([\w-]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {name: bytes.fromhex("".join(line.partition(";")[0] for line in body.splitlines())) for name, body in blocks}


def rows_after(heading, text=PAGE):
    """The cells of the first table behind a heading, without its first two lines."""
    table = text[text.index(heading) :].partition("\n|")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_example_is_what_is_written():
    assert set(hex_blocks(PAGE)) == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_written_and_read_by_both_decoders(name):
    data, example = hex_blocks(PAGE)[name], EXAMPLES[name]
    if isinstance(example, bytes):
        assert data == example
        assert plain.frame(data)[2] == ba.decode_frame(data).sequence == 1000
        return
    assert data.hex() == example.encode().hex()
    assert m.decode_message(data) == example
    assert plain.message(data)[0] == example.type


def test_the_record_of_its_decision_is_what_is_written():
    text = (DOCS / "adr/0010-record-encoding.md").read_text()
    block = text[text.index("Test vector") :].partition("\n\n")[2].partition("\n\n")[0]
    builder = RecordBuilder()
    builder.add_message(EXAMPLES["name"].encode())
    builder.add_frame(EXAMPLES["data"])
    assert bytes.fromhex(block) == builder.finish(5, 77, 1700000001000000000, 0, 0x1122334455667788)
    assert len(plain.record(bytes.fromhex(block))[1]) == 2


def test_the_table_of_errors_is_that_of_the_code():
    expected = [
        [str(int(r.code)), r.name, "yes" if r.fatal else "no", "yes" if r.retry else "no", r.meaning, r.advice]
        for r in TABLE.values()
    ]
    assert rows_after("## Errors") == expected


def test_the_table_of_types_is_that_of_the_code():
    rows = rows_after("To find where a message ends")
    assert [(int(number), name.upper()) for number, name, _, _ in rows] == [(int(t), t.name) for t in m.Type]
    for number, _, direction, limit in rows:
        kind = int(number)
        assert (kind in m.FROM_CLIENT or kind in m.BEFORE_WELCOME) == (direction in ("to the service", "both"))
        assert (kind in m.FROM_SERVER) == (direction in ("to the client", "both"))
        assert limit == "8,192 signals" if kind == m.Type.DATA else int(limit.replace(",", "")) == LIMITS[kind]
    assert f"at most {OUTPUTS_MAX:,}" in PAGE


def test_vectors_of_keys_and_partitions_hold():
    assert crc32c(b"123456789") == 0xE3069283
    for text, key in rows_after("## Keys of texts"):
        assert ba.text_key(text.strip("`")) == int(key, 16)
    for key, number in rows_after("## Partitions of keys"):
        assert partition(int(key, 16)) == int(number)
