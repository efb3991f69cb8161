/* The step ring: see step_ring.h for who enters and what always holds. */
#include <bitactor/alloc.h>
#include <bitactor/step_ring.h>
#include <string.h>
#include <time.h>

static uint64_t mark_of(const ba_step_ring *ring, uint64_t position, uint32_t n, bool last, bool uniform) {
  uint64_t lap = (position >> ring->bits) & UINT64_C(0xffffffffffff);
  return lap << 16 | (uint64_t)uniform << 15 | (uint64_t)last << 14 | n;
}

int ba_step_ring_init(ba_step_ring *ring, uint32_t capacity, uint32_t readers, uint64_t position) {
  memset(ring, 0, sizeof *ring);
  ring->bits = (unsigned)__builtin_ctz(capacity);
  ring->mask = capacity - 1;
  ring->readers = readers;
  ba_wait_point_init(&ring->news, false, false);
  ba_wait_point_init(&ring->room, false, false);
  pthread_mutex_init(&ring->lock, NULL);
  ring->signals = ba_alloc_aligned(capacity * sizeof *ring->signals, BA_CACHE_LINE);
  ring->parts = ba_alloc_aligned(capacity, BA_CACHE_LINE);
  ring->walls = ba_alloc_aligned(capacity * sizeof *ring->walls, BA_CACHE_LINE);
  ring->marks = ba_alloc_aligned(capacity * sizeof *ring->marks, BA_CACHE_LINE);
  ring->heads = ba_alloc_aligned(readers * sizeof *ring->heads, BA_CACHE_LINE);
  if (!ring->signals || !ring->parts || !ring->walls || !ring->marks || !ring->heads) {
    ba_step_ring_destroy(ring);
    return BA_NO_MEMORY;
  }
  ba_step_ring_restart(ring, position);
  return BA_OK;
}

void ba_step_ring_restart(ba_step_ring *ring, uint64_t position) {
  ring->tail = ring->head_seen = position;
  /* No slot carries the lap in which it is next written: the first lap is that of position or the one after it. */
  for (uint64_t i = 0; i <= ring->mask; i++) {
    /* relaxed: senders come through the lock, readers through what lets them go on (or their creation). */
    ba_store_relaxed(&ring->marks[i], mark_of(ring, position - ring->mask - 1, 0, false, false));
  }
  /* relaxed: as above. */
  for (uint32_t r = 0; r < ring->readers; r++) ba_store_relaxed(&ring->heads[r].position, position);
}

void ba_step_ring_destroy(ba_step_ring *ring) {
  ba_free(ring->signals);
  ba_free(ring->parts);
  ba_free(ring->walls);
  ba_free((void *)ring->marks);
  ba_free(ring->heads);
  pthread_mutex_destroy(&ring->lock);
}

static uint64_t min_head(ba_step_ring *ring) {
  uint64_t oldest = 0; /* distance behind the tail: positions wrap, distances do not */
  for (uint32_t r = 0; r < ring->readers; r++) {
    /* seq_cst: pairs with the store in ba_step_ring_release; that reader has done with the slots before its head. */
    uint64_t behind = ring->tail - ba_load_seq_cst(&ring->heads[r].position);
    if (behind > oldest) oldest = behind;
  }
  return ring->tail - oldest;
}

static bool has_room(ba_step_ring *ring, uint32_t n) {
  if (ring->tail - ring->head_seen + n <= ring->mask + 1) return true;
  ring->head_seen = min_head(ring);
  return ring->tail - ring->head_seen + n <= ring->mask + 1;
}

static uint64_t wall_now(ba_step_ring *ring) {
  /* relaxed: a clock reading; the lock orders steps, and no other data is published through it. */
  if (ring->manual_clock) return ba_load_relaxed(&ring->manual_wall);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

uint64_t ba_step_ring_wall(ba_step_ring *ring) {
  const uint64_t now = wall_now(ring);
  return now > ring->wall ? now : ring->wall;
}

/* Waits, without the lock, until there is room for n or the ring is closed; takes the lock. False: time is over. */
static bool lock_with_room(ba_step_ring *ring, uint32_t n, uint64_t timeout_ns) {
  ba_waiter waiter = ba_waiter_begin_picky(&ring->room, timeout_ns);
  bool done;
  for (;;) {
    pthread_mutex_lock(&ring->lock);
    done = ring->closed || has_room(ring, n);
    if (done) break;
    pthread_mutex_unlock(&ring->lock);
    if (!ba_waiter_step(&waiter)) break;
  }
  ba_waiter_end(&waiter);
  return done;
}

static void turn_away(ba_step_ring *ring, uint32_t n, enum ba_full full) {
  if (full == BA_FULL_DROP) {
    ring->accepted += n;
    ring->dropped += n;
  } else {
    ring->refused += n;
  }
}

void ba_step_ring_turn_away(ba_step_ring *ring, uint32_t n, enum ba_full full) {
  pthread_mutex_lock(&ring->lock);
  turn_away(ring, n, full);
  pthread_mutex_unlock(&ring->lock);
}

/* The step's place in the one order. Holds the lock; there is room. */
static int admit(ba_step_ring *ring, uint32_t n, uint64_t *position, uint64_t *wall) {
  if (ring->closed) return BA_CLOSED;
  if (ring->needs_wall) ring->wall = ba_step_ring_wall(ring);
  *position = ring->tail;
  *wall = ring->wall;
  ring->tail += n;
  ring->accepted += n;
  ring->steps++;
  return BA_OK;
}

int ba_step_ring_admit(ba_step_ring *ring, uint32_t n, uint64_t *position, uint64_t *wall) {
  pthread_mutex_lock(&ring->lock);
  int result = admit(ring, n, position, wall);
  pthread_mutex_unlock(&ring->lock);
  return result;
}

int ba_step_ring_claim(ba_step_ring *ring, uint32_t n, enum ba_full full, uint64_t timeout_ns, uint64_t *position,
                       uint64_t *wall) {
  pthread_mutex_lock(&ring->lock);
  if (!ring->closed && !has_room(ring, n)) {
    if (full == BA_FULL_WAIT) {
      ring->waits++;
    } else {
      turn_away(ring, n, full);
    }
    pthread_mutex_unlock(&ring->lock);
    if (full != BA_FULL_WAIT) return BA_FULL;
    if (!lock_with_room(ring, n, timeout_ns)) return BA_TIMEOUT;
  }
  int result = admit(ring, n, position, wall);
  pthread_mutex_unlock(&ring->lock);
  return result;
}

void ba_step_ring_write(ba_step_ring *ring, uint64_t position, uint64_t wall, const ba_signal *signals,
                        const uint8_t *parts, uint32_t n, bool uniform) {
  for (uint32_t done = 0; done < n;) {
    uint32_t block = n - done < BA_BLOCK_SIGNALS ? n - done : BA_BLOCK_SIGNALS;
    uint64_t at = (position + done) & ring->mask;
    uint32_t first = (uint32_t)(ring->mask + 1 - at); /* slots up to the end of the array */
    if (first > block) first = block;
    memcpy(ring->signals + at, signals + done, first * sizeof *signals);
    memcpy(ring->signals, signals + done + first, (block - first) * sizeof *signals);
    memcpy(ring->parts + at, parts + done, first);
    memcpy(ring->parts, parts + done + first, block - first);
    ring->walls[at] = wall;
    uint64_t mark = mark_of(ring, position + done, block, done + block == n, uniform);
    /* seq_cst: pairs with the load in ba_step_ring_ready. As a release it makes all of the block visible before its
     * mark (relaxed would let a reader see the mark and stale slots); as seq_cst it loses no wake-up (wait.h). */
    ba_store_seq_cst(&ring->marks[at], mark);
    ba_wake(&ring->news);
    done += block;
  }
}

static bool passed(ba_step_ring *ring, uint64_t position) {
  for (uint32_t r = 0; r < ring->readers; r++) {
    /* seq_cst: pairs with the store in ba_step_ring_release; what that reader did before its head is visible. */
    if ((int64_t)(position - ba_load_seq_cst(&ring->heads[r].position)) > 0) return false;
  }
  return true;
}

int ba_step_ring_wait_passed(ba_step_ring *ring, uint64_t position, uint64_t timeout_ns) {
  ba_waiter waiter = ba_waiter_begin_picky(&ring->room, timeout_ns);
  bool done, ended;
  do {
    ended = ba_load_seq_cst(&ring->ended); /* seq_cst: pairs with ba_engine_close; the heads below are the last ones */
    done = passed(ring, position);
  } while (!done && !ended && ba_waiter_step(&waiter));
  ba_waiter_end(&waiter);
  return done ? BA_OK : ended ? BA_CLOSED : BA_TIMEOUT;
}

uint64_t ba_step_ring_used(ba_step_ring *ring) { return ring->tail - min_head(ring); }

uint64_t ba_step_ring_count(ba_step_ring *ring, uint64_t from, const uint8_t *owners, uint8_t reader) {
  uint64_t count = 0;
  while (from != ring->tail) {
    ba_block block;
    /* A claimed block is published soon: its sender needs no lock for that. */
    while (!ba_step_ring_ready(ring, from, &block)) ba_pause();
    for (uint32_t i = 0; i < block.n; i++) count += owners[ring->parts[(from + i) & ring->mask]] == reader;
    from += block.n;
  }
  return count;
}
