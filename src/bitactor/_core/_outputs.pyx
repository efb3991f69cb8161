"""Subscriptions for Python: outputs of an engine, read into buffers without the GIL.

Threads and waits: as in _engine.pyx; a subscription has one reader at a time.
"""

import os
from array import array

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX, uint16_t, uint32_t, uint64_t
from posix.unistd cimport close as close_fd, read as read_fd

from bitactor._core._engine import ClosedError

from bitactor._core._engine cimport (
    BA_OK,
    BA_TIMEOUT,
    EngineCore,
    Handle,
    ba_engine,
    ba_engine_pause_wait,
    ba_engine_resume,
    ba_subscription,
    failed,
)
from bitactor._core._waits cimport SLICE_NS, ba_monotonic_ns, deadline_of, slice_of

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil


cdef extern from "bitactor/engine.h" nogil:
    ctypedef struct ba_output:
        pass

    int ba_subscribe_paused(ba_engine *engine, const uint16_t *kinds, uint32_t n, uint32_t capacity, bint drop,
                            int event_fd, ba_subscription **out)
    int ba_subscribe_remote_paused(ba_engine *engine, uint32_t capacity, int event_fd, ba_subscription **out)
    int ba_subscription_read(ba_subscription *subscription, ba_output *out, uint32_t max, uint64_t timeout_ns,
                             uint32_t *n)
    bint ba_subscription_arm(ba_subscription *subscription)
    uint64_t ba_subscription_dropped(ba_subscription *subscription)


cdef class SubscriptionCore:
    """The C subscription under bitactor's Subscription; keeps the C engine alive."""

    cdef Handle handle
    cdef ba_subscription *subscription
    cdef readonly int fd
    cdef bint reading
    cdef bint cancelled

    def __cinit__(self):
        self.fd = -1

    def _read_into(self, buffer, timeout):
        """Read outputs into a writable buffer of 48-byte records, waiting for the first: how many; -1: ended."""
        cdef Py_buffer view
        cdef uint64_t deadline = deadline_of(timeout), wait_ns
        cdef uint32_t n = 0, most
        cdef int result = BA_TIMEOUT
        if self.handle is None:
            raise ClosedError("the subscription was never opened")
        self.handle.check()
        if self.reading:
            raise RuntimeError("another thread reads this subscription: it has one reader at a time; make one for each")
        if self.subscription == NULL or self.cancelled:
            return -1
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        self.reading = True
        try:
            most = <uint32_t>min(view.len // 48, 1 << 30)
            while True:
                wait_ns = slice_of(deadline)
                with nogil:
                    result = ba_subscription_read(self.subscription, <ba_output *>view.buf, most, wait_ns, &n)
                if result != BA_TIMEOUT or self.cancelled:
                    break
                PyErr_CheckSignals()
                if deadline != UINT64_MAX and ba_monotonic_ns() >= deadline:
                    break
        finally:
            self.reading = False
            PyBuffer_Release(&view)
            if self.cancelled:
                self.detach()
        if result == BA_OK:
            return n
        if result == BA_TIMEOUT and not self.cancelled:
            return 0
        return -1

    def _arm(self):
        """True: there is something to read (or it has ended); False: the eventfd will be written when there is."""
        if self.subscription == NULL or self.cancelled:
            return True
        self.handle.check()
        return ba_subscription_arm(self.subscription)

    def _drain_fd(self):
        cdef uint64_t count
        if self.fd >= 0:
            read_fd(self.fd, &count, 8)  # not blocking; nothing to read is fine

    @property
    def dropped(self):
        """Outputs dropped because this subscription was full (with full="drop", or at close)."""
        if self.subscription == NULL:
            return 0
        self.handle.check()
        return ba_subscription_dropped(self.subscription)

    def _cancel(self):
        """Stop reading: a reader in another thread returns within 50 ms, and then the C subscription goes."""
        self.cancelled = True
        if not self.reading:
            self.detach()

    cdef int detach(self) except -1:
        cdef ba_subscription *subscription = self.subscription
        self.subscription = NULL
        cdef int fd = self.fd
        self.fd = -1
        if subscription != NULL and self.handle.is_alive():
            self.handle.unsubscribe(subscription)  # closes the descriptor too, when no shard can write to it any more
        elif fd >= 0:
            close_fd(fd)
        return 0

    def __dealloc__(self):
        if self.handle is not None:
            self.detach()
        elif self.fd >= 0:
            close_fd(self.fd)


def _subscribe(EngineCore core, list numbers, uint32_t capacity, bint drop):
    """The SubscriptionCore of these kinds, from the next step on; numbers None: of the emits to other lanes."""
    cdef SubscriptionCore made = SubscriptionCore.__new__(SubscriptionCore)
    cdef Handle handle = core.handle
    cdef bytes packed = array("H", numbers or []).tobytes()
    cdef const uint16_t *kinds = <const uint16_t *>PyBytes_AS_STRING(packed)
    cdef uint32_t n = <uint32_t>(len(packed) // 2)
    cdef bint remote = numbers is None
    cdef uint64_t position = 0
    cdef int result, made_it = BA_OK
    handle.check()
    made.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    made.handle = handle
    while True:
        if handle.pausing != PyThread_get_thread_ident():
            handle.begin_pause(UINT64_MAX, "subscribe")
        with nogil:
            result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
            if result == BA_OK:
                if remote:
                    made_it = ba_subscribe_remote_paused(handle.engine, capacity, made.fd, &made.subscription)
                else:
                    made_it = ba_subscribe_paused(handle.engine, kinds, n, capacity, drop, made.fd, &made.subscription)
                ba_engine_resume(handle.engine)
        handle.look_around(result, "subscribe")
        if result == BA_OK:
            break
    if made_it != BA_OK:
        failed(made_it, "subscribe")
    return made
