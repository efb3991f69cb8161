"""Mutating inputs by chance: bits, bytes, blocks, lengths, pieces of other inputs; and the loop that feeds a target."""

import random
import time

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x0D, 0x22, 0x2E, 0x5B)
WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFFFF, 0x80000000, 1 << 63, (1 << 64) - 1)


def mutated(data, others, chance):
    """A few mutations of the bytes; `others`: inputs to take pieces from."""
    data = bytearray(data)
    for _ in range(1 + int(chance.expovariate(0.7))):
        what = chance.randrange(9)
        at = chance.randrange(len(data) + 1)
        length = min(len(data) - at, 1 + int(chance.expovariate(0.1)))
        if what == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1 and at < len(data):
            data[at] = chance.choice(INTERESTING)
        elif what == 2:
            del data[at : at + length]
        elif what == 3:
            data[at:at] = data[at : at + length]
        elif what == 4:
            data[at:at] = chance.randbytes(length or 1)
        elif what == 5:
            del data[at:]
        elif what == 6:
            other = chance.choice(others)
            begin = chance.randrange(len(other) + 1)
            data[at : at + chance.choice([0, length])] = other[begin : begin + 1 + int(chance.expovariate(0.02))]
        elif what == 7:
            size = chance.choice([1, 2, 4, 8])
            data[at : at + size] = (chance.choice(WORDS) & (1 << 8 * size) - 1).to_bytes(size, "big")
        else:
            to = chance.randrange(len(data) + 1)
            data[to:to] = data[at : at + length]
    return bytes(data[:65536])


def fuzz(target, seconds=None, rounds=None, seed=0):
    """Feed a target for so long, or so often; how often. What it raises comes through, with the input in its notes.

    A target has seeds(), one(data), and perhaps repair(data, chance): checksums and lengths made right again, so that
    what lies behind them is reached; half of the inputs are repaired.
    """
    chance = random.Random(seed)
    pool = [bytes(each) for each in target.seeds()]
    end = time.monotonic() + seconds if seconds is not None else None
    repair = getattr(target, "repair", None)
    done = 0
    for data in pool:
        feed(target, data, seed)
    while (end is None or time.monotonic() < end) and (rounds is None or done < rounds):
        data = mutated(chance.choice(pool), pool, chance)
        if repair is not None and chance.random() < 0.5:
            data = repair(data, chance)
        feed(target, data, seed)
        done += 1
    return done


def feed(target, data, seed):
    """One input; an exception says which."""
    try:
        target.one(data)
    except BaseException as error:
        error.add_note(f"seed {seed}, input {bytes(data[:400]).hex()}{'...' if len(data) > 400 else ''}")
        raise
