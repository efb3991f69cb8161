"""The outbox against a peer that loses connections at any byte: every signal once, in order, behind its name."""

import random
import struct

import numpy as np
import pytest

import bitactor as ba
from bitactor.client.outbox import Outbox
from bitactor.protocol import messages as m
from bitactor.protocol.frames import SIGNALS_MAX

ONE = struct.Struct("=HHIQQd")


class Peer:
    """Takes bytes as they come; `next` is what it has, names are learned in order."""

    def __init__(self, limit):
        self.window, self.next, self.keys, self.names, self.data = limit, 0, [], set(), b""

    def receive(self, data, limit):
        self.data += data
        while (length := m.message_length(self.data[:24])) and length <= len(self.data):
            message, self.data = self.data[:length], self.data[length:]
            if message[5] == m.Type.NAME:
                self.names.add(m.decode_message(message).key)
                continue
            frame = ba.decode_frame(message)
            assert frame.sequence <= self.next, "a gap"
            assert frame.sequence + len(frame.signals) <= limit, "more than the credit"
            for key in frame.signals["key"][self.next - frame.sequence :].tolist():
                assert key % 97 or key in self.names, f"key {key} came before its name"
                self.keys.append(key)
            self.next += max(0, frame.sequence + len(frame.signals) - self.next)


@pytest.mark.parametrize("seed", range(30))
def test_every_signal_comes_once_in_order_behind_its_name_over_any_losses(seed):
    rng = random.Random(seed)
    peer = Peer(limit=rng.choice([10_000, 50_000]))
    outbox = Outbox(rng.choice([SIGNALS_MAX, 40_000]), producer=1, epoch=1, next=0, limit=peer.window)
    given = 0
    while given < 60_000 or peer.next < given:
        action = rng.random()
        if action < 0.35 and given < 60_000:
            n = rng.choice([1, 10, 3000, 20_000])
            named = [key for key in range(given, given + n) if key % 97 == 0]
            if all(outbox.name(m.Name(key, str(key)).encode()) for key in named):
                given += outbox.put(ba.make_signals(1, np.arange(given, given + n), 0.0, 0, 0, n=n), 0)
        elif action < 0.4 and given % 97:
            given += outbox.put_one(ONE, 1, 0, 0, given, 0, 0.0)
        elif action < 0.5:
            outbox.seal()
        elif action < 0.9:
            data = outbox.pending()
            if data is not None:
                part = data[: rng.randint(1, len(data))] if rng.random() < 0.3 else data
                peer.receive(bytes(part), outbox.limit)
                outbox.sent(len(part))
        elif action < 0.97:
            acked = rng.randint(outbox.acked, min(peer.next, outbox.next)) if rng.random() < 0.3 else peer.next
            outbox.ack(acked, max(outbox.limit, acked + peer.window))
        else:
            peer.data = b""
            resumed = rng.choice([peer.next, outbox.acked])
            outbox.rewind(resumed, resumed + peer.window)
        assert outbox.next + outbox.staged == given
        assert given - outbox.acked <= outbox.signals_max
    assert peer.keys == list(range(given))
