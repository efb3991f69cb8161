"""The oracle of the service's tests: a log read back record by record into an inline engine, and everything compared.

Written apart from the service's own recovery: it knows the log, the codec and Engine.apply, and no code of the runtime.
"""

import json
from dataclasses import dataclass

import numpy as np

import bitactor as ba
from bitactor.log.sqlite import SqliteLog
from bitactor.protocol.messages import EraseKey, ForgetProducer, Name, Producer, decode_message
from bitactor.protocol.records import RecordType, read_record
from bitactor.signals import OUTPUT_DTYPE


@dataclass
class Truth:
    """What a log says. sent: by producer's number, its signals in their order, from when it was forgotten last."""

    state: object
    outputs: np.ndarray
    producers: dict
    names: dict
    sent: dict
    position: int
    records: int
    apps: list


def read_log(directory, app):
    """The truth of the log in that directory, which nobody serves now; it must begin with record 0."""
    log = SqliteLog.open(directory)
    try:
        return truth_of(list(log.read(0)), app)
    finally:
        log.close()


def truth_of(records, app):
    outward = [k for k in app.kinds if k.number not in {kind.number for a in app.actors for kind in a.kinds}]
    producers, names, sent, apps = {}, {}, {}, []
    position = wall = 0
    outputs = []
    with ba.Engine(app, shards=0, clock="records") as engine:
        reader = engine.subscribe(outward, capacity=1 << 18)
        for number, raw in enumerate(records):
            record = read_record(bytes(raw))
            assert record.sequence == number
            assert record.position == position
            assert record.wall_ns >= wall
            wall = record.wall_ns
            if record.type == RecordType.APP:
                apps.append(json.loads(bytes(record.payload)))
                continue
            erased, at = [], 0
            for kind, data in record.items:
                if kind == 1:
                    head = bytes(data[:64])
                    producer, epoch = int.from_bytes(head[8:16], "big"), int.from_bytes(head[16:20], "big")
                    count, sequence = int.from_bytes(head[20:24], "big"), int.from_bytes(head[24:32], "big")
                    known = producers[producer]
                    assert (known["epoch"], known["next"]) == (epoch, sequence), "a frame twice, or one is missing"
                    known["next"] += count
                    sent.setdefault(producer, []).append(record.signals[at : at + count].copy())
                    at += count
                    continue
                match decode_message(data):
                    case Producer(id_, epoch, identity, name):
                        row = producers.setdefault(id_, {"name": name, "identity": identity, "next": 0, "epoch": 0})
                        assert epoch > row["epoch"]
                        row["epoch"] = epoch
                    case Name(key, text):
                        names[key] = text
                    case ForgetProducer(id_):
                        del producers[id_]
                        sent.pop(id_, None)
                    case EraseKey(key):
                        erased.append(key)
                        names.pop(key, None)
            for begin in range(0, record.count, 8192) if record.count else [0]:
                engine.apply(record.signals[begin : begin + 8192], record.wall_ns)
                while len(batch := reader.read(timeout=0)):
                    outputs.append(batch)
            for key in erased:
                engine.erase(key)
            position += record.count
        state = engine.export_state()
    everything = np.concatenate(outputs) if outputs else np.empty(0, OUTPUT_DTYPE)
    sent = {producer: np.concatenate(parts) for producer, parts in sent.items()}
    return Truth(state, everything, producers, names, sent, position, len(records), apps)


def assert_same_state(left, right):
    """Bit for bit: every array of two EngineStates, and their counters."""
    mine, theirs = left.to_sections(), right.to_sections()
    assert mine[0] == theirs[0]
    for (name, a), (other, b) in zip(mine[1], theirs[1], strict=True):
        assert name == other
        assert a.tobytes() == b.tobytes(), f"section {name} differs"


def stream(name, count, seed=0):
    """The deterministic signals of a producer: sequence i is always the same signal, and no two are alike."""
    rng = np.random.default_rng([seed, *name.encode()])
    signals = np.zeros(count, ba.SIGNAL_DTYPE)
    signals["kind"] = np.where(rng.random(count) < 0.8, 1, 2)
    signals["key"] = rng.integers(0, 500, count)
    signals["aux"] = rng.integers(1, 100, count)
    prices = (rng.random(count) * 100 + 1).astype("f8")
    signals["value"] = np.where(signals["kind"] == 1, prices, np.arange(count).astype("u8").view("f8"))
    signals["time"] = np.arange(count, dtype="u8") + 1_700_000_000_000_000_000
    return signals
