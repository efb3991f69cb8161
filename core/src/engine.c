/*
 * The engine's face: admission, flush, reading, closing, statistics. build.c makes one, pause.c pauses it, subscribe.c
 * has its subscriptions.
 *
 * Locks, in the order in which they nest: turn (inline: who holds it handles steps), subscriptions_lock, ring.lock.
 * None but turn, by the holder of an inline engine's pause, is held while a thread waits.
 */
#include <bitactor/shard.h>
#include <string.h>

/* --- admission --- */

static bool all_in_lane(const ba_engine *engine, const uint8_t *parts, uint32_t n) {
  if (engine->lanes == 1) return true;
  uint8_t other = 0;
  for (uint32_t i = 0; i < n; i++) other |= (uint8_t)(parts[i] ^ engine->lane);
  return (other & (engine->lanes - 1)) == 0;
}

/* A look at a step on its way in: partitions, whether all is of one kind, and whether all may come in. Only steps of
 * several kinds and bad input are looked at again. */
static int study(const ba_engine *engine, const ba_signal *signals, uint32_t n, uint8_t *parts, bool *uniform,
                 uint32_t *bad) {
  uint32_t differs = ba_survey(signals, n, parts);
  *uniform = (differs & 0xffff) == 0;
  bool good = ((differs >> 16 | signals[0].flags) & (uint32_t)~BA_FLAGS_KNOWN) == 0;
  good &= engine->kind_index[signals[0].kind] != 0;
  for (uint32_t i = 1; i < n && !*uniform; i++) good &= engine->kind_index[signals[i].kind] != 0;
  good &= all_in_lane(engine, parts, n);
  for (uint32_t i = 0; i < n && !good; i++) {
    *bad = i;
    if (!engine->kind_index[signals[i].kind]) return BA_BAD_KIND;
    if (signals[i].flags & ~BA_FLAGS_KNOWN) return BA_BAD_FLAGS;
    if (!ba_in_lane(engine, parts[i])) return BA_WRONG_LANE;
  }
  return BA_OK;
}

static int send_inline(ba_engine *engine, const ba_signal *signals, const uint8_t *parts, uint32_t n, bool uniform,
                       enum ba_full full) {
  uint64_t position, wall;
  pthread_mutex_lock(&engine->turn);
  int result = BA_OK;
  for (ba_subscription *s = engine->subscriptions; s && result == BA_OK; s = s->next) {
    if (ba_outputs_full(s)) result = BA_FULL;
  }
  if (result == BA_OK) {
    result = ba_step_ring_admit(&engine->ring, n, &position, &wall);
  } else {
    ba_step_ring_turn_away(&engine->ring, n, full);
  }
  if (result == BA_OK) ba_shard_step(&engine->shards[0], signals, parts, n, uniform, wall);
  pthread_mutex_unlock(&engine->turn);
  return result;
}

int ba_engine_send(ba_engine *engine, const ba_signal *signals, uint32_t n, enum ba_full full, uint64_t timeout_ns,
                   uint32_t *bad) {
  uint8_t parts[BA_FRAME_SIGNALS];
  if (ba_inside == engine) return BA_IN_ACTOR;
  if (n == 0 || n > BA_FRAME_SIGNALS) return n ? BA_BAD_CONFIG : BA_OK;
  bool uniform;
  int result = study(engine, signals, n, parts, &uniform, bad);
  if (result != BA_OK) return result;
  if (engine->inline_mode) return send_inline(engine, signals, parts, n, uniform, full);
  uint64_t position, wall;
  result = ba_step_ring_claim(&engine->ring, n, full, timeout_ns, &position, &wall);
  if (result == BA_OK) ba_step_ring_write(&engine->ring, position, wall, signals, parts, n, uniform);
  return result;
}

void ba_engine_set_wall(ba_engine *engine, uint64_t wall_ns) {
  ba_store_relaxed(&engine->ring.manual_wall, wall_ns); /* relaxed: a clock; see wall_now */
}

uint64_t ba_engine_tail(ba_engine *engine) {
  pthread_mutex_lock(&engine->ring.lock);
  uint64_t tail = engine->ring.tail;
  pthread_mutex_unlock(&engine->ring.lock);
  return tail;
}

int ba_engine_wait_handled(ba_engine *engine, uint64_t position, uint64_t timeout_ns) {
  if (ba_inside == engine) return BA_IN_ACTOR;
  if (!engine->inline_mode) return ba_step_ring_wait_passed(&engine->ring, position, timeout_ns);
  /* What was admitted is handled before its sender lets go of the turn. */
  pthread_mutex_lock(&engine->turn);
  pthread_mutex_unlock(&engine->turn);
  return BA_OK;
}

int ba_engine_flush(ba_engine *engine, uint64_t timeout_ns) {
  return ba_engine_wait_handled(engine, ba_engine_tail(engine), timeout_ns);
}

/* --- reading, while what is read stands still --- */

uint64_t ba_engine_owner_mask(const ba_engine *engine, uint64_t key) {
  return UINT64_C(1) << ba_owner_of(engine, ba_partition(key));
}

static ba_actor *actor_at(ba_engine *engine, uint32_t actor, unsigned partition) {
  return &engine->shards[ba_owner_of(engine, partition)].actors[actor];
}

const uint8_t *ba_engine_find(ba_engine *engine, uint32_t actor, uint64_t key) {
  ba_actor *of = actor_at(engine, actor, ba_partition(key));
  uint32_t slot = ba_store_find(of->store, key, of->tick);
  if (slot == BA_SLOT_NONE) return NULL;
  return ba_store_states(of->store) + (size_t)slot * of->spec->stride;
}

uint64_t ba_engine_count(ba_engine *engine, uint32_t actor) {
  uint64_t count = 0;
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    ba_actor *of = actor_at(engine, actor, p);
    uint32_t n = ba_store_count(of->store, p);
    if (!of->tick_ns) {
      count += n;
      continue;
    }
    for (uint32_t i = 0; i < n; i++) count += !ba_store_due(of->store, ba_store_slot_at(of->store, p, i), of->tick);
  }
  return count;
}

uint64_t ba_engine_rows(ba_engine *engine, uint32_t actor, uint64_t *keys, uint32_t n, const uint32_t *offsets,
                        const uint32_t *bytes, uint8_t *const *columns) {
  uint64_t row = 0;
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    ba_actor *of = actor_at(engine, actor, p);
    const uint8_t *states = ba_store_states(of->store);
    uint32_t count = ba_store_count(of->store, p);
    for (uint32_t i = 0; i < count; i++) {
      uint32_t slot = ba_store_slot_at(of->store, p, i);
      if (ba_store_due(of->store, slot, of->tick)) continue;
      const uint8_t *state = states + (size_t)slot * of->spec->stride;
      keys[row] = ba_store_key(of->store, slot);
      for (uint32_t c = 0; c < n; c++) memcpy(columns[c] + row * bytes[c], state + offsets[c], bytes[c]);
      row++;
    }
  }
  return row;
}

/* --- closing --- */

int ba_engine_close(ba_engine *engine, bool discard) {
  if (ba_inside == engine) return BA_IN_ACTOR;
  if (engine->closed || !engine->has_ring) return BA_OK;
  engine->closed = true;
  if (discard) ba_store_seq_cst(&engine->discard, 1);
  pthread_mutex_lock(&engine->turn); /* inline: between steps */
  pthread_mutex_lock(&engine->ring.lock);
  engine->ring.closed = true;
  pthread_mutex_unlock(&engine->ring.lock);
  pthread_mutex_unlock(&engine->turn);
  ba_store_seq_cst(&engine->closing, 1); /* seq_cst: pairs with the loads in shard.c and outputs.c */
  ba_wake(&engine->ring.news);
  ba_wake(&engine->ring.room);
  pthread_mutex_lock(&engine->subscriptions_lock);
  for (ba_subscription *s = engine->subscriptions; s; s = s->next) ba_wake(&s->room);
  pthread_mutex_unlock(&engine->subscriptions_lock);
  for (uint32_t s = 0; s < engine->shards_made && !engine->inline_mode; s++) {
    if (engine->shards[s].started) pthread_join(engine->shards[s].thread, NULL);
  }
  ba_store_seq_cst(&engine->ring.ended, 1); /* seq_cst: pairs with the load in ba_step_ring_wait_passed */
  ba_wake(&engine->ring.room);
  pthread_mutex_lock(&engine->subscriptions_lock);
  engine->shards_ended = true;
  for (ba_subscription *s = engine->subscriptions; s; s = s->next) {
    ba_store_seq_cst(&s->ended, 1); /* seq_cst: pairs with the load in ba_subscription_read; outputs come before it */
    ba_outputs_notify(s);
  }
  pthread_mutex_unlock(&engine->subscriptions_lock);
  return BA_OK;
}

/* --- statistics --- */

int ba_engine_statistics(ba_engine *engine, ba_statistics *total, ba_shard_statistics *shards) {
  if (ba_inside == engine) return BA_IN_ACTOR;
  ba_step_ring *ring = &engine->ring;
  pthread_mutex_lock(&engine->turn); /* inline: between steps */
  /* A shard counts its keys when it has nothing to do; an inline engine has no such time. */
  if (engine->inline_mode) ba_shard_count_keys(&engine->shards[0]);
  pthread_mutex_lock(&ring->lock); /* no step is admitted meanwhile, and no slot is reused */
  *total = (ba_statistics){.accepted = ring->accepted,
                           .refused = ring->refused,
                           .dropped_full = ring->dropped,
                           .position = ring->tail,
                           .steps = ring->steps,
                           .send_waits = ring->waits,
                           .ring_signals = engine->inline_mode ? 0 : ring->mask + 1,
                           .ring_used = engine->inline_mode ? 0 : ba_step_ring_used(ring),
                           .shards = engine->inline_mode ? 0 : engine->shard_count};
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    ba_shard_read_published(&engine->shards[s], &shards[s]);
    if (engine->inline_mode) continue;
    shards[s].queued = ba_step_ring_count(ring, shards[s].position, engine->shards[s].owners, (uint8_t)s);
  }
  pthread_mutex_unlock(&ring->lock);
  pthread_mutex_unlock(&engine->turn);
  return BA_OK;
}

/* relaxed, in both functions below: figures for people, each whole. */
void ba_engine_actor_statistics(ba_engine *engine, uint32_t actor, ba_actor_statistics *out) {
  memset(out, 0, sizeof *out);
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    ba_actor *of = &engine->shards[s].actors[actor];
    uint64_t signals = ba_load_relaxed(&of->signals);
    out->signals += signals;
    out->timed += signals - ba_load_relaxed(&of->imported);
    out->refused += ba_load_relaxed(&of->refused);
    out->ticks += ba_load_relaxed(&of->ticks);
    out->exceeded += ba_load_relaxed(&of->exceeded);
    out->raised += ba_load_relaxed(&of->raised);
    out->keys += ba_load_relaxed(&of->keys);
    out->key_bytes += ba_load_relaxed(&of->key_bytes);
    for (uint32_t b = 0; b < BA_HISTOGRAM_BUCKETS; b++) out->histogram[b] += ba_load_relaxed(&of->histogram[b]);
  }
}

void ba_engine_kind_statistics(ba_engine *engine, uint32_t kind_index, ba_kind_statistics *out) {
  memset(out, 0, sizeof *out);
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    ba_kind_counts *of = &engine->shards[s].kinds[kind_index + 1];
    out->signals += ba_load_relaxed(&of->signals);
    for (uint32_t b = 0; b < BA_HISTOGRAM_BUCKETS; b++) out->histogram[b] += ba_load_relaxed(&of->histogram[b]);
  }
}

uint32_t ba_engine_dead_letters(ba_engine *engine, ba_dead_letter *out, uint32_t max) {
  uint32_t n = 0;
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    ba_shard *shard = &engine->shards[s];
    pthread_mutex_lock(&shard->letters_lock);
    while (n < max && shard->letters_n) {
      out[n++] = shard->letters[shard->letters_first];
      shard->letters_first = (shard->letters_first + 1) % BA_DEAD_LETTERS;
      shard->letters_n--;
    }
    pthread_mutex_unlock(&shard->letters_lock);
  }
  return n;
}
