"""The rings for Python: copies by memcpy, waits without the GIL, one thread at a time in each handle.

Threads: any thread may call anything here at any time. A handle that two threads use at once is refused to the second.
No call keeps the GIL while it waits, and every wait looks for Python's signals (Ctrl-C), and whether its ring was
closed, each 50 ms. What a push or pop can do at once it does with the GIL when it is small: giving the GIL away would
cost more than the copy.
"""

import os

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from bitactor._core._waits cimport SLICE_NS, deadline_of, slice_of
from bitactor._core._engine import ClosedError


cdef extern from "bitactor/ring.h" nogil:
    ctypedef enum ba_ring_result:
        BA_RING_OK
        BA_RING_FULL
        BA_RING_EMPTY
        BA_RING_TIMEOUT
        BA_RING_CLOSED
        BA_RING_TAKEN
        BA_RING_BAD_OPTION
        BA_RING_NO_MEMORY
        BA_RING_PEER_DEAD
        BA_RING_CORRUPT
        BA_RING_FOREIGN
        BA_RING_EXISTS
        BA_RING_ABSENT
        BA_RING_SYSTEM

    enum:
        BA_RING_ITEM_BYTES_MAX
        BA_RING_CAPACITY_LOG2_MAX

    ctypedef struct ba_ring_options:
        uint64_t capacity
        uint32_t item_bytes
        uint32_t type_tag
        uint64_t start

    ctypedef struct ba_ring_statistics:
        uint64_t capacity
        uint64_t pushed
        uint64_t popped
        uint64_t queued
        uint64_t refused
        uint64_t dropped
        uint64_t consumer_parks
        uint64_t producer_parks

    const char *ba_ring_result_text(ba_ring_result result)


cdef extern from "bitactor/spsc.h" nogil:
    ctypedef struct ba_spsc_ring:
        pass
    ctypedef struct ba_spsc_producer:
        pass
    ctypedef struct ba_spsc_consumer:
        pass

    ba_ring_result ba_spsc_create(const ba_ring_options *options, ba_spsc_ring **ring)
    void ba_spsc_destroy(ba_spsc_ring *ring)
    ba_ring_result ba_spsc_producer_open(ba_spsc_ring *ring, ba_spsc_producer *producer)
    ba_ring_result ba_spsc_consumer_open(ba_spsc_ring *ring, ba_spsc_consumer *consumer)
    void ba_spsc_stop(ba_spsc_ring *ring)
    void ba_spsc_producer_close(ba_spsc_producer *producer)
    ba_ring_statistics ba_spsc_statistics(const ba_spsc_ring *ring)
    ba_ring_result ba_spsc_try_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed)
    ba_ring_result ba_spsc_wait_push(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                     uint64_t *pushed)
    ba_ring_result ba_spsc_push_or_drop(ba_spsc_producer *p, const void *items, uint64_t n, uint64_t *pushed)
    ba_ring_result ba_spsc_wait_pop(ba_spsc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns,
                                    uint64_t *popped)


cdef extern from "bitactor/mpmc.h" nogil:
    enum:
        BA_MPMC_MANY
    ctypedef struct ba_mpmc_ring:
        pass
    ctypedef struct ba_mpmc_producer:
        pass
    ctypedef struct ba_mpmc_consumer:
        pass

    ba_ring_result ba_mpmc_create(const ba_ring_options *options, uint32_t producers, uint32_t consumers,
                                  ba_mpmc_ring **ring)
    void ba_mpmc_destroy(ba_mpmc_ring *ring)
    ba_ring_result ba_mpmc_producer_open(ba_mpmc_ring *ring, ba_mpmc_producer *producer)
    ba_ring_result ba_mpmc_consumer_open(ba_mpmc_ring *ring, ba_mpmc_consumer *consumer)
    void ba_mpmc_producer_leave(ba_mpmc_producer *producer)
    void ba_mpmc_consumer_leave(ba_mpmc_consumer *consumer)
    void ba_mpmc_close(ba_mpmc_ring *ring)
    ba_ring_statistics ba_mpmc_statistics(const ba_mpmc_ring *ring)
    ba_ring_result ba_mpmc_try_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed)
    ba_ring_result ba_mpmc_wait_push(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t timeout_ns,
                                     uint64_t *pushed)
    ba_ring_result ba_mpmc_push_or_drop(ba_mpmc_producer *p, const void *items, uint64_t n, uint64_t *pushed)
    ba_ring_result ba_mpmc_wait_pop(ba_mpmc_consumer *c, void *items, uint64_t most, uint64_t timeout_ns,
                                    uint64_t *popped)


cdef extern from "bitactor/shm_ring.h" nogil:
    enum:
        BA_SHM_NAME_MAX
    ctypedef enum ba_shm_role:
        BA_SHM_PRODUCER
        BA_SHM_CONSUMER
    ctypedef enum ba_shm_peer:
        BA_SHM_NEVER_CAME
        BA_SHM_ALIVE
        BA_SHM_LEFT
        BA_SHM_DIED
    ctypedef struct ba_shm_ring:
        pass

    ba_ring_result ba_shm_create(const char *name, const ba_ring_options *options)
    ba_ring_result ba_shm_attach(const char *name, ba_shm_role role, ba_shm_ring **ring)
    void ba_shm_detach(ba_shm_ring *ring, bint close)
    void ba_shm_abandon(ba_shm_ring *ring)
    ba_ring_result ba_shm_look(const char *name, ba_ring_options *options, ba_ring_statistics *statistics)
    ba_ring_result ba_shm_unlink(const char *name)
    ba_spsc_producer *ba_shm_producer(ba_shm_ring *ring)
    ba_ring_options ba_shm_options(const ba_shm_ring *ring)
    ba_ring_statistics ba_shm_statistics(const ba_shm_ring *ring)
    ba_shm_peer ba_shm_look_at_peer(ba_shm_ring *ring)
    ba_ring_result ba_shm_wait_push(ba_shm_ring *ring, const void *items, uint64_t n, uint64_t timeout_ns,
                                    uint64_t *pushed)
    ba_ring_result ba_shm_wait_pop(ba_shm_ring *ring, void *items, uint64_t most, uint64_t timeout_ns,
                                   uint64_t *popped)


cdef enum:
    WITH_GIL_BYTES = 16 * 1024      # a copy up to this size keeps the GIL
    WITHOUT_LOOK_BYTES = 4 << 20    # most bytes pushed between two looks for Python's signals

ITEM_BYTES_MAX = BA_RING_ITEM_BYTES_MAX
CAPACITY_MAX = 1 << BA_RING_CAPACITY_LOG2_MAX
HANDLES_MAX = BA_MPMC_MANY
NAME_MAX = BA_SHM_NAME_MAX

cdef unsigned long forks = 0


def _forked():
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


class PeerDiedError(ConnectionError):
    """The process at the other end of a shared ring has died.

    A consumer sees it after everything that was published; a producer when it finds no room. The ring can be used
    again once another process took the dead one's side.
    """


PeerDiedError.__module__ = "bitactor.ring"


cdef int failed(ba_ring_result result, str what) except -1:
    """Raise for a result that is not BA_RING_OK and has no other meaning to the caller."""
    cdef int number = errno
    cdef str text = ba_ring_result_text(result).decode()
    if result == BA_RING_CLOSED:
        raise ClosedError(f"the ring is closed: {what} did nothing")
    if result == BA_RING_NO_MEMORY:
        raise MemoryError(f"{what}: {text}")
    if result == BA_RING_PEER_DEAD:
        raise PeerDiedError(f"{what}: {text}; another process may take its side of the ring")
    if result == BA_RING_EXISTS:
        raise FileExistsError(f"{what}: {text}: choose another, or Ring.unlink(name) if nobody uses it")
    if result == BA_RING_ABSENT:
        raise FileNotFoundError(f"{what}: {text}: Ring.create(name, ...) makes one, in one process")
    if result == BA_RING_SYSTEM:
        raise OSError(number, f"{what}: {os.strerror(number)}")
    if result == BA_RING_BAD_OPTION or result == BA_RING_FOREIGN:
        raise ValueError(f"{what}: {text}")
    raise RuntimeError(f"{what}: {text}")


cdef class RingCore:
    """The C ring under bitactor.Ring: one of three shapes. Not for use on its own."""
    cdef ba_spsc_ring *spsc             # one producer and one consumer, between threads
    cdef ba_mpmc_ring *mpmc             # many of either, between threads
    cdef bytes shm                      # name of a shared segment
    cdef ba_shm_ring *sides[2]          # its roles that this ring has: producer, consumer
    cdef ba_spsc_producer producer      # the spsc ring's ends; the GIL orders the handles that use them in turn
    cdef ba_spsc_consumer consumer
    cdef uint32_t item_bytes
    cdef char full                      # 'w', 'r' or 'd'
    cdef unsigned long born             # count of forks when it was made
    cdef bint closing                   # producers are refused; what is busy ends its side when it returns
    cdef bint lost                      # given up without close
    cdef uint32_t busy[2]               # calls that run now: producers, consumers
    cdef uint32_t limits[2]             # most open handles: producers, consumers
    cdef uint32_t opened[2]
    cdef object last_statistics         # of a shared ring, when it was closed here

    def _open(self, uint64_t capacity, uint32_t item_bytes, str full, uint32_t producers, uint32_t consumers):
        """Make a ring between threads. producers, consumers: most handles; 1 and 1 makes the one-to-one ring."""
        cdef ba_ring_options options
        cdef ba_ring_result result
        self.begin(item_bytes, full, producers, consumers)
        options.capacity, options.item_bytes, options.type_tag, options.start = capacity, item_bytes, 0, 0
        with nogil:
            if producers == 1 and consumers == 1:
                result = ba_spsc_create(&options, &self.spsc)
                if result == BA_RING_OK:
                    result = ba_spsc_producer_open(self.spsc, &self.producer)
                if result == BA_RING_OK:
                    result = ba_spsc_consumer_open(self.spsc, &self.consumer)
            else:
                result = ba_mpmc_create(&options, producers, consumers, &self.mpmc)
        if result != BA_RING_OK:
            failed(result, "making the ring")

    def _open_shared(self, bytes name, uint32_t item_bytes, str full, uint32_t type_tag, uint64_t capacity):
        """Make (capacity > 0) or find a shared segment; return its (capacity, item bytes, type tag)."""
        cdef ba_ring_options options
        cdef ba_ring_statistics statistics
        cdef ba_ring_result result = BA_RING_OK
        cdef const char *segment = name
        if capacity > 0:
            options.capacity, options.item_bytes, options.type_tag, options.start = capacity, item_bytes, type_tag, 0
            with nogil:
                result = ba_shm_create(segment, &options)
        else:
            with nogil:
                result = ba_shm_look(segment, &options, &statistics)
        if result != BA_RING_OK:
            failed(result, f"{'create' if capacity else 'attach'} {name.decode()!r}")
        self.begin(options.item_bytes, full, 1, 1)
        self.shm = name
        return options.capacity, options.item_bytes, options.type_tag

    cdef int begin(self, uint32_t item_bytes, str full, uint32_t producers, uint32_t consumers) except -1:
        if self.item_bytes != 0:
            raise RuntimeError("a ring is opened once")
        self.item_bytes = item_bytes
        self.limits[0], self.limits[1] = producers, consumers
        self.full = ord(full[0])
        self.born = forks
        return 0

    cdef int check(self) except -1:
        if self.item_bytes == 0:
            raise ClosedError("the ring was never opened")
        if self.born != forks:
            raise RuntimeError(
                "this ring was made before fork, and its threads and roles did not come along: use Ring.create and "
                'Ring.attach between processes, and start them with multiprocessing.get_context("spawn")'
            )
        return 0

    cdef int open_handle(self, int side) except -1:
        """One more handle of a side (0 producer, 1 consumer), if the ring has a place for it."""
        cdef str name = "consumer" if side else "producer"
        self.check()
        if self.closing and (side == 0 or self.shm is not None):
            raise ClosedError(f"the ring is closed: it gives no {name}")
        if self.opened[side] >= self.limits[side]:
            if self.limits[side] > 1:
                raise RuntimeError(f"this ring has {self.opened[side]} {name}s, and more it does not take")
            advice = f'close it first, or make the ring with {name}s="many"'
            if self.shm is not None:
                advice = "close it first; between processes there is one of each"
            raise RuntimeError(f"this ring's only {name} is taken: {advice}")
        if self.shm is not None and self.sides[side] == NULL:
            self.take_role(side, name)
        self.opened[side] += 1
        return 0

    cdef int take_role(self, int side, str name) except -1:
        cdef ba_ring_options options
        cdef const char *segment = self.shm
        # Some system calls, none of which waits; they keep the GIL, so that a role is taken once.
        cdef ba_ring_result result = ba_shm_attach(segment, <ba_shm_role>side, &self.sides[side])
        if result == BA_RING_TAKEN:
            raise RuntimeError(f"another process has the {name} of {self.shm.decode()!r}, and there is only one")
        if result != BA_RING_OK:
            failed(result, f"{name} of {self.shm.decode()!r}")
        options = ba_shm_options(self.sides[side])
        if options.item_bytes != self.item_bytes:
            ba_shm_detach(self.sides[side], False)
            self.sides[side] = NULL
            raise ValueError(f"{self.shm.decode()!r} is another segment now, with items of {options.item_bytes} bytes")
        return 0

    def _statistics(self):
        """(capacity, pushed, popped, queued, refused, dropped, consumer parks, producer parks)."""
        cdef ba_ring_statistics s
        cdef ba_ring_options options
        cdef ba_ring_result result
        cdef const char *segment
        self.check()
        if self.spsc != NULL:
            s = ba_spsc_statistics(self.spsc)
        elif self.mpmc != NULL:
            s = ba_mpmc_statistics(self.mpmc)
        elif self.sides[0] != NULL:
            s = ba_shm_statistics(self.sides[0])
        elif self.sides[1] != NULL:
            s = ba_shm_statistics(self.sides[1])
        elif self.last_statistics is not None:
            return self.last_statistics
        else:
            segment = self.shm
            result = ba_shm_look(segment, &options, &s)
            if result != BA_RING_OK:
                failed(result, f"statistics of {self.shm.decode()!r}")
        return (s.capacity, s.pushed, s.popped, s.queued, s.refused, s.dropped, s.consumer_parks, s.producer_parks)

    def _close(self):
        """End the ring: producers are refused, consumers drain it. Any thread; later calls do nothing."""
        if self.item_bytes == 0 or self.born != forks or self.closing:
            return
        self.closing = True
        if self.spsc != NULL:
            ba_spsc_stop(self.spsc)
        elif self.mpmc != NULL:
            ba_mpmc_close(self.mpmc)
        self.end_sides()

    cdef void end_sides(self) noexcept:
        """With the ring closing: end what no call is busy with; the last busy call does the rest when it returns."""
        if self.spsc != NULL and self.busy[0] == 0:
            ba_spsc_producer_close(&self.producer)
        if self.shm is not None:
            for side in range(2):
                if self.busy[side] == 0 and self.sides[side] != NULL:
                    self.keep_statistics(side)
                    ba_shm_detach(self.sides[side], not self.lost)
                    self.sides[side] = NULL

    cdef void keep_statistics(self, int side) noexcept:
        cdef ba_ring_statistics s = ba_shm_statistics(self.sides[side])
        try:
            self.last_statistics = (s.capacity, s.pushed, s.popped, s.queued, s.refused, s.dropped, s.consumer_parks,
                                    s.producer_parks)
        except MemoryError:
            pass

    def _leave(self):
        """Give the roles of a shared ring back without ending it: another process may take them."""
        self.lost = True
        self._close()

    @property
    def closed(self):
        """Whether this ring was closed here. A consumer may still have items to pop."""
        return self.item_bytes == 0 or self.closing

    def _is_forked(self):
        return self.item_bytes != 0 and self.born != forks

    def _peer(self, bint consumer):
        """What is known of the process across from a role that this ring has: "never came", "alive", ..."""
        cdef int role = BA_SHM_CONSUMER if consumer else BA_SHM_PRODUCER
        self.check()
        if self.sides[role] == NULL:
            return None
        return ("never came", "alive", "left", "died")[<int>ba_shm_look_at_peer(self.sides[role])]

    def __dealloc__(self):
        if self.born != forks:
            return  # a fork's copy: the parent's locks and memory stay as they are
        ba_spsc_destroy(self.spsc)
        ba_mpmc_destroy(self.mpmc)
        ba_shm_abandon(self.sides[0])  # not closed: to the other side this is a death
        ba_shm_abandon(self.sides[1])


cdef class ProducerCore:
    """One producer of a ring, which lives at least as long."""
    cdef RingCore ring
    cdef ba_mpmc_producer many
    cdef bint busy, left

    def _open(self, RingCore ring):
        ring.open_handle(0)
        self.ring = ring
        if ring.mpmc != NULL:
            ba_mpmc_producer_open(ring.mpmc, &self.many)  # cannot fail: its limits are those of the handles

    def _push(self, buffer, timeout):
        """Push the items of a C-contiguous buffer; return how many were taken."""
        cdef Py_buffer view
        cdef RingCore ring = self.ring
        cdef uint64_t deadline, n, done = 0, part = 0, chunk, wait_ns
        cdef ba_ring_result result = BA_RING_TIMEOUT
        cdef const uint8_t *items
        if ring is None or self.left:
            raise ClosedError("this producer is closed: take another one from its ring")
        ring.check()
        if self.busy:
            raise RuntimeError("another thread uses this producer: a handle is for one thread at a time")
        deadline = deadline_of(timeout)
        if ring.closing:
            raise ClosedError("the ring is closed: it takes no more items")
        PyObject_GetBuffer(buffer, &view, PyBUF_C_CONTIGUOUS)
        self.busy = True
        ring.busy[0] += 1
        try:
            items = <const uint8_t *>view.buf
            n = <uint64_t>view.len // ring.item_bytes
            if <uint64_t>view.len <= WITH_GIL_BYTES:
                result = self.push_now(ring, items, n, 0, &done)
            while done < n and result == BA_RING_TIMEOUT:
                if ring.closing:
                    result = BA_RING_CLOSED
                    break
                chunk = n - done
                if ring.full == c"w":
                    chunk = min(chunk, max(<uint64_t>1, <uint64_t>WITHOUT_LOOK_BYTES // ring.item_bytes))
                with nogil:
                    wait_ns = slice_of(deadline)
                    result = self.push_now(ring, items + done * ring.item_bytes, chunk, wait_ns, &part)
                done += part
                if result == BA_RING_TIMEOUT and wait_ns < SLICE_NS:
                    break
                if result == BA_RING_OK and ring.full == c"w":
                    result = BA_RING_TIMEOUT  # the chunk, not the whole
                PyErr_CheckSignals()
        finally:
            PyBuffer_Release(&view)
            self.busy = False
            ring.busy[0] -= 1
            if ring.closing:
                ring.end_sides()
            if self.left:
                self.leave()
        if done == 0 and result != BA_RING_OK and result != BA_RING_TIMEOUT and result != BA_RING_FULL:
            failed(result, "push")
        return done

    cdef ba_ring_result push_now(self, RingCore ring, const uint8_t *items, uint64_t n, uint64_t wait_ns,
                                 uint64_t *done) noexcept nogil:
        """By the ring's policy: OK; TIMEOUT (only "wait"); FULL (only "refuse"); or what ends the call."""
        cdef ba_spsc_producer *one = &ring.producer
        cdef uint64_t part = 0
        cdef ba_ring_result result
        if ring.mpmc != NULL:
            if ring.full == c"w":
                return ba_mpmc_wait_push(&self.many, items, n, wait_ns, done)
            if ring.full == c"r":
                return ba_mpmc_try_push(&self.many, items, n, done)
            return ba_mpmc_push_or_drop(&self.many, items, n, done)
        if ring.spsc == NULL:
            # A try first in any case: it notices the death of the other side, and counts nothing.
            result = ba_shm_wait_push(ring.sides[0], items, n, wait_ns if ring.full == c"w" else 0, done)
            if result != BA_RING_TIMEOUT or ring.full == c"w":
                return result
            one = ba_shm_producer(ring.sides[0])
            items += done[0] * ring.item_bytes
            n -= done[0]
            if ring.full == c"r":
                result = ba_spsc_try_push(one, items, n, &part)
            else:
                result = ba_spsc_push_or_drop(one, items, n, &part)
            done[0] += part
            return result
        if ring.full == c"w":
            return ba_spsc_wait_push(one, items, n, wait_ns, done)
        if ring.full == c"r":
            return ba_spsc_try_push(one, items, n, done)
        return ba_spsc_push_or_drop(one, items, n, done)

    cdef int leave(self) except -1:
        cdef RingCore ring = self.ring
        self.ring = None
        if ring is not None:
            ring.opened[0] -= 1
            if ring.mpmc != NULL:
                ba_mpmc_producer_leave(&self.many)
        return 0

    def close(self):
        """Give the handle's place back, so that another may take it; the ring goes on. Later calls do nothing."""
        self.left = True
        if not self.busy:
            self.leave()

    def __dealloc__(self):
        self.leave()


cdef class ConsumerCore:
    """One consumer of a ring, which lives at least as long."""
    cdef RingCore ring
    cdef ba_mpmc_consumer many
    cdef bint busy, left

    def _open(self, RingCore ring):
        ring.open_handle(1)
        self.ring = ring
        if ring.mpmc != NULL:
            ba_mpmc_consumer_open(ring.mpmc, &self.many)  # cannot fail: its limits are those of the handles

    def _pop(self, buffer, timeout):
        """Pop into a writable buffer, waiting for the first item: how many; 0: the time is over; -1: the end."""
        cdef Py_buffer view
        cdef RingCore ring = self.ring
        cdef uint64_t deadline, n, done = 0, wait_ns
        cdef ba_ring_result result = BA_RING_TIMEOUT
        if ring is None or self.left:
            raise ClosedError("this consumer is closed: take another one from its ring")
        ring.check()
        if self.busy:
            raise RuntimeError("another thread uses this consumer: a handle is for one thread at a time")
        deadline = deadline_of(timeout)
        if ring.shm is not None and ring.closing:
            raise ClosedError("this process closed the ring: nothing can be popped here any more")
        PyObject_GetBuffer(buffer, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        self.busy = True
        ring.busy[1] += 1
        try:
            n = <uint64_t>view.len // ring.item_bytes
            if n == 0:
                return 0
            if <uint64_t>view.len <= WITH_GIL_BYTES:
                result = self.pop_now(ring, view.buf, n, 0, &done)
            while result == BA_RING_TIMEOUT:
                if ring.shm is not None and ring.closing:
                    result = BA_RING_CLOSED
                    break
                with nogil:
                    wait_ns = slice_of(deadline)
                    result = self.pop_now(ring, view.buf, n, wait_ns, &done)
                if result == BA_RING_TIMEOUT:
                    PyErr_CheckSignals()
                    if wait_ns < SLICE_NS:
                        break
        finally:
            PyBuffer_Release(&view)
            self.busy = False
            ring.busy[1] -= 1
            if ring.closing:
                ring.end_sides()
            if self.left:
                self.leave()
        if result == BA_RING_OK:
            return done
        if result == BA_RING_TIMEOUT:
            return 0
        if result != BA_RING_CLOSED:
            failed(result, "pop")
        return -1

    cdef ba_ring_result pop_now(self, RingCore ring, void *items, uint64_t most, uint64_t wait_ns,
                                uint64_t *done) noexcept nogil:
        if ring.mpmc != NULL:
            return ba_mpmc_wait_pop(&self.many, items, most, wait_ns, done)
        if ring.spsc != NULL:
            return ba_spsc_wait_pop(&ring.consumer, items, most, wait_ns, done)
        return ba_shm_wait_pop(ring.sides[1], items, most, wait_ns, done)

    cdef int leave(self) except -1:
        cdef RingCore ring = self.ring
        self.ring = None
        if ring is not None:
            ring.opened[1] -= 1
            if ring.mpmc != NULL:
                ba_mpmc_consumer_leave(&self.many)
        return 0

    def close(self):
        """Give the handle's place back, so that another may take it; the ring goes on. Later calls do nothing."""
        self.left = True
        if not self.busy:
            self.leave()

    def __dealloc__(self):
        self.leave()


def unlink(bytes name):
    """Remove a segment's name; who has it open goes on."""
    cdef const char *segment = name
    cdef ba_ring_result result
    with nogil:
        result = ba_shm_unlink(segment)
    if result != BA_RING_OK:
        failed(result, f"unlink {name.decode()!r}")
