# The C engine as Python sees it (core/include/bitactor/engine.h), and the classes over it: the contents page.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "bitactor/signal.h" nogil:
    ctypedef struct ba_signal:
        uint16_t kind
        uint16_t flags
        uint32_t aux
        uint64_t key
        uint64_t time
        uint64_t value

    enum:
        BA_FRAME_SIGNALS

    uint8_t ba_partition(uint64_t key)


cdef extern from "bitactor/actor.h" nogil:
    ctypedef void *ba_handler


cdef extern from "bitactor/ticks.h" nogil:
    uint64_t ba_ticks_hz()


cdef extern from "bitactor/engine.h" nogil:
    enum:
        BA_SHARDS_MAX
        BA_DROPS
        BA_HISTOGRAM_BUCKETS
        BA_DEAD_LETTERS
        BA_OK
        BA_TIMEOUT
        BA_FULL
        BA_BAD_KIND
        BA_BAD_FLAGS
        BA_CLOSED
        BA_IN_ACTOR
        BA_NO_MEMORY
        BA_BAD_CONFIG
        BA_WRONG_LANE

    enum ba_full:
        BA_FULL_WAIT
        BA_FULL_REFUSE
        BA_FULL_DROP

    ctypedef struct ba_actor_spec:
        ba_handler handler
        uint32_t stride
        const uint8_t *init
        uint32_t partition_keys_max
        uint64_t idle_ns
        uint64_t tick_budget
        bint reads_wall
        const uint16_t *kinds
        uint32_t kind_count
        const uint16_t *emits
        uint32_t emit_count

    ctypedef struct ba_engine_config:
        const uint16_t *kinds
        uint32_t kind_count
        const ba_actor_spec *actors
        uint32_t actor_count
        uint32_t shards
        uint32_t ring_signals
        uint64_t secret[2]
        uint64_t position
        bint manual_clock
        uint32_t lane
        uint32_t lanes

    ctypedef struct ba_engine:
        pass

    int ba_engine_create(const ba_engine_config *config, ba_engine **out)
    int ba_engine_close(ba_engine *engine, bint discard)
    void ba_engine_destroy(ba_engine *engine)
    int ba_engine_send(ba_engine *engine, const ba_signal *signals, uint32_t n, ba_full full, uint64_t timeout_ns,
                       uint32_t *bad)
    uint64_t ba_engine_tail(ba_engine *engine)
    int ba_engine_wait_handled(ba_engine *engine, uint64_t position, uint64_t timeout_ns)
    void ba_engine_set_wall(ba_engine *engine, uint64_t wall_ns)
    int ba_engine_pause_begin(ba_engine *engine, uint64_t mask, uint64_t timeout_ns)
    int ba_engine_pause_wait(ba_engine *engine, uint64_t timeout_ns, uint64_t *position)
    void ba_engine_resume(ba_engine *engine)
    uint64_t ba_engine_owner_mask(const ba_engine *engine, uint64_t key)
    const uint8_t *ba_engine_find(ba_engine *engine, uint32_t actor, uint64_t key)
    uint64_t ba_engine_count(ba_engine *engine, uint32_t actor)
    uint64_t ba_engine_rows(ba_engine *engine, uint32_t actor, uint64_t *keys, uint32_t n, const uint32_t *offsets,
                            const uint32_t *bytes, uint8_t **columns)

    ctypedef struct ba_dead_letter:
        ba_signal signal
        uint64_t position
        uint32_t actor
        uint32_t error
        uint32_t drop
        uint32_t wave

    ctypedef struct ba_shard_statistics:
        uint64_t position
        uint64_t processed
        uint64_t *dropped
        uint64_t emitted
        uint64_t emits_processed
        uint64_t emits_outward
        uint64_t emits_remote
        uint64_t *emits_dropped
        uint64_t expired
        uint64_t steps
        uint64_t waves
        uint64_t step_ticks
        uint64_t dispatch_ticks
        uint64_t emit_ticks
        uint64_t barrier_ticks
        uint64_t idle_ticks
        uint64_t parked_ticks
        uint64_t queued

    ctypedef struct ba_statistics:
        uint64_t accepted
        uint64_t refused
        uint64_t dropped_full
        uint64_t position
        uint64_t steps
        uint64_t send_waits
        uint64_t ring_signals
        uint64_t ring_used
        uint32_t shards

    int ba_engine_statistics(ba_engine *engine, ba_statistics *total, ba_shard_statistics *shards)

    ctypedef struct ba_actor_statistics:
        uint64_t signals
        uint64_t refused
        uint64_t timed
        uint64_t ticks
        uint64_t exceeded
        uint64_t raised
        uint64_t keys
        uint64_t key_bytes
        uint64_t *histogram

    ctypedef struct ba_kind_statistics:
        uint64_t signals
        uint64_t *histogram

    void ba_engine_actor_statistics(ba_engine *engine, uint32_t actor, ba_actor_statistics *out)
    void ba_engine_kind_statistics(ba_engine *engine, uint32_t kind_index, ba_kind_statistics *out)
    uint64_t ba_histogram_floor(uint32_t bucket)
    uint32_t ba_engine_dead_letters(ba_engine *engine, ba_dead_letter *out, uint32_t max)

    ctypedef struct ba_subscription:
        pass

    void ba_unsubscribe(ba_subscription *subscription)


cdef extern from "bitactor/state.h" nogil:
    int ba_engine_apply(ba_engine *engine, const ba_signal *signals, uint64_t n, uint64_t wall_ns, uint64_t timeout_ns,
                        uint64_t *done, uint32_t *bad)


cdef int failed(int result, str what) except -1


cdef struct KindEntry:
    void *declared  # the Kind object; borrowed, the application keeps it
    uint16_t number
    char value      # 'f', 'i' or 'u': f8, i8, u8
    char aux        # f4, i4, u4


cdef class Handle:
    """Owns one C engine; whoever may still call it holds a reference. Destroyed with the last one."""
    cdef ba_engine *engine
    cdef unsigned long born     # count of forks when it was made
    cdef unsigned long waiter   # ident of the callback thread, which must not wait for itself; 0: none
    cdef unsigned long pausing  # ident of the thread that has begun a pause and does not hold it yet; 0: none
    cdef bint closed
    cdef bint inline_mode
    cdef bint is_alive(self) noexcept
    cdef int check(self) except -1
    cdef int begin_pause(self, uint64_t mask, str what) except -1
    cdef int look_around(self, int result, str what) except -1
    cdef void give_up_pause(self) noexcept
    cdef void unsubscribe(self, ba_subscription *subscription) noexcept


cdef class EngineCore:
    cdef Handle handle
    cdef KindEntry *entries
    cdef KindEntry *latest
    cdef uint32_t entry_count
    cdef uint32_t frame_signals
    cdef ba_full full
    cdef bint manual_clock
    cdef readonly uint32_t lane
    cdef readonly uint32_t lanes
    cdef uint64_t wall_ns
    cdef list owned
    cdef KindEntry *entry_of(self, object kind) except NULL
    cdef uint64_t now(self) noexcept nogil
    cdef bint send_one(self, ba_signal *signal) except? False
    cdef int move_wall(self, uint64_t wall_ns) except -1
