"""The engine for Python: waits without the GIL, one signal to 32 bytes without a detour, errors with their place.

Threads: any thread may call anything here at any time; a Subscription has one reader at a time. No call keeps the GIL
while it waits, and every wait looks for Python's signals (Ctrl-C) each 50 ms. What is done while shards are paused
happens without the GIL and allocates nothing, so that no finaliser can run there and wait for the pause to end.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from bitactor._core._waits cimport SLICE_NS, ba_monotonic_ns, deadline_of, slice_of

cdef extern from "Python.h":
    bint PyFloat_CheckExact(object o)
    double PyFloat_AS_DOUBLE(object o)
    double PyFloat_AsDouble(object o) except? -1.0
    bint PyLong_CheckExact(object o)
    long long PyLong_AsLongLong(object o) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object o) except? 0xffffffffffffffff
    object PyNumber_Index(object o)
    unsigned long PyThread_get_thread_ident() nogil

cdef enum:
    FRAMES_AT_ONCE = 32  # frames sent before a look for Python's signals
    SMALL_SIGNALS = 1024  # so few go into the ring in less time than giving the GIL away and getting it back takes

FRAME_SIGNALS_MAX = BA_FRAME_SIGNALS
SHARDS_MAX = BA_SHARDS_MAX
HISTOGRAM_BUCKETS = BA_HISTOGRAM_BUCKETS

cdef unsigned long forks = 0


def _forked():
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


class ClosedError(RuntimeError):
    """The engine or ring is closed: nothing was done."""


class SignalError(ValueError):
    """A signal that no engine takes. Nothing of its frame was admitted.

    index: the signal's place in what was sent. accepted: how many signals before it were admitted (whole frames).
    """

    def __init__(self, message, index=0, accepted=0):
        super().__init__(message)
        self.index = index
        self.accepted = accepted


class OutputsFullError(RuntimeError):
    """An inline engine (shards=0) whose policy is to wait has no room for outputs: read the subscription first.

    The thread that sends is the thread that would make room, or might be: waiting could last for ever.
    accepted: how many signals of this call were admitted before.
    """

    def __init__(self, message, accepted=0):
        super().__init__(message)
        self.accepted = accepted


for _error in (ClosedError, SignalError, OutputsFullError):
    _error.__module__ = "bitactor.engine"


cdef class Handle:
    def __cinit__(self):
        self.born = forks

    cdef bint is_alive(self) noexcept:
        """Whether it was made in this process, not before a fork."""
        return self.born == forks

    cdef int check(self) except -1:
        if self.born != forks:
            raise RuntimeError(
                "this engine was made before fork, and its threads did not come along: make a new one in the child, or "
                'start the process with multiprocessing.get_context("spawn")'
            )
        return 0

    cdef int begin_pause(self, uint64_t mask, str what) except -1:
        """Set the boundary at which the shards of the mask shall stand still; the caller goes on to wait for that.

        Between slices of either wait Python's signal handlers run, and what they call may need a pause too, or close
        the engine: the pause that this thread has begun is given up then, and begun again afterwards.
        """
        cdef int result
        self.check()
        self.give_up_pause()
        while True:
            with nogil:
                result = ba_engine_pause_begin(self.engine, mask, SLICE_NS)
            if result == BA_OK:
                self.pausing = PyThread_get_thread_ident()
                return 0
            if result != BA_TIMEOUT:
                failed(result, what)
            self.look_around(result, what)

    cdef int look_around(self, int result, str what) except -1:
        """After a slice of waiting for shards: nothing when it is over, else Ctrl-C and the like, or an error."""
        if result != BA_TIMEOUT:
            if self.pausing == PyThread_get_thread_ident():  # the caller has resumed
                self.pausing = 0
            return 0
        try:
            if self.waiter and self.waiter == PyThread_get_thread_ident():
                raise RuntimeError(f"{what} inside a callback waits for shards, which wait for the callback")
            PyErr_CheckSignals()
        except BaseException:
            self.give_up_pause()
            raise
        return 0

    cdef void unsubscribe(self, ba_subscription *subscription) noexcept:
        """Here, because this module's core knows whether this thread is in a handler."""
        with nogil:
            ba_unsubscribe(subscription)

    cdef void give_up_pause(self) noexcept:
        if self.pausing and self.pausing == PyThread_get_thread_ident():
            self.pausing = 0
            ba_engine_resume(self.engine)

    def __dealloc__(self):
        if self.engine != NULL and self.born == forks:
            with nogil:
                ba_engine_destroy(self.engine)


cdef int failed(int result, str what) except -1:
    """Raise for a result that is not BA_OK and has no other meaning to the caller."""
    if result == BA_CLOSED:
        raise ClosedError(f"the engine is closed: {what} did nothing")
    if result == BA_IN_ACTOR:
        raise RuntimeError(f"{what} inside a handler would wait for the handler itself: use emit there")
    if result == BA_NO_MEMORY:
        raise MemoryError(f"no memory for {what}")
    raise RuntimeError(f"{what} failed with result {result} of the core")


cdef class EngineCore:
    """The C engine under bitactor.Engine, which adds names, tables and subscriptions. Not for use on its own."""

    def _open(self, list kinds, list actors, int shards, int ring_signals, str full, int frame_signals, secret,
              bint manual_clock, uint64_t position=0, uint32_t lane=0, uint32_t lanes=1):
        """Make the C engine.

        kinds: (Kind object, number, "f8", "u4") each; actors: (address, stride, init bytes, partition_keys_max,
        idle_ns, tick_budget, reads_wall, handled numbers, emitted numbers) each; secret: two u64.
        """
        cdef ba_engine_config config
        cdef ba_actor_spec *specs = <ba_actor_spec *>calloc(len(actors) + 1, sizeof(ba_actor_spec))
        cdef Handle handle = Handle.__new__(Handle)
        cdef int result
        cdef uint32_t i
        if self.handle is not None:
            raise RuntimeError("an engine is opened once")
        self.entries = <KindEntry *>calloc(len(kinds) + 1, sizeof(KindEntry))
        if specs == NULL or self.entries == NULL:
            free(specs)
            raise MemoryError
        owned = []
        try:
            for i, (declared, number, value, aux) in enumerate(kinds):
                self.entries[i].declared = <void *>declared
                self.entries[i].number = number
                self.entries[i].value = ord(value[0])
                self.entries[i].aux = ord(aux[0])
                owned.append(declared)
            numbers = _numbers([kind[1] for kind in kinds])
            owned.append(numbers)
            for i, actor in enumerate(actors):
                address, stride, init, keys_max, idle_ns, budget, reads_wall, handled, emitted = actor
                specs[i].handler = <ba_handler><size_t>address
                specs[i].stride = stride
                if len(init) != stride:
                    raise ValueError(f"actor {i}: {len(init)} bytes of initial state, stride {stride}")
                handled_bytes, emitted_bytes = _numbers(handled), _numbers(emitted)
                owned += [init, handled_bytes, emitted_bytes]
                specs[i].init = <const uint8_t *>PyBytes_AS_STRING(init)
                specs[i].partition_keys_max = keys_max
                specs[i].idle_ns = idle_ns
                specs[i].tick_budget = budget
                specs[i].reads_wall = reads_wall
                specs[i].kinds = <const uint16_t *>PyBytes_AS_STRING(handled_bytes)
                specs[i].kind_count = <uint32_t>len(handled)
                specs[i].emits = <const uint16_t *>PyBytes_AS_STRING(emitted_bytes)
                specs[i].emit_count = <uint32_t>len(emitted)
            config.kinds = <const uint16_t *>PyBytes_AS_STRING(numbers)
            config.kind_count = <uint32_t>len(kinds)
            config.actors = specs
            config.actor_count = <uint32_t>len(actors)
            config.shards = shards
            config.ring_signals = ring_signals
            config.secret[0], config.secret[1] = secret
            config.position = position
            config.manual_clock = manual_clock
            config.lane, config.lanes = lane, lanes
            with nogil:
                result = ba_engine_create(&config, &handle.engine)
        finally:
            free(specs)
        if result != BA_OK:
            failed(result, "making the engine")
        handle.inline_mode = shards == 0
        self.entry_count = <uint32_t>len(kinds)
        self.latest = self.entries
        self.frame_signals = frame_signals
        self.full = {"wait": BA_FULL_WAIT, "refuse": BA_FULL_REFUSE, "drop": BA_FULL_DROP}[full]
        self.manual_clock = manual_clock
        self.lane, self.lanes = lane, lanes
        self.owned = owned
        self.handle = handle

    def __dealloc__(self):
        free(self.entries)

    cdef uint64_t now(self) noexcept nogil:
        cdef timespec t
        if self.manual_clock:
            return self.wall_ns
        clock_gettime(CLOCK_REALTIME, &t)
        return <uint64_t>t.tv_sec * 1000000000 + <uint64_t>t.tv_nsec

    cdef KindEntry *entry_of(self, object kind) except NULL:
        cdef uint32_t i
        for i in range(self.entry_count):
            if self.entries[i].declared == <void *>kind:
                self.latest = &self.entries[i]
                return self.latest
        for i in range(self.entry_count):
            declared = <object>self.entries[i].declared
            if kind == self.entries[i].number or kind == declared.name:
                self.latest = &self.entries[i]
                return self.latest
        import difflib

        names = [(<object>self.entries[i].declared).name for i in range(self.entry_count)]
        given = getattr(kind, "name", kind)
        near = difflib.get_close_matches(str(given), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f": it has {', '.join(names)}"
        raise SignalError(f"kind {given!r} is not declared in this engine's app{hint}")

    def send(self, kind, key=None, value=0, aux=0, time=None):
        """Send one signal, as a step of its own; or send(record) with one record of a signal dtype.

        kind: a Kind of the app, its name or its number. key: 0 <= key < 2**64. value, aux: numbers of the kind's
        declared types (an int where a float is declared is fine, not the other way round). time: event time in ns
        since the Unix epoch; None means now.

        Returns True when the signal was admitted; False when the ring was full and the engine's policy is to refuse
        or to drop (counted in statistics). With the policy "wait" it waits, and looks for Ctrl-C while it does.
        Raises SignalError for a signal no engine takes, ClosedError after close, OutputsFullError (inline only) when a
        subscription must be read first, RuntimeError inside a handler. Any thread.
        """
        cdef ba_signal signal
        cdef KindEntry *entry = self.latest
        if key is None:
            return self._send_record(kind)
        if self.handle is None:
            raise ClosedError("the engine was never opened")
        if entry.declared != <void *>kind:
            entry = self.entry_of(kind)
        signal.kind = entry.number
        signal.flags = 0
        try:
            signal.key = PyLong_AsUnsignedLongLong(key if PyLong_CheckExact(key) else PyNumber_Index(key))
            encode_value(&signal.value, entry.value, value)
            encode_aux(&signal.aux, entry.aux, aux)
            if time is None:
                signal.time = self.now()
            else:
                signal.time = PyLong_AsUnsignedLongLong(time if PyLong_CheckExact(time) else PyNumber_Index(time))
        except (TypeError, OverflowError):
            raise _explained(<object>entry.declared, key, value, aux, time) from None
        return self.send_one(&signal)

    def _send_record(self, record):
        cdef Py_buffer view
        cdef ba_signal signal
        dtype = getattr(record, "dtype", None)
        if dtype is None or dtype.names != ("kind", "flags", "aux", "key", "time", "value"):
            raise TypeError(
                f"send takes a kind, a key and a value, or one record of bitactor.SIGNAL_DTYPE; this is a "
                f"{type(record).__name__}. Arrays go through send_batch"
            )
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            if view.len != sizeof(ba_signal):
                raise TypeError(f"send takes one record; this holds {view.len // sizeof(ba_signal)}: use send_batch")
            memcpy(&signal, view.buf, sizeof(ba_signal))
        finally:
            PyBuffer_Release(&view)
        return self.send_one(&signal)

    cdef bint send_one(self, ba_signal *signal) except? False:
        cdef Handle handle = self.handle
        cdef ba_engine *engine = handle.engine
        cdef uint32_t bad = 0
        cdef int result
        cdef ba_full full = self.full
        if handle.born != forks:
            handle.check()
        if handle.inline_mode:
            with nogil:
                result = ba_engine_send(engine, signal, 1, full, 0, &bad)
        else:
            # The first try keeps the GIL: it never waits, and giving the GIL away would cost more than the send.
            result = ba_engine_send(engine, signal, 1, full, 0, &bad)
            while result == BA_TIMEOUT:
                self._may_wait(0)
                with nogil:
                    result = ba_engine_send(engine, signal, 1, full, SLICE_NS, &bad)
                PyErr_CheckSignals()
        if result == BA_OK:
            return True
        self._not_sent(result, signal.kind, signal.flags, 0, 0, signal.key)
        return False

    def _may_wait(self, uint64_t accepted):
        self.handle.give_up_pause()  # a signal handler's call inside a wait for shards, see begin_pause
        if self.handle.waiter and self.handle.waiter == PyThread_get_thread_ident():
            raise OutputsFullError(
                "the ring is full, and a callback that waits for room may wait for itself: send from another thread, "
                'or make the engine with full="refuse"', accepted
            )

    def _not_sent(self, int result, number, flags, uint64_t index, uint64_t accepted, uint64_t key=0):
        """Raise for what send and send_batch cannot return as a count."""
        before = f"; {accepted} signals before its frame were admitted" if accepted else ""
        if result == BA_BAD_KIND:
            names = ", ".join(f"{self.entries[i].number} ({(<object>self.entries[i].declared).name})"
                              for i in range(self.entry_count))
            raise SignalError(
                f"signal {index}: kind {number} is not declared; this engine's app has {names}{before}", index, accepted
            )
        if result == BA_BAD_FLAGS:
            raise SignalError(
                f"signal {index}: flags are {flags:#06x}, but no flag has a meaning yet: set them to 0{before}",
                index, accepted,
            )
        if result == BA_WRONG_LANE:
            raise SignalError(f"signal {index}: {self._elsewhere(key)}{before}", index, accepted)
        if result == BA_FULL:
            if self.full == BA_FULL_WAIT:
                raise OutputsFullError(
                    "a subscription of this inline engine is full: read it (this thread is the one that works), or "
                    f'subscribe with a larger capacity or full="drop"; {accepted} signals of this call were admitted',
                    accepted,
                )
            return
        failed(result, "sending")

    def _send_frames(self, array, bytes refused_kinds):
        """Send a contiguous buffer of signals; return how many were admitted.

        refused_kinds: 65,536 bytes, not 0 where the array's types are not the kind's; or None.
        Frames go to the core by pointer; nothing is copied but into the ring.
        """
        cdef Py_buffer view
        cdef Handle handle = self.handle
        cdef const ba_signal *signals
        cdef const uint8_t *refused = NULL
        cdef uint64_t total, at = 0, accepted = 0, wait_ns, seen, i
        cdef uint32_t n, bad = 0, frames
        cdef int result = BA_OK, wrong
        cdef ba_full full = self.full
        handle.check()
        if refused_kinds is not None:
            refused = <const uint8_t *>PyBytes_AS_STRING(refused_kinds)
        PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
        try:
            signals = <const ba_signal *>view.buf
            total = <uint64_t>view.len // sizeof(ba_signal)
            wait_ns = 0 if handle.waiter else SLICE_NS
            while at < total:
                wrong = 0
                with nogil:
                    frames = 0
                    while at < total and frames < FRAMES_AT_ONCE:
                        n = <uint32_t>min(total - at, <uint64_t>self.frame_signals)
                        if refused != NULL:
                            seen = 0
                            for i in range(n):
                                seen |= refused[signals[at + i].kind]
                            if seen:
                                for i in range(n):
                                    if refused[signals[at + i].kind]:
                                        bad = <uint32_t>i
                                        break
                                wrong = 1
                                break
                        result = ba_engine_send(handle.engine, signals + at, n, full, wait_ns, &bad)
                        if result == BA_FULL and full == BA_FULL_DROP:
                            at += n
                        elif result == BA_OK:
                            at += n
                            accepted += n
                        else:
                            break
                        frames += 1
                if wrong:
                    self._wrong_type(signals[at + bad].kind, at + bad, accepted)
                if result == BA_TIMEOUT:
                    self._may_wait(accepted)
                    wait_ns = SLICE_NS
                elif result == BA_FULL:
                    if full != BA_FULL_DROP:
                        self._not_sent(result, 0, 0, at, accepted)
                        break
                elif result != BA_OK:
                    self._not_sent(result, signals[at + bad].kind, signals[at + bad].flags, at + bad, accepted,
                                   signals[at + bad].key)
                PyErr_CheckSignals()
        finally:
            PyBuffer_Release(&view)
        return accepted

    def _apply(self, array, uint64_t wall_ns, bint wait):
        """Apply one record, a contiguous buffer of signals; an empty one moves wall time alone. See Engine.apply.

        False, without `wait` only: there was no room now, or the record has several steps, and nothing was done.
        """
        cdef Py_buffer view
        cdef Handle handle = self.handle
        cdef const ba_signal *signals
        cdef uint64_t n, done = 0
        cdef uint32_t bad = 0
        cdef int result = BA_TIMEOUT
        handle.check()
        if not self.manual_clock or self.full != BA_FULL_WAIT:
            raise RuntimeError('apply needs an engine made with clock="records" and full="wait"')
        if handle.waiter and handle.waiter == PyThread_get_thread_ident():
            raise RuntimeError("apply inside a callback may wait for the callback itself: apply from another thread")
        handle.give_up_pause()
        self.move_wall(wall_ns)
        PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
        try:
            signals = <const ba_signal *>view.buf
            n = <uint64_t>view.len // sizeof(ba_signal)
            if not wait and n > BA_FRAME_SIGNALS:
                return False
            # The first try of a small one keeps the GIL: it never waits.
            if (0 < n <= SMALL_SIGNALS or not wait) and not handle.inline_mode:
                result = ba_engine_apply(handle.engine, signals, n, wall_ns, 0, &done, &bad)
                if result == BA_TIMEOUT and not wait:
                    return False
            while result == BA_TIMEOUT:
                with nogil:
                    result = ba_engine_apply(handle.engine, signals, n, wall_ns, SLICE_NS, &done, &bad)
                PyErr_CheckSignals()
            if result != BA_OK and n == 0:
                failed(result, "applying")
            if result != BA_OK:
                self._not_sent(result, signals[done + bad].kind, signals[done + bad].flags, done + bad, done,
                               signals[done + bad].key)
        finally:
            PyBuffer_Release(&view)
        return True

    def _elsewhere(self, uint64_t key):
        """What is wrong with a key of another lane; None when it is of this engine's."""
        cdef uint32_t lane = ba_partition(key) % self.lanes
        if lane == self.lane:
            return None
        return f"key {key} is of lane {lane}, and this engine holds lane {self.lane} of {self.lanes}"

    def _wrong_type(self, number, index, accepted):
        for i in range(self.entry_count):
            if self.entries[i].number == number:
                kind = <object>self.entries[i].declared
                raise SignalError(
                    f"signal {index}: kind {kind.name!r} has value {kind.value!r} and aux {kind.aux!r}, and the "
                    "array's dtype has other types there: fill it through an array of "
                    f"bitactor.signal_dtype(value, aux) of those types; {accepted} "
                    "signals before its frame were admitted", index, accepted
                )
        self._not_sent(BA_BAD_KIND, number, 0, index, accepted)

    def _tail(self):
        """The position behind everything admitted so far."""
        self.handle.check()
        return ba_engine_tail(self.handle.engine)

    def _flush(self, timeout, target=None):
        """Wait until everything before the target (None: admitted so far) is handled; False: the time is over."""
        cdef uint64_t deadline = deadline_of(timeout), wait_ns, position
        cdef Handle handle = self.handle
        cdef int result
        handle.check()
        handle.give_up_pause()
        position = ba_engine_tail(handle.engine) if target is None else target
        if handle.waiter and handle.waiter == PyThread_get_thread_ident():
            raise RuntimeError("flush inside a callback may wait for the callback itself: flush from another thread")
        while True:
            wait_ns = slice_of(deadline)
            with nogil:
                result = ba_engine_wait_handled(handle.engine, position, wait_ns)
            if result != BA_TIMEOUT:
                break
            PyErr_CheckSignals()
            if deadline != UINT64_MAX and ba_monotonic_ns() >= deadline:
                return False
        if result != BA_OK:
            failed(result, "flush")
        return True

    def _state(self, uint32_t actor, uint64_t key, uint32_t stride):
        """(state bytes, position), or None when the key has no state."""
        cdef Handle handle = self.handle
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, stride)
        cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(copy)
        cdef const uint8_t *found = NULL
        cdef uint64_t position = 0, mask
        cdef int result
        handle.check()
        mask = ba_engine_owner_mask(handle.engine, key)
        handle.begin_pause(mask, "reading a state")
        while True:
            with nogil:
                result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
                if result == BA_OK:
                    found = ba_engine_find(handle.engine, actor, key)
                    if found != NULL:
                        memcpy(to, found, stride)
                    ba_engine_resume(handle.engine)
            handle.look_around(result, "reading state")
            if result == BA_OK:
                break
            if handle.pausing != PyThread_get_thread_ident():
                handle.begin_pause(mask, "reading a state")
        return None if found == NULL else (copy, position)

    def _rows(self, uint32_t actor, list offsets, list sizes, allocate):
        """Columns of all states of an actor.

        allocate(rows) gives a writable buffer of 8 * rows bytes for the keys and one of size * rows for each column,
        in a list. Returns (that list, rows used, position).
        """
        cdef Handle handle = self.handle
        cdef uint32_t n = <uint32_t>len(offsets), c, got = 0
        cdef uint64_t capacity = 0, count = 0, position = 0
        cdef uint32_t *offset = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        cdef uint32_t *size = <uint32_t *>malloc((n + 1) * sizeof(uint32_t))
        cdef uint8_t **column = <uint8_t **>malloc((n + 1) * sizeof(uint8_t *))
        cdef Py_buffer *views = <Py_buffer *>calloc(n + 1, sizeof(Py_buffer))
        cdef int result
        cdef bint copied = False
        try:
            if offset == NULL or size == NULL or column == NULL or views == NULL:
                raise MemoryError
            for c in range(n):
                offset[c] = offsets[c]
                size[c] = sizes[c]
            handle.check()
            buffers = allocate(0)
            while not copied:
                if handle.pausing != PyThread_get_thread_ident():
                    handle.begin_pause(UINT64_MAX, "reading a table")
                with nogil:
                    result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
                    if result == BA_OK:
                        count = ba_engine_count(handle.engine, actor)
                        if count <= capacity:
                            if count:
                                ba_engine_rows(handle.engine, actor, <uint64_t *>views[0].buf, n, offset, size, column)
                            copied = True
                        ba_engine_resume(handle.engine)
                handle.look_around(result, "reading state")
                if result == BA_OK and not copied:
                    # Keys come while the shards run on: take a little more room than was needed, and look again.
                    while got:
                        got -= 1
                        PyBuffer_Release(&views[got])
                    capacity = count + count // 64 + 64
                    buffers = allocate(capacity)
                    for c in range(n + 1):
                        PyObject_GetBuffer(buffers[c], &views[c], PyBUF_WRITABLE)
                        got += 1
                        if <uint64_t>views[c].len < capacity * (8 if c == 0 else size[c - 1]):
                            raise ValueError("allocate gave too small a buffer")
                        if c:
                            column[c - 1] = <uint8_t *>views[c].buf
            return buffers, count, position
        finally:
            while got:
                got -= 1
                PyBuffer_Release(&views[got])
            free(offset)
            free(size)
            free(column)
            free(views)

    def _set_wall(self, uint64_t wall_ns):
        self.handle.check()
        self.move_wall(wall_ns)
        ba_engine_set_wall(self.handle.engine, wall_ns)

    cdef int move_wall(self, uint64_t wall_ns) except -1:
        if wall_ns < self.wall_ns:
            raise ValueError(f"the clock never goes back: it is at {self.wall_ns}, not {wall_ns}")
        self.wall_ns = wall_ns
        return 0

    def _statistics(self):
        """((accepted, refused, dropped_full, position, steps, waits, ring_signals, ring_used), [one tuple a shard])."""
        cdef Handle handle = self.handle
        cdef ba_statistics total
        cdef ba_shard_statistics *shards
        cdef int result
        cdef uint32_t s, d
        handle.check()
        shards = <ba_shard_statistics *>calloc(BA_SHARDS_MAX, sizeof(ba_shard_statistics))
        if shards == NULL:
            raise MemoryError
        try:
            with nogil:
                result = ba_engine_statistics(handle.engine, &total, shards)
            if result != BA_OK:
                failed(result, "statistics")
            rows = []
            for s in range(max(total.shards, 1)):
                rows.append((
                    shards[s].position, shards[s].processed, [shards[s].dropped[d] for d in range(BA_DROPS)],
                    shards[s].emitted, shards[s].emits_processed, shards[s].emits_outward, shards[s].emits_remote,
                    [shards[s].emits_dropped[d] for d in range(BA_DROPS)], shards[s].expired, shards[s].steps,
                    shards[s].waves, shards[s].idle_ticks, shards[s].parked_ticks, shards[s].queued,
                    shards[s].step_ticks, shards[s].dispatch_ticks, shards[s].emit_ticks, shards[s].barrier_ticks,
                ))
        finally:
            free(shards)
        return (total.accepted, total.refused, total.dropped_full, total.position, total.steps, total.send_waits,
                total.ring_signals, total.ring_used), rows

    def _actor_statistics(self, uint32_t actor):
        cdef ba_actor_statistics s
        cdef uint32_t b
        self.handle.check()
        ba_engine_actor_statistics(self.handle.engine, actor, &s)
        return (s.signals, s.timed, s.refused, s.ticks, s.exceeded, s.raised, s.keys, s.key_bytes,
                [s.histogram[b] for b in range(BA_HISTOGRAM_BUCKETS)])

    def _kind_statistics(self, uint32_t kind_index):
        cdef ba_kind_statistics s
        cdef uint32_t b
        self.handle.check()
        ba_engine_kind_statistics(self.handle.engine, kind_index, &s)
        return s.signals, [s.histogram[b] for b in range(BA_HISTOGRAM_BUCKETS)]

    def _dead_letters(self):
        """(signal bytes, position, actor, error, drop, wave) each; they are taken."""
        cdef Handle handle = self.handle
        cdef uint32_t most = BA_DEAD_LETTERS * BA_SHARDS_MAX, n, i
        cdef ba_dead_letter *letters
        handle.check()
        letters = <ba_dead_letter *>malloc(most * sizeof(ba_dead_letter))
        if letters == NULL:
            raise MemoryError
        try:
            with nogil:
                n = ba_engine_dead_letters(handle.engine, letters, most)
            return [
                ((<char *>&letters[i].signal)[:sizeof(ba_signal)], letters[i].position, letters[i].actor,
                 letters[i].error, letters[i].drop, letters[i].wave)
                for i in range(n)
            ]
        finally:
            free(letters)

    def _close(self, bint discard):
        """End the C engine and join its shards. Once; later calls do nothing."""
        cdef Handle handle = self.handle
        cdef int result
        if handle is None or handle.closed or handle.born != forks:
            return
        handle.closed = True
        handle.give_up_pause()
        with nogil:
            result = ba_engine_close(handle.engine, discard)
        if result != BA_OK:
            handle.closed = False
            failed(result, "close")

    @property
    def closed(self):
        """Whether the engine is closed (or was never opened)."""
        return self.handle is None or self.handle.closed

    def _set_waiter(self, unsigned long ident):
        """Name the thread that runs callbacks: it must not wait for shards."""
        self.handle.waiter = ident

    def _is_forked(self):
        return self.handle is not None and self.handle.born != forks


cdef bytes _numbers(list numbers):
    cdef bytes packed = PyBytes_FromStringAndSize(NULL, 2 * len(numbers))
    cdef uint16_t *to = <uint16_t *>PyBytes_AS_STRING(packed)
    for i, number in enumerate(numbers):
        to[i] = number
    return packed


cdef int encode_value(uint64_t *to, char type_of, object value) except -1:
    cdef double d
    cdef long long i
    if type_of == c'f':
        d = PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else PyFloat_AsDouble(value)
        memcpy(to, &d, 8)
    elif type_of == c'i':
        i = PyLong_AsLongLong(value if PyLong_CheckExact(value) else PyNumber_Index(value))
        memcpy(to, &i, 8)
    else:
        to[0] = PyLong_AsUnsignedLongLong(value if PyLong_CheckExact(value) else PyNumber_Index(value))
    return 0


cdef int encode_aux(uint32_t *to, char type_of, object aux) except -1:
    cdef float f
    cdef long long i
    if type_of == c'f':
        f = <float>PyFloat_AsDouble(aux)
        memcpy(to, &f, 4)
        return 0
    i = PyLong_AsLongLong(aux if PyLong_CheckExact(aux) else PyNumber_Index(aux))
    if type_of == c'u':
        if i < 0 or i > 0xffffffff:
            raise OverflowError
    elif i < -0x80000000 or i > 0x7fffffff:
        raise OverflowError
    to[0] = <uint32_t>i
    return 0


_RANGES = {
    "u4": (0, 2**32 - 1), "i4": (-2**31, 2**31 - 1), "u8": (0, 2**64 - 1), "i8": (-2**63, 2**63 - 1),
}


def _explained(kind, key, value, aux, time):
    """The SignalError for the first field that does not fit."""
    from operator import index

    for name, given, declared in (("key", key, "u8"), ("value", value, kind.value), ("aux", aux, kind.aux),
                                  ("time", time, "u8")):
        if name == "time" and given is None:
            continue
        whose = f"{name} of kind {kind.name!r}"
        if declared in ("f8", "f4"):
            try:
                float(given) if not isinstance(given, str) else index(given)
            except (TypeError, ValueError, OverflowError):
                told = f"{whose} is {given!r} ({type(given).__name__}); it is declared {declared}: give a number"
                return SignalError(told)
            continue
        low, high = _RANGES[declared]
        try:
            number = index(given)
        except TypeError:
            fix = "use int(...) if that is meant" if isinstance(given, float) else "give an integer"
            if name == "key" and isinstance(given, str):
                fix = "bitactor.text_key(...) makes a key of a text"
            return SignalError(f"{whose} is {given!r} ({type(given).__name__}); it is declared {declared}: {fix}")
        if not low <= number <= high:
            return SignalError(f"{whose} is {given!r}; {declared} holds {low} to {high}")
    return SignalError(f"a signal of kind {kind.name!r} does not fit: key {key!r}, value {value!r}, aux {aux!r}")


def ticks_hz():
    """Ticks in a second of this machine's counter; the first call may take some 10 ms."""
    cdef uint64_t hz
    with nogil:
        hz = ba_ticks_hz()
    return hz


def histogram_floors():
    """Smallest ticks counted in each histogram bucket."""
    cdef uint32_t b
    return [ba_histogram_floor(b) for b in range(BA_HISTOGRAM_BUCKETS)]
