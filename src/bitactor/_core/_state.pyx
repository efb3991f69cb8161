"""State in and out of an engine for Python: buffers by pointer, copied while every shard stands still.

Threads and waits: as in _engine.pyx. What happens in a pause happens without the GIL; buffers are made, and their pages
touched, before it.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from bitactor._core._engine cimport (
    BA_BAD_CONFIG,
    BA_DROPS,
    BA_FULL,
    BA_OK,
    EngineCore,
    Handle,
    ba_actor_statistics,
    ba_engine,
    ba_engine_actor_statistics,
    ba_engine_owner_mask,
    ba_engine_pause_wait,
    ba_engine_resume,
    ba_shard_statistics,
    failed,
)
from bitactor._core._waits cimport SLICE_NS, ba_monotonic_ns

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil


cdef extern from "bitactor/signal.h" nogil:
    enum:
        BA_PARTITIONS

    uint8_t ba_partition(uint64_t key)


cdef extern from "bitactor/engine.h" nogil:
    uint64_t ba_idle_tick_ns(uint64_t idle_ns)


cdef extern from "bitactor/state.h" nogil:
    ctypedef struct ba_actor_state:
        uint64_t rows
        uint64_t rows_max
        uint32_t *counts
        uint64_t *keys
        uint8_t *states
        uint32_t *touch_order
        uint32_t *touch_ticks
        uint64_t signals
        uint64_t refused
        uint64_t raised

    ctypedef struct ba_state:
        uint64_t wall_ns
        uint64_t accepted
        uint64_t refused
        uint64_t dropped_full
        ba_shard_statistics counts
        ba_actor_state *actors
        uint64_t *kind_signals

    int ba_engine_export(ba_engine *engine, ba_state *state)
    int ba_engine_import(ba_engine *engine, const ba_state *state)
    int ba_engine_erase(ba_engine *engine, uint64_t key, uint32_t *held)


PARTITIONS = BA_PARTITIONS


cdef class Image:
    """A ba_state whose arrays are Python's buffers, four an actor: keys, states, touch order, touch ticks."""
    cdef ba_state state
    cdef uint32_t actor_count, kind_count
    cdef Py_buffer *views
    cdef list buffers  # of each actor; None: none are held

    def __cinit__(self, uint32_t actors, uint32_t kinds):
        self.actor_count, self.kind_count = actors, kinds
        self.buffers = [None] * actors
        self.state.actors = <ba_actor_state *>calloc(actors + 1, sizeof(ba_actor_state))
        self.state.kind_signals = <uint64_t *>calloc(kinds + 1, sizeof(uint64_t))
        self.views = <Py_buffer *>calloc(4 * actors + 1, sizeof(Py_buffer))
        if self.state.actors == NULL or self.state.kind_signals == NULL or self.views == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t v
        for v in range(4 * self.actor_count if self.views != NULL else 0):
            PyBuffer_Release(&self.views[v])  # one that is not held is left alone
        free(self.views)
        free(self.state.actors)
        free(self.state.kind_signals)

    cdef int hold(self, uint32_t actor, tuple buffers, uint64_t rows, uint64_t stride, int flags) except -1:
        """Take the buffers of one actor, in the place of those it had; a None is no buffer."""
        cdef ba_actor_state *of = &self.state.actors[actor]
        cdef Py_buffer *views = &self.views[4 * actor]
        cdef uint64_t size
        cdef uint32_t v
        for v in range(4):
            PyBuffer_Release(&views[v])
            if buffers[v] is None:
                continue
            PyObject_GetBuffer(buffers[v], &views[v], flags)
            size = rows * (8 if v == 0 else stride if v == 1 else 4)
            if <uint64_t>views[v].len < size:
                raise ValueError(f"actor {actor}: buffer {v} has {views[v].len} bytes, and {size} are needed")
        self.buffers[actor] = buffers
        of.rows_max = rows
        of.keys, of.states = <uint64_t *>views[0].buf, <uint8_t *>views[1].buf
        of.touch_order, of.touch_ticks = <uint32_t *>views[2].buf, <uint32_t *>views[3].buf
        return 0

    cdef list head(self):
        """Position, wall time and the counters, in the order of bitactor.state.COUNTERS."""
        cdef ba_state *s = &self.state
        cdef ba_shard_statistics *c = &s.counts
        cdef uint32_t d
        return [c.position, s.wall_ns, s.accepted, s.refused, s.dropped_full, c.steps, c.waves, c.processed, c.emitted,
                c.emits_processed, c.emits_outward, c.emits_remote, c.expired, *[c.dropped[d] for d in range(BA_DROPS)],
                *[c.emits_dropped[d] for d in range(BA_DROPS)]]

    cdef int set_head(self, list given) except -1:
        cdef ba_state *s = &self.state
        cdef ba_shard_statistics *c = &s.counts
        cdef uint32_t d
        (c.position, s.wall_ns, s.accepted, s.refused, s.dropped_full, c.steps, c.waves, c.processed, c.emitted,
         c.emits_processed, c.emits_outward, c.emits_remote, c.expired) = given[:13]
        for d in range(BA_DROPS):
            c.dropped[d] = given[13 + d]
            c.emits_dropped[d] = given[13 + BA_DROPS + d]
        return 0


cdef object _touched(object buffers):
    """The buffers, after a write to each of their pages, so that none is missing when the shards stand still."""
    cdef Py_buffer view
    cdef uint8_t *at
    cdef Py_ssize_t i
    for buffer in buffers:
        if buffer is None:
            continue
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
        at = <uint8_t *>view.buf
        with nogil:
            for i in range(0, view.len, 4096):
                at[i] = 0
        PyBuffer_Release(&view)
    return buffers


def _prepare(EngineCore core, uint32_t actors, allocate):
    """Buffers for the state now and some keys more, pages and all: (rows, what allocate gave) of each actor."""
    cdef ba_actor_statistics now
    cdef uint64_t rows
    cdef uint32_t a
    core.handle.check()
    prepared = []
    for a in range(actors):
        ba_engine_actor_statistics(core.handle.engine, a, &now)
        rows = more_than(now.keys)
        prepared.append((rows, _touched(allocate(a, rows))))
    return prepared


cdef uint64_t more_than(uint64_t rows) noexcept:
    """Keys come while the shards run on."""
    return rows + rows // 32 + 4096


def _export(EngineCore core, uint32_t kinds, list strides, list prepared, allocate):
    """Copy the state of an engine at one step boundary.

    strides: bytes of a state of each actor. prepared: what _prepare gave. allocate(actor, rows) gives (keys, states,
    touch order, touch ticks): writable buffers for so many rows of 8, stride, 4 and 4 bytes, the last two None for an
    actor without expiry; called here for actors that have more rows than was prepared for.
    Returns ([position, wall and counters], [signals of each kind], [(counts bytes, rows, signals, refused, raised, the
    buffers) of each actor], nanoseconds from setting the boundary until the shards went on).
    """
    cdef Handle handle = core.handle
    cdef Image image = Image(<uint32_t>len(strides), kinds)
    cdef ba_actor_state *of
    cdef uint64_t position = 0, begun = 0, paused_ns = 0, rows
    cdef uint32_t a
    cdef int result, copied = BA_FULL
    handle.check()
    for a in range(image.actor_count):
        image.hold(a, prepared[a][1], prepared[a][0], strides[a], PyBUF_WRITABLE)
    while copied == BA_FULL:
        for a in range(image.actor_count):
            of = &image.state.actors[a]
            if of.rows > of.rows_max:
                rows = more_than(of.rows)
                image.hold(a, _touched(allocate(a, rows)), rows, strides[a], PyBUF_WRITABLE)
        while True:
            if handle.pausing != PyThread_get_thread_ident():
                handle.begin_pause(UINT64_MAX, "exporting the state")
                begun = ba_monotonic_ns()
            with nogil:
                result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
                if result == BA_OK:
                    copied = ba_engine_export(handle.engine, &image.state)
                    ba_engine_resume(handle.engine)
                    paused_ns += ba_monotonic_ns() - begun
            handle.look_around(result, "exporting the state")
            if result == BA_OK:
                break
    if copied != BA_OK:
        failed(copied, "exporting the state")
    actors = []
    for a in range(image.actor_count):
        of = &image.state.actors[a]
        counts = PyBytes_FromStringAndSize(<char *>of.counts, 4 * BA_PARTITIONS)
        actors.append((counts, of.rows, of.signals, of.refused, of.raised, image.buffers[a]))
    return image.head(), [image.state.kind_signals[a] for a in range(kinds)], actors, paused_ns


def _import(EngineCore core, list head, list kinds, list strides, list actors):
    """Fill a fresh engine. Arguments as _export gives them; a checked state only. MemoryError: close the engine."""
    cdef Handle handle = core.handle
    cdef Image image = Image(<uint32_t>len(actors), <uint32_t>len(kinds))
    cdef ba_actor_state *of
    cdef uint64_t position = 0
    cdef uint32_t a
    cdef int result, taken = BA_OK
    handle.check()
    image.set_head(head)
    for a in range(image.kind_count):
        image.state.kind_signals[a] = kinds[a]
    for a in range(image.actor_count):
        of = &image.state.actors[a]
        counts, of.rows, of.signals, of.refused, of.raised, buffers = actors[a]
        memcpy(of.counts, PyBytes_AS_STRING(counts), 4 * BA_PARTITIONS)
        image.hold(a, buffers, of.rows, strides[a], PyBUF_SIMPLE)
    while True:
        if handle.pausing != PyThread_get_thread_ident():
            handle.begin_pause(UINT64_MAX, "importing a state")
        with nogil:
            result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
            if result == BA_OK:
                taken = ba_engine_import(handle.engine, &image.state)
                ba_engine_resume(handle.engine)
        handle.look_around(result, "importing a state")
        if result == BA_OK:
            break
    if taken == BA_BAD_CONFIG:
        raise RuntimeError("a state goes into a fresh engine, and this one has taken signals already: make a new one")
    if taken != BA_OK:
        failed(taken, "importing a state")
    core.wall_ns = max(core.wall_ns, image.state.wall_ns)


def _erase(EngineCore core, uint64_t key):
    """Take a key out of every actor; how many had it."""
    cdef Handle handle = core.handle
    cdef uint64_t position = 0, mask
    cdef uint32_t held = 0
    cdef int result, erased = BA_OK
    handle.check()
    mask = ba_engine_owner_mask(handle.engine, key)
    handle.begin_pause(mask, "erasing a key")
    while True:
        with nogil:
            result = ba_engine_pause_wait(handle.engine, SLICE_NS, &position)
            if result == BA_OK:
                erased = ba_engine_erase(handle.engine, key, &held)
                ba_engine_resume(handle.engine)
        handle.look_around(result, "erasing a key")
        if result == BA_OK:
            break
        if handle.pausing != PyThread_get_thread_ident():
            handle.begin_pause(mask, "erasing a key")
    if erased != BA_OK:
        failed(erased, "erasing a key")
    return held


def first_misplaced(const uint64_t[::1] keys, const uint32_t[::1] counts):
    """Index of the first key that is not of the partition it lies in (counts[p] keys for each p, in order), or -1."""
    cdef uint64_t row = 0, end = 0
    cdef uint32_t p
    with nogil:
        for p in range(BA_PARTITIONS):
            end += counts[p]
            while row < end and ba_partition(keys[row]) == p:
                row += 1
            if row < end:
                break
    return row if row < end else -1


def idle_tick_ns(uint64_t idle_ns):
    """Length of a tick of idle time of an actor whose keys are forgotten after idle_ns."""
    return ba_idle_tick_ns(idle_ns)
