"""A second decoder of frames, messages and records, in plain Python, written from docs/protocol.md and the ADRs alone.

It shares no code with the package: tests compare the two. A refusal is Refused(code, offset).
"""

U64 = 2**64 - 1
NAMES_MAX = 1024
TYPES = {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 32, 33, 34}
LIMITS = {2: 4096, 3: 1 << 20, 10: 1 << 20}
CODES = {*range(1, 13), *range(20, 34), *range(40, 51)}
LOGGED = {1, 11, 15, 32, 33, 34}


class Refused(Exception):
    """A verdict: code (a word) and offset."""


def crc32c(data):
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def number(data, at, size):
    return int.from_bytes(data[at : at + size], "big")


def frame(data, kinds=None):
    """(producer, epoch, sequence, trace, signals as tuples) of a whole frame; codes are those of ADR 5."""
    n = len(data)
    if n < 64:
        raise Refused("short", n)
    for bad, code, at in [
        (data[:4] != b"BAF1", "magic", 0),
        (data[4] != 1, "version", 4),
        (data[5] != 1, "type", 5),
        (data[6] or data[7], "flags", 6),
        (number(data, 36, 4), "flags", 36),
    ]:
        if bad:
            raise Refused(code, at)
    count, sequence = number(data, 20, 4), number(data, 24, 8)
    if not 1 <= count <= 8192:
        raise Refused("count", 20)
    if n != 64 + 32 * count:
        raise Refused("short" if n < 64 + 32 * count else "long", n)
    if number(data, 32, 4) != crc32c(data[:32] + data[36:]):
        raise Refused("crc", 32)
    if sequence + count > U64:
        raise Refused("sequence", 24)
    signals = []
    for at in range(64, n, 32):
        kind, flags = number(data, at, 2), number(data, at + 2, 2)
        if flags:
            raise Refused("signal_flags", at + 2)
        if kind == 0 or (kinds is not None and kind not in kinds):
            raise Refused("signal_kind", at)
        signals.append((kind, number(data, at + 4, 4), *(number(data, at + i, 8) for i in (8, 16, 24))))
    return number(data, 8, 8), number(data, 16, 4), sequence, bytes(data[40:64]), signals


class Fields:
    """Takes the fields of a payload one after the other."""

    def __init__(self, data):
        self.data, self.at, self.began = data, 16, 16

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Refused("length", self.at)
        self.began, self.at = self.at, self.at + n
        return self.data[self.began : self.at]

    def u(self, size):
        return int.from_bytes(self.take(size), "big")

    def flags(self, known=0):
        value = self.u(2)
        if value & ~known:
            raise Refused("flags", self.began)
        return value

    def raw(self, most):
        began, n = self.at, self.u(2)
        if n > most:
            raise Refused("field", began)
        data = self.take(n)
        self.began = began
        return bytes(data)

    def text(self):
        data = self.raw(NAMES_MAX)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("field", self.began) from None

    def known_code(self, zero):
        value = self.u(2)
        if value not in CODES and not (zero and value == 0):
            raise Refused("field", self.began)
        return value


def hello(f):
    low, high = f.u(1), f.u(1)
    if not 1 <= low <= high:
        raise Refused("field", 17)
    fields = (low, high, f.flags(1), f.u(4), f.text(), f.raw(2048), f.text())
    if high > 1:
        f.at = len(f.data)
    return fields


def welcome(f):
    if f.u(1) != 1:
        raise Refused("version", 16)
    fields = (f.u(1), f.flags(), f.u(4), f.u(8), f.u(8), f.u(8), f.u(8), f.u(4))
    if not 1 <= fields[-1] <= 8192:
        raise Refused("field", f.began)
    count = f.u(4)
    texts = f.text(), f.text(), f.text()
    kinds = []
    for _ in range(count):
        at = f.at
        kind = f.u(2), f.u(1), f.u(1)
        name = f.text()
        if kind[1] not in (1, 2, 3) or kind[2] not in (1, 2, 3):
            raise Refused("field", at + 3)
        if not name.isidentifier() or name.startswith("_") or kind[0] == 0:
            raise Refused("field", at + 4)
        kinds.append((*kind, name))
    return *fields, *texts, kinds, rest_of(f, 8)


def rest_of(f, size):
    count, at = (len(f.data) - f.at) // size, f.at
    items = bytes(f.take(count * size))
    if count > 64:
        raise Refused("field", at)
    return items


def error(f):
    return f.known_code(zero=False), f.flags(1), f.u(4), f.u(8), f.text()


def subscribe(f):
    fields = f.u(4), f.flags(1), f.u(2)
    if fields[-1] == 0:
        raise Refused("count", f.began)
    return *fields, f.u(8), f.u(8), bytes(f.take(2 * fields[-1])), rest_of(f, 16)


def outputs(f):
    id_, count = f.u(4), f.u(4)
    if count > 21845:
        raise Refused("count", f.began)
    return id_, count, f.u(8), bytes(f.take(48 * count))


def part(f):
    fields = [f.u(8), f.u(4)]
    if f.u(4):
        raise Refused("flags", f.began)
    begin, end = f.u(8), f.u(8)
    if not begin < end <= begin + 65536:
        raise Refused("field", f.began)
    fields += [begin, end, f.u(8)]
    if fields[-1] > end:
        raise Refused("field", f.began)
    fields.append(f.u(8))
    if fields[-1] > begin:
        raise Refused("field", f.began)
    fields += [f.u(8)]
    count = f.u(4)
    if count > min(end - begin, 8192):
        raise Refused("count", f.began)
    offsets, at = f.take(2 * count), f.began
    for i in range(count):
        if number(offsets, 2 * i, 2) >= end - begin or (
            i and number(offsets, 2 * i - 2, 2) >= number(offsets, 2 * i, 2)
        ):
            raise Refused("field", at + 2 * i)
    return *fields, bytes(offsets)


LAYOUTS = {
    2: hello,
    3: welcome,
    4: lambda f: (f.u(8), f.u(8), f.u(8), f.u(1)),
    5: error,
    6: lambda f: (f.u(8),),
    7: lambda f: (f.u(8),),
    8: lambda f: (f.known_code(zero=True), f.text()),
    9: subscribe,
    10: outputs,
    11: lambda f: (f.u(8), f.text()),
    12: lambda f: (f.u(4),),
    15: part,
    32: lambda f: (f.u(8), f.u(4), f.text(), f.text()),
    33: lambda f: (f.u(8),),
    34: lambda f: (f.u(8),),
}


def message(data):
    """(type, fields) of a whole message that is no data frame."""
    n = len(data)
    if data[:4] != b"BAF1"[:n]:
        raise Refused("magic", 0)
    if n > 4 and data[4] != 1:
        raise Refused("version", 4)
    if n > 5 and data[5] not in TYPES:
        raise Refused("type", 5)
    if n > 7 and (data[6] or data[7]):
        raise Refused("flags", 6)
    if n < 16:
        raise Refused("length", n)
    length = number(data, 8, 4)
    if length > LIMITS.get(data[5], 65536):
        raise Refused("message_too_long", 8)
    if n != 16 + length:
        raise Refused("length", min(n, 16 + length))
    if number(data, 12, 4) != crc32c(data[:12] + data[16:]):
        raise Refused("crc", 12)
    fields = Fields(data)
    found = LAYOUTS[data[5]](fields)
    if fields.at != n:
        raise Refused("length", fields.at)
    return data[5], found


def record(data, kinds=None):
    """(header's numbers, items, signals) of a whole record; codes are those of ADR 10."""
    n = len(data)
    if n < 64:
        raise Refused("short", n)
    count, items, payload = number(data, 36, 4), number(data, 40, 4), number(data, 44, 4)
    is_app = data[5] == 2
    for bad, code, at in [
        (data[:4] != b"BAR1", "magic", 0),
        (data[4] != 1, "version", 4),
        (data[5] not in (1, 2), "type", 5),
        (data[6] or data[7], "flags", 6),
        (number(data, 52, 4), "flags", 52),
        (count > (0 if is_app else 65536), "count", 36),
        (is_app and items, "items", 40),
        (payload > 8 << 20, "length", 44),
        (n < 64 + payload, "short", n),
        (n > 64 + payload, "long", n),
    ]:
        if bad:
            raise Refused(code, at)
    if number(data, 32, 4) != crc32c(data[:32] + data[36:]):
        raise Refused("crc", 32)
    if number(data, 16, 8) + count > U64:
        raise Refused("position", 16)
    header = (*(number(data, at, 8) for at in (8, 16, 24, 56)), number(data, 48, 4), data[5])
    found, signals, at = [], [], 64
    while at < n and not is_app:
        length = item(data, at)
        if data[at + 5] == 1:
            if len(signals) + (length - 64) // 32 > count:
                raise Refused("total", 36)
            try:
                signals += frame(data[at : at + length], kinds)[-1]
            except Refused as refused:
                raise Refused("frame", at + refused.args[1]) from None
        found.append((data[at + 5], at, length))
        at += length
    if len(signals) != count:
        raise Refused("total", 36)
    if len(found) != items:
        raise Refused("items", 40)
    return header, found, signals


def item(data, at):
    """The length of the item at an offset of a record."""
    left = len(data) - at
    if left < 16 or data[at : at + 4] != b"BAF1":
        raise Refused("item", at)
    if data[at + 4] != 1:
        raise Refused("item", at + 4)
    if data[at + 5] not in LOGGED:
        raise Refused("item", at + 5)
    if data[at + 6] or data[at + 7]:
        raise Refused("item", at + 6)
    if data[at + 5] == 1:
        if left < 64:
            raise Refused("item", at)
        count = number(data, at + 20, 4)
        if not 1 <= count <= 8192 or 64 + 32 * count > left:
            raise Refused("item", at + 20)
        return 64 + 32 * count
    length = number(data, at + 8, 4)
    if length > 65536 or 16 + length > left:
        raise Refused("item", at + 8)
    return 16 + length
