"""Frames, messages and records: the package's decoders beside the plain Python ones, one verdict, code and place."""

import bitactor as ba
from bitactor._core._codec import crc32c
from bitactor.protocol.frames import encode_frame
from bitactor.protocol.messages import Name
from bitactor.protocol.records import RecordBuilder, encode_app_record
from tests import test_plain
from tests.test_protocol_document import EXAMPLES


def with_crc(data, at):
    """The bytes with the checksum at that offset made right."""
    if len(data) < at + 4:
        return data
    return data[:at] + crc32c(data[at + 4 :], crc32c(data[:at])).to_bytes(4, "big") + data[at + 4 :]


def frame(n, sequence=0):
    signals = ba.make_signals(1, range(n), [1.5 * i for i in range(n)], time=1)
    return encode_frame(signals, producer=7, sequence=sequence, epoch=1)


class Frames:
    """Differential: the decoder of frames, in C, and tests/plain.py."""

    def seeds(self):
        return [frame(n, n) for n in (1, 2, 5)]

    def repair(self, data, _chance):
        return with_crc(data, 32)

    def one(self, data):
        test_plain.frame_has_one_verdict(data, {1, 2, 3})


class Messages:
    """Differential: the decoder of messages and tests/plain.py."""

    def seeds(self):
        return [example.encode() for name, example in EXAMPLES.items() if name != "data"]

    def repair(self, data, chance):
        if len(data) >= 16 and chance.random() < 0.7:
            data = data[:8] + (len(data) - 16).to_bytes(4, "big") + data[12:]
        return with_crc(data, 12)

    def one(self, data):
        test_plain.message_has_one_verdict(data)


class Records:
    """Differential: the reader of records, in C, and tests/plain.py."""

    def seeds(self):
        builder, empty = RecordBuilder(), RecordBuilder()
        builder.add_message(Name(ba.text_key("AAPL"), "AAPL").encode())
        builder.add_frame(frame(3))
        data = bytes(builder.finish(5, 77, 1_700_000_000_000_000_000, 0, 9))
        app = encode_app_record(b'{"name":"x"}', sequence=0, position=0, wall_ns=1, fingerprint=9)
        return [data, bytes(app), bytes(empty.finish(6, 80, 1_700_000_000_000_000_001, 0, 9))]

    def repair(self, data, chance):
        if len(data) >= 64 and chance.random() < 0.5:
            data = data[:44] + (len(data) - 64).to_bytes(4, "big") + data[48:]
        if len(data) >= 144 and chance.random() < 0.5:  # the frame behind the name, too
            at = data.find(b"BAF1\x01\x01", 64)
            data = data[:at] + with_crc(data[at:], 32) if at > 0 else data
        return with_crc(data, 32)

    def one(self, data):
        test_plain.record_has_one_verdict(data, {1, 2, 3})
