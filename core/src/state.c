/*
 * State in and out: see state.h. Entered by the thread that holds a pause, or that applies records; nothing here is
 * touched by a shard's thread meanwhile.
 */
#include <bitactor/shard.h>
#include <bitactor/state.h>
#include <string.h>

/* --- records --- */

static int beat(ba_engine *engine, uint64_t timeout_ns) {
  uint64_t position;
  if (!engine->ring.needs_wall) return BA_OK;
  int result = ba_engine_pause(engine, UINT64_MAX, timeout_ns, &position);
  if (result != BA_OK) return result;
  pthread_mutex_lock(&engine->ring.lock);
  bool closed = engine->ring.closed;
  uint64_t wall = engine->ring.wall = ba_step_ring_wall(&engine->ring);
  pthread_mutex_unlock(&engine->ring.lock);
  for (uint32_t s = 0; s < engine->shard_count && !closed; s++) ba_shard_beat(&engine->shards[s], wall);
  ba_engine_resume(engine);
  return closed ? BA_CLOSED : BA_OK;
}

/* Before the first step of several is sent; one step is looked at when it is. */
static bool all_in_lane(const ba_engine *engine, const ba_signal *signals, uint64_t n, uint32_t *bad) {
  for (uint64_t i = 0; i < n && n > BA_FRAME_SIGNALS && engine->lanes > 1; i++) {
    if (ba_in_lane(engine, ba_partition(signals[i].key))) continue;
    *bad = (uint32_t)i;
    return false;
  }
  return true;
}

int ba_engine_apply(ba_engine *engine, const ba_signal *signals, uint64_t n, uint64_t wall_ns, uint64_t timeout_ns,
                    uint64_t *done, uint32_t *bad) {
  if (*done == 0 && !all_in_lane(engine, signals, n, bad)) return BA_WRONG_LANE;
  ba_engine_set_wall(engine, wall_ns);
  if (n == 0) return beat(engine, timeout_ns);
  while (*done < n) {
    uint64_t left = n - *done;
    uint32_t step = left < BA_FRAME_SIGNALS ? (uint32_t)left : BA_FRAME_SIGNALS;
    int result = ba_engine_send(engine, signals + *done, step, BA_FULL_WAIT, timeout_ns, bad);
    if (result != BA_OK) return result;
    *done += step;
  }
  return BA_OK;
}

/* --- out --- */

static ba_store *store_of(const ba_engine *engine, uint32_t actor, unsigned partition) {
  return engine->shards[ba_owner_of(engine, partition)].actors[actor].store;
}

static void count_rows(const ba_engine *engine, uint32_t actor, ba_actor_state *out) {
  out->rows = 0;
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    out->counts[p] = ba_store_count(store_of(engine, actor, p), p);
    out->rows += out->counts[p];
  }
}

static void copy_rows(const ba_engine *engine, uint32_t actor, const ba_actor_state *out) {
  uint32_t *orders[BA_PARTITIONS] = {0}, *ticks[BA_PARTITIONS] = {0};
  const bool expires = engine->specs[actor].idle_ns != 0;
  uint64_t row = 0;
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    if (!out->counts[p]) continue; /* there may be no arrays at all */
    uint8_t *states = out->states + row * engine->specs[actor].stride;
    ba_store_copy(store_of(engine, actor, p), p, out->keys + row, states);
    if (expires) {
      orders[p] = out->touch_order + row;
      ticks[p] = out->touch_ticks + row;
    }
    row += out->counts[p];
  }
  if (!expires) return;
  /* Partitions of other shards are empty in a shard's store. */
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    ba_store_copy_touches(engine->shards[s].actors[actor].store, orders, ticks);
  }
}

static void add_counts(ba_shard_statistics *sum, const ba_shard_statistics *shard) {
  sum->processed += shard->processed;
  sum->emitted += shard->emitted;
  sum->emits_processed += shard->emits_processed;
  sum->emits_outward += shard->emits_outward;
  sum->emits_remote += shard->emits_remote;
  sum->expired += shard->expired;
  for (int d = 0; d < BA_DROPS; d++) {
    sum->dropped[d] += shard->dropped[d];
    sum->emits_dropped[d] += shard->emits_dropped[d];
  }
}

static void copy_counts(ba_engine *engine, ba_state *state) {
  const ba_shard_statistics *one = &engine->shards[0].now;
  state->counts =
      (ba_shard_statistics){.position = engine->shards[0].position, .steps = one->steps, .waves = one->waves};
  for (uint32_t s = 0; s < engine->shard_count; s++) add_counts(&state->counts, &engine->shards[s].now);
  ba_step_ring *ring = &engine->ring;
  pthread_mutex_lock(&ring->lock);
  state->wall_ns = ring->needs_wall ? ring->wall : ba_step_ring_wall(ring);
  state->accepted = ring->accepted - (ring->tail - state->counts.position); /* without those past the boundary */
  state->refused = ring->refused;
  state->dropped_full = ring->dropped;
  pthread_mutex_unlock(&ring->lock);
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    ba_actor_statistics of;
    ba_engine_actor_statistics(engine, a, &of);
    state->actors[a].signals = of.signals;
    state->actors[a].refused = of.refused;
    state->actors[a].raised = of.raised;
  }
  for (uint32_t k = 0; k < engine->kind_count; k++) {
    ba_kind_statistics of;
    ba_engine_kind_statistics(engine, k, &of);
    state->kind_signals[k] = of.signals;
  }
}

int ba_engine_export(ba_engine *engine, ba_state *state) {
  bool room = true;
  for (uint32_t s = 1; s < engine->shard_count; s++) {
    if (engine->shards[s].position != engine->shards[0].position) return BA_CLOSED;
  }
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    count_rows(engine, a, &state->actors[a]);
    room &= state->actors[a].rows <= state->actors[a].rows_max;
  }
  if (!room) return BA_FULL;
  for (uint32_t a = 0; a < engine->actor_count; a++) copy_rows(engine, a, &state->actors[a]);
  copy_counts(engine, state);
  return BA_OK;
}

/* --- in --- */

/* Positions and counters. In one piece under the ring's lock, so that statistics see all of it or nothing. */
static int load_counts(ba_engine *engine, const ba_state *state) {
  ba_step_ring *ring = &engine->ring;
  pthread_mutex_lock(&ring->lock);
  int result = ring->closed ? BA_CLOSED : ring->accepted || ring->steps ? BA_BAD_CONFIG : BA_OK;
  if (result == BA_OK) {
    uint64_t position = state->counts.position;
    ba_step_ring_restart(ring, position);
    ring->accepted = state->accepted;
    ring->refused = state->refused;
    ring->dropped = state->dropped_full;
    ring->steps = state->counts.steps;
    ring->wall = state->wall_ns;
    for (uint32_t s = 0; s < engine->shard_count; s++) {
      ba_shard *shard = &engine->shards[s];
      shard->now.steps = state->counts.steps;
      shard->now.waves = state->counts.waves;
      if (s == 0) add_counts(&shard->now, &state->counts);
      shard->position = position;
      shard->wall = state->wall_ns;
      ba_shard_publish(shard);
    }
  }
  pthread_mutex_unlock(&ring->lock);
  return result;
}

static int fill(ba_engine *engine, uint32_t actor, const ba_actor_state *in) {
  const bool expires = engine->specs[actor].idle_ns != 0;
  uint64_t row = 0;
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    const uint32_t n = in->counts[p];
    if (n == 0) continue;
    const uint8_t *states = in->states + row * engine->specs[actor].stride;
    const uint32_t *order = expires ? in->touch_order + row : NULL, *ticks = expires ? in->touch_ticks + row : NULL;
    if (ba_store_fill(store_of(engine, actor, p), p, n, in->keys + row, states, order, ticks) != 0) return BA_NO_MEMORY;
    row += n;
  }
  return BA_OK;
}

static bool fits_lane(const ba_engine *engine, const ba_state *state) {
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    for (uint32_t p = 0; p < BA_PARTITIONS; p++) {
      if (state->actors[a].counts[p] && !ba_in_lane(engine, (uint8_t)p)) return false;
    }
  }
  return true;
}

int ba_engine_import(ba_engine *engine, const ba_state *state) {
  if (!fits_lane(engine, state)) return BA_WRONG_LANE;
  int result = load_counts(engine, state);
  for (uint32_t a = 0; a < engine->actor_count && result == BA_OK; a++) {
    for (uint32_t s = 0; s < engine->shard_count; s++) {
      ba_actor *actor = &engine->shards[s].actors[a];
      if (!actor->tick_ns) continue;
      actor->tick = (uint32_t)(state->wall_ns / actor->tick_ns);
      actor->expiring = true; /* due ones may be left; to look in vain changes nothing */
    }
    ba_actor *first = &engine->shards[0].actors[a];
    /* relaxed, here and below: figures for people. */
    ba_store_relaxed(&first->imported, state->actors[a].signals);
    ba_store_relaxed(&first->signals, state->actors[a].signals);
    ba_store_relaxed(&first->refused, state->actors[a].refused);
    ba_store_relaxed(&first->raised, state->actors[a].raised);
    result = fill(engine, a, &state->actors[a]);
  }
  if (result != BA_OK) return result;
  for (uint32_t k = 0; k < engine->kind_count; k++) {
    ba_store_relaxed(&engine->shards[0].kinds[k + 1].signals, state->kind_signals[k]);
  }
  for (uint32_t s = 0; s < engine->shard_count; s++) ba_shard_count_keys(&engine->shards[s]);
  for (ba_subscription *of = engine->subscriptions; of; of = of->next) {
    for (uint32_t q = 0; q < of->queues; q++) ba_outputs_advance(of, q, (ba_output_key){state->counts.position, 0});
  }
  return BA_OK;
}

/* --- erasing --- */

int ba_engine_erase(ba_engine *engine, uint64_t key, uint32_t *held) {
  ba_shard *shard = &engine->shards[ba_owner_of(engine, ba_partition(key))];
  pthread_mutex_lock(&engine->ring.lock);
  bool closed = engine->ring.closed;
  pthread_mutex_unlock(&engine->ring.lock);
  *held = 0;
  for (uint32_t a = 0; a < engine->actor_count && !closed; a++) {
    ba_actor *actor = &shard->actors[a];
    *held += ba_store_find(actor->store, key, actor->tick) != BA_SLOT_NONE;
    (void)ba_store_remove(actor->store, key); /* one that is due and still there goes too */
  }
  if (!closed) ba_shard_count_keys(shard);
  return closed ? BA_CLOSED : BA_OK;
}
