"""Signals and frames as big-endian bytes. Pure functions; any thread; large inputs are converted without the GIL."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "bitactor/signal.h" nogil:
    ctypedef struct ba_signal:
        uint16_t kind
        uint16_t flags
    enum:
        BA_FRAME_SIGNALS
        BA_PARTITIONS
    uint8_t ba_partition(uint64_t key)
    void ba_lanes(const void *keys, ptrdiff_t stride, size_t n, uint32_t lanes, uint8_t *out)

cdef extern from "bitactor/byteorder.h" nogil:
    void ba_signals_to_be(const ba_signal *signals, uint8_t *out, size_t n)
    void ba_signals_from_be(const uint8_t *bytes, ba_signal *out, size_t n)

cdef extern from "bitactor/crc32c.h" nogil:
    uint32_t ba_crc32c(uint32_t crc, const void *bytes, size_t n)

cdef extern from "bitactor/ticks.h" nogil:
    uint64_t ba_ticks()
    uint64_t ba_ticks_hz()

cdef extern from "bitactor/frame.h" nogil:
    enum:
        BA_FRAME_HEADER
    ctypedef struct ba_frame:
        uint64_t producer
        uint64_t sequence
        uint32_t epoch
        uint32_t count
        uint8_t trace[24]
    size_t ba_frame_encode(const ba_frame *frame, const ba_signal *signals, uint8_t *out)
    int ba_frame_decode(const uint8_t *bytes, size_t n, const uint64_t *kinds, ba_frame *frame, ba_signal *signals,
                        size_t *offset)
    int ba_frame_lanes(const uint8_t *bytes, size_t n, const uint64_t *kinds, uint32_t lanes, ba_frame *frame,
                       uint8_t *lane_of, uint32_t *counts, size_t *offset)
    void ba_frame_scatter(const uint8_t *bytes, uint32_t count, const uint8_t *lane_of, uint32_t lanes,
                          uint8_t *const *rows, uint8_t *const *places)

SIGNAL_BYTES = 32
FRAME_HEADER_BYTES = BA_FRAME_HEADER
cdef Py_ssize_t WITH_GIL = 4096  # bytes; a shorter frame costs less than giving the GIL away


def to_be(signals):
    """32 bytes a signal, big-endian, of a contiguous buffer of signals in host order."""
    cdef Py_buffer view
    cdef bytes out
    cdef uint8_t *to
    PyObject_GetBuffer(signals, &view, PyBUF_SIMPLE)
    try:
        out = PyBytes_FromStringAndSize(NULL, view.len)
        to = <uint8_t *>PyBytes_AS_STRING(out)
        with nogil:
            ba_signals_to_be(<const ba_signal *>view.buf, to, <size_t>view.len // 32)
    finally:
        PyBuffer_Release(&view)
    return out


def from_be(data, out):
    """Fill the writable buffer `out` with the signals that the bytes are; both have one length, a multiple of 32."""
    cdef Py_buffer source, target
    PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            if source.len != target.len or source.len % 32:
                raise ValueError(f"{source.len} bytes do not fill {target.len}, or are no multiple of 32")
            with nogil:
                ba_signals_from_be(<const uint8_t *>source.buf, <ba_signal *>target.buf, <size_t>source.len // 32)
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)


def frame_encode(uint64_t producer, uint32_t epoch, uint64_t sequence, bytes trace, signals):
    """The frame's bytes, or None when the count or the sequence is out of range. trace: 24 bytes, or empty."""
    cdef Py_buffer view
    cdef ba_frame frame
    cdef bytes out
    cdef size_t written
    memset(&frame, 0, sizeof(frame))
    frame.producer, frame.epoch, frame.sequence = producer, epoch, sequence
    if trace:
        if len(trace) != 24:
            raise ValueError(f"a trace context is 24 bytes (trace id 16, span id 8), not {len(trace)}")
        memcpy(frame.trace, PyBytes_AS_STRING(trace), 24)
    PyObject_GetBuffer(signals, &view, PyBUF_SIMPLE)
    try:
        if view.len == 0 or view.len > 32 * BA_FRAME_SIGNALS:
            return None
        frame.count = <uint32_t>(view.len // 32)
        out = PyBytes_FromStringAndSize(NULL, BA_FRAME_HEADER + view.len)
        written = ba_frame_encode(&frame, <const ba_signal *>view.buf, <uint8_t *>PyBytes_AS_STRING(out))
    finally:
        PyBuffer_Release(&view)
    return out if written else None


def frame_encode_into(uint64_t producer, uint32_t epoch, uint64_t sequence, bytes trace, signals, size_t first,
                      size_t count, out, size_t at):
    """Write a frame of signals[first, first + count) to the writable buffer `out` from byte `at` on: where it ends.

    trace: as frame_encode. ValueError when it does not fit, or count or sequence is out of range.
    """
    cdef Py_buffer source, target
    cdef ba_frame frame
    cdef size_t written
    cdef const ba_signal *given
    cdef uint8_t *to
    memset(&frame, 0, sizeof(frame))
    frame.producer, frame.epoch, frame.sequence, frame.count = producer, epoch, sequence, <uint32_t>count
    if trace:
        if len(trace) != 24:
            raise ValueError(f"a trace context is 24 bytes (trace id 16, span id 8), not {len(trace)}")
        memcpy(frame.trace, PyBytes_AS_STRING(trace), 24)
    PyObject_GetBuffer(signals, &source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            if first > <size_t>source.len // 32 or count > <size_t>source.len // 32 - first:
                raise ValueError(f"signals {first} to {first + count} of {source.len // 32}")
            if count > BA_FRAME_SIGNALS or at > <size_t>target.len or \
                    BA_FRAME_HEADER + 32 * count > <size_t>target.len - at:
                raise ValueError(f"a frame of {count} signals does not fit {target.len} bytes from {at} on")
            given, to = <const ba_signal *>source.buf + first, <uint8_t *>target.buf + at
            with nogil:
                written = ba_frame_encode(&frame, given, to)
            if not written:
                raise ValueError(f"{count} signals from sequence {sequence} on: none, or past 2**64 - 1")
            return at + written
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)


def find_refused(signals, bytes kinds):
    """The index of the first signal with a flag set or a kind outside `kinds` (see frame_decode); -1: there is none."""
    cdef Py_buffer view
    cdef const ba_signal *given
    cdef const uint64_t *declared
    cdef size_t i, n
    cdef Py_ssize_t found = -1
    cdef uint16_t kind
    if len(kinds) != 8192:
        raise ValueError("kinds is 8,192 bytes")
    declared = <const uint64_t *>PyBytes_AS_STRING(kinds)
    PyObject_GetBuffer(signals, &view, PyBUF_SIMPLE)
    try:
        given, n = <const ba_signal *>view.buf, <size_t>view.len // 32
        with nogil:
            for i in range(n):
                kind = given[i].kind
                if given[i].flags or kind == 0 or not declared[kind // 64] >> kind % 64 & 1:
                    found = <Py_ssize_t>i
                    break
    finally:
        PyBuffer_Release(&view)
    return found


def frame_decode(data, bytes kinds, out):
    """(result, offset, producer, epoch, sequence, count, trace); `out`: a writable buffer of 8,192 signals.

    kinds: 8,192 bytes, bit k set when kind k is declared; or None for any kind but 0.
    """
    cdef Py_buffer source, target
    cdef ba_frame frame
    cdef size_t offset = 0
    cdef int result
    memset(&frame, 0, sizeof(frame))
    if kinds is not None and len(kinds) != 8192:
        raise ValueError("kinds is 8,192 bytes")
    PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            if target.len < 32 * BA_FRAME_SIGNALS:
                raise ValueError("out holds 8,192 signals")
            result = ba_frame_decode(<const uint8_t *>source.buf, <size_t>source.len,
                                     NULL if kinds is None else <const uint64_t *>PyBytes_AS_STRING(kinds),
                                     &frame, <ba_signal *>target.buf, &offset)
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)
    return result, offset, frame.producer, frame.epoch, frame.sequence, frame.count, (<char *>frame.trace)[:24]


def frame_split(data, bytes kinds, uint32_t lanes):
    """(result, offset, producer, epoch, sequence, count, trace, pieces) of a whole frame, checked as frame_decode does.

    pieces: (lane, signals as on the wire, the big-endian u2 index of each in the frame) of each lane that has some, in
    order of the lanes. lanes divides 64. Other threads run meanwhile when the frame is long.
    """
    cdef Py_buffer source
    cdef ba_frame frame
    cdef size_t offset = 0
    cdef int result
    cdef uint32_t lane
    cdef uint8_t lane_of[BA_FRAME_SIGNALS]
    cdef uint32_t counts[BA_PARTITIONS]
    cdef uint8_t *rows[BA_PARTITIONS]
    cdef uint8_t *places[BA_PARTITIONS]
    cdef const uint64_t *declared = NULL
    cdef const uint8_t *wire
    cdef bytes signals, indexes
    cdef list pieces = []
    memset(&frame, 0, sizeof(frame))
    if lanes == 0 or BA_PARTITIONS % lanes:
        raise ValueError(f"{lanes} lanes do not divide {BA_PARTITIONS}")
    if kinds is not None:
        if len(kinds) != 8192:
            raise ValueError("kinds is 8,192 bytes")
        declared = <const uint64_t *>PyBytes_AS_STRING(kinds)
    PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
    try:
        wire = <const uint8_t *>source.buf
        if source.len < WITH_GIL:
            result = ba_frame_lanes(wire, <size_t>source.len, declared, lanes, &frame, lane_of, counts, &offset)
        else:
            with nogil:
                result = ba_frame_lanes(wire, <size_t>source.len, declared, lanes, &frame, lane_of, counts, &offset)
        if result == 0:
            for lane in range(lanes):
                if counts[lane]:
                    signals = PyBytes_FromStringAndSize(NULL, 32 * counts[lane])
                    indexes = PyBytes_FromStringAndSize(NULL, 2 * counts[lane])
                    rows[lane] = <uint8_t *>PyBytes_AS_STRING(signals)
                    places[lane] = <uint8_t *>PyBytes_AS_STRING(indexes)
                    pieces.append((lane, signals, indexes))
            if source.len < WITH_GIL:
                ba_frame_scatter(wire, frame.count, lane_of, lanes, rows, places)
            else:
                with nogil:
                    ba_frame_scatter(wire, frame.count, lane_of, lanes, rows, places)
    finally:
        PyBuffer_Release(&source)
    return (result, offset, frame.producer, frame.epoch, frame.sequence, frame.count, (<char *>frame.trace)[:24],
            pieces)


def crc32c(data, uint32_t crc=0):
    """CRC-32C of a buffer, going on from `crc`. Other threads run meanwhile when it is long."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len <= 65536:
            return ba_crc32c(crc, view.buf, <size_t>view.len)
        with nogil:
            crc = ba_crc32c(crc, view.buf, <size_t>view.len)
        return crc
    finally:
        PyBuffer_Release(&view)


def partition(uint64_t key):
    """The partition of a key, 0 to 63: frozen, the same everywhere."""
    return ba_partition(key)


def lanes_into(const uint64_t[:] keys not None, uint32_t lanes, uint8_t[::1] out not None):
    """Fill `out` with each key's partition modulo `lanes`, which divides 64; both have one length."""
    cdef size_t n = <size_t>keys.shape[0]
    if lanes == 0 or 64 % lanes or <size_t>out.shape[0] != n:
        raise ValueError(f"{lanes} lanes of {n} keys into {out.shape[0]} bytes")
    if n:
        with nogil:
            ba_lanes(&keys[0], keys.strides[0], n, lanes, &out[0])


def find_not_ascending(const uint8_t[::1] numbers not None, uint32_t below):
    """The index of the first big-endian u2 that is not above the one before it, or not below `below`; -1: none is."""
    cdef Py_ssize_t i
    cdef int32_t number, last = -1
    for i in range(numbers.shape[0] // 2):
        number = numbers[2 * i] << 8 | numbers[2 * i + 1]
        if number <= last or <uint32_t>number >= below:
            return i
        last = number
    return -1


def ticks():
    """The counter of this machine (TSC, CNTVCT); ticks_hz of them are a second. Not core cycles."""
    return ba_ticks()


def ticks_hz():
    """Ticks in a second; the first call may take some 10 ms."""
    return ba_ticks_hz()
