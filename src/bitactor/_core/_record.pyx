"""Records of the log: filled frame by frame, sealed, read back. Conversions and checksums run without the GIL.

One thread at a time uses a builder; other threads run meanwhile. The typed face is bitactor.protocol.records.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "bitactor/signal.h" nogil:
    ctypedef struct ba_signal:
        pass

cdef extern from "bitactor/frame.h" nogil:
    enum:
        BA_FRAME_HEADER
        BA_FRAME_OK
    ctypedef struct ba_frame:
        uint64_t producer
        uint64_t sequence
        uint32_t epoch
        uint32_t count

cdef extern from "bitactor/record.h" nogil:
    enum:
        BA_RECORD_HEADER
        BA_RECORD_SIGNALS
        BA_RECORD_PAYLOAD_MAX
        BA_RECORD_DATA
        BA_RECORD_APP
        BA_RECORD_OK
        BA_MESSAGE_HEAD
        BA_MESSAGE_PAYLOAD_MAX
    ctypedef struct ba_record:
        uint64_t sequence
        uint64_t position
        uint64_t wall_ns
        uint64_t fingerprint
        uint32_t count
        uint32_t items
        uint32_t payload
        uint32_t lane
        uint8_t type
    ctypedef struct ba_record_open:
        uint8_t *bytes
        ba_signal *signals
        size_t capacity
        size_t length
        uint32_t signals_max
        uint32_t count
        uint32_t items
    size_t ba_record_seal(const ba_record *record, uint8_t *data)
    int ba_record_decode(const uint8_t *data, size_t n, ba_record *record, size_t *offset)
    int ba_record_item(const uint8_t *data, size_t n, size_t at, uint8_t *type, size_t *length, size_t *offset)
    int ba_record_read(const uint8_t *data, size_t n, const uint64_t *kinds, ba_record *record, ba_signal *signals,
                       int *frame, size_t *offset)
    int ba_record_add_frame(ba_record_open *open, const uint8_t *data, size_t n, const uint64_t *kinds, uint32_t skip,
                            ba_frame *frame, size_t *offset)

RECORD_HEADER_BYTES = BA_RECORD_HEADER
RECORD_SIGNALS_MAX = BA_RECORD_SIGNALS
RECORD_PAYLOAD_BYTES_MAX = BA_RECORD_PAYLOAD_MAX
cdef size_t WITH_GIL = 4096  # bytes; a shorter conversion costs less than giving the GIL away


cdef const uint64_t *set_of(bytes kinds) except? NULL:
    if kinds is None:
        return NULL
    if len(kinds) != 8192:
        raise ValueError(f"kinds is {len(kinds)} bytes; kind_set gives 8,192")
    return <const uint64_t *>PyBytes_AS_STRING(kinds)


cdef class _RecordBuilder:
    """A record that is being filled, in two buffers of the caller's: wire bytes and native signals."""

    cdef ba_record_open open
    cdef Py_buffer wire, signals
    cdef object wire_view

    def __init__(self, wire, signals):
        if self.wire_view is not None:
            raise TypeError("a builder is made once")
        PyObject_GetBuffer(wire, &self.wire, PyBUF_WRITABLE)
        PyObject_GetBuffer(signals, &self.signals, PyBUF_WRITABLE)
        self.open.bytes = <uint8_t *>self.wire.buf
        self.open.signals = <ba_signal *>self.signals.buf
        self.open.capacity = min(<size_t>self.wire.len, <size_t>(BA_RECORD_HEADER + BA_RECORD_PAYLOAD_MAX))
        self.open.signals_max = min(<uint32_t>(self.signals.len // 32), <uint32_t>BA_RECORD_SIGNALS)
        if self.open.capacity < BA_RECORD_HEADER:
            raise ValueError(f"{self.wire.len} bytes have no room for a record's header")
        self.wire_view = memoryview(wire)
        self.clear()

    def __dealloc__(self):
        PyBuffer_Release(&self.wire)
        PyBuffer_Release(&self.signals)

    def clear(self):
        """Empty it. Views given before show what is filled in next."""
        self.open.length = BA_RECORD_HEADER
        self.open.count = self.open.items = 0

    @property
    def count(self):
        """Signals in it."""
        return self.open.count

    @property
    def items(self):
        """Frames and messages in it."""
        return self.open.items

    @property
    def length(self):
        """Bytes of the record so far, with its header."""
        return self.open.length

    def fits(self, size_t length):
        """Whether a frame or message of so many bytes has room."""
        cdef size_t signals = (length - BA_FRAME_HEADER) // 32 if length > BA_FRAME_HEADER else 0
        return length <= self.open.capacity - self.open.length and signals <= self.open.signals_max - self.open.count

    def has_room(self, size_t signals):
        """Whether a frame of so many signals, and the longest message beside it, have room."""
        cdef size_t length = BA_FRAME_HEADER + 32 * signals + BA_MESSAGE_HEAD + BA_MESSAGE_PAYLOAD_MAX
        return signals <= self.open.signals_max - self.open.count and length <= self.open.capacity - self.open.length

    cdef int add(self, data, bytes kinds, uint32_t skip, ba_frame *frame, size_t *offset) except -1:
        """-2: it does not fit; else an enum ba_frame_result."""
        cdef Py_buffer view
        cdef const uint64_t *declared = set_of(kinds)
        cdef int result
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not self.fits(<size_t>view.len):
                return -2
            if <size_t>view.len < WITH_GIL:
                result = ba_record_add_frame(&self.open, <const uint8_t *>view.buf, <size_t>view.len, declared, skip,
                                             frame, offset)
            else:
                with nogil:
                    result = ba_record_add_frame(&self.open, <const uint8_t *>view.buf, <size_t>view.len, declared,
                                                 skip, frame, offset)
        finally:
            PyBuffer_Release(&view)
        return result

    def _add_frame(self, data, bytes kinds, uint32_t skip):
        """(result, offset, producer, epoch, sequence, count); result -2: it does not fit."""
        cdef ba_frame frame
        cdef size_t offset = 0
        cdef int result
        frame.producer = frame.sequence = frame.epoch = frame.count = 0
        result = self.add(data, kinds, skip, &frame, &offset)
        return result, offset, frame.producer, frame.epoch, frame.sequence, frame.count

    def _add_message(self, const uint8_t[::1] data not None):
        """Whether the message had room."""
        cdef size_t n = <size_t>data.shape[0]
        if n > self.open.capacity - self.open.length:
            return False
        if n:
            memcpy(self.open.bytes + self.open.length, &data[0], n)
        self.open.length += n
        self.open.items += 1
        return True

    def finish(self, uint64_t sequence, uint64_t position, uint64_t wall_ns, uint32_t lane, uint64_t fingerprint):
        """The record as a view of the builder's bytes, until clear. May be called again with other numbers."""
        cdef ba_record record
        cdef size_t n
        record.sequence, record.position, record.wall_ns = sequence, position, wall_ns
        record.lane, record.fingerprint, record.type = lane, fingerprint, BA_RECORD_DATA
        record.count, record.items = self.open.count, self.open.items
        record.payload = <uint32_t>(self.open.length - BA_RECORD_HEADER)
        with nogil:
            n = ba_record_seal(&record, self.open.bytes)
        if not n:
            raise ValueError(f"{record.count} signals from position {position} go past 2**64 - 1")
        return self.wire_view[:n]


def app_record(bytes payload not None, uint64_t sequence, uint64_t position, uint64_t wall_ns, uint32_t lane,
               uint64_t fingerprint):
    """The bytes of an app record, or None when the payload is longer than 8 MiB."""
    cdef ba_record record
    cdef bytearray out
    if len(payload) > BA_RECORD_PAYLOAD_MAX:
        return None
    out = bytearray(BA_RECORD_HEADER) + payload
    record.sequence, record.position, record.wall_ns = sequence, position, wall_ns
    record.lane, record.fingerprint, record.type = lane, fingerprint, BA_RECORD_APP
    record.count = record.items = 0
    record.payload = <uint32_t>len(payload)
    cdef uint8_t[::1] view = out
    ba_record_seal(&record, &view[0])
    return bytes(out)


def record_read(data, bytes kinds, out):
    """(result, frame's result, offset, header, items) of a whole record; `out`: a writable buffer of 65,536 signals.

    header: (sequence, position, wall_ns, type, count, items, lane, fingerprint); items: (type, offset, length) of each.
    out None: only the header and the checksum are looked at, and items is empty.
    """
    cdef Py_buffer source, target
    cdef ba_record record
    cdef size_t offset = 0, at, length = 0, n
    cdef int result, frame = BA_FRAME_OK
    cdef uint8_t item = 0
    cdef const uint64_t *declared = set_of(kinds)
    cdef list items = []
    record.sequence = record.position = record.wall_ns = record.fingerprint = 0
    record.count = record.items = record.lane = record.payload = record.type = 0
    PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
    try:
        n = <size_t>source.len
        if out is None:
            with nogil:
                result = ba_record_decode(<const uint8_t *>source.buf, n, &record, &offset)
        else:
            PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            try:
                if target.len < 32 * BA_RECORD_SIGNALS:
                    raise ValueError("out holds 65,536 signals")
                with nogil:
                    result = ba_record_read(<const uint8_t *>source.buf, n, declared, &record, <ba_signal *>target.buf,
                                            &frame, &offset)
            finally:
                PyBuffer_Release(&target)
            if result == BA_RECORD_OK and record.type == BA_RECORD_DATA:
                at = BA_RECORD_HEADER
                while at < n:
                    ba_record_item(<const uint8_t *>source.buf, n, at, &item, &length, &offset)
                    items.append((item, at, length))
                    at += length
    finally:
        PyBuffer_Release(&source)
    return result, frame, offset, (record.sequence, record.position, record.wall_ns, record.type, record.count,
                                   record.items, record.lane, record.fingerprint), items
