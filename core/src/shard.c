/*
 * The shard's loop: wait for steps, handle them, publish how far it is.
 *
 * Two ways to read the ring. A stream (no feedback, no expiry, nobody reads the wall time): whatever blocks are there
 * are handled together; steps need not be told apart. Stepwise: one whole step at a time, because something happens
 * between steps: waves, expiry, another wall time.
 *
 * Invariants: position <= tail of the ring; published position <= position, both at ends of blocks.
 */
#include <bitactor/shard.h>
#include <bitactor/ticks.h>
#include <string.h>

enum { EXPIRE_MAX = 1024, KEYS_EVERY = 256 };

void ba_shard_dead_letter(ba_shard *shard, const ba_batch *batch, uint32_t i, uint32_t actor, uint32_t error,
                          enum ba_drop drop) {
  bool later = batch->wave != 0;
  uint64_t ordinal = batch->ordinals ? batch->ordinals[i] : batch->ordinal + i;
  ba_dead_letter letter = {.signal = batch->signals[i],
                           .position = batch->position + (later ? 0 : ordinal),
                           .actor = actor,
                           .error = error,
                           .drop = drop,
                           .wave = batch->wave};
  pthread_mutex_lock(&shard->letters_lock);
  shard->letters[(shard->letters_first + shard->letters_n) % BA_DEAD_LETTERS] = letter;
  if (shard->letters_n < BA_DEAD_LETTERS) {
    shard->letters_n++;
  } else {
    shard->letters_first = (shard->letters_first + 1) % BA_DEAD_LETTERS;
  }
  pthread_mutex_unlock(&shard->letters_lock);
}

/* --- counters, published at step boundaries --- */

void ba_shard_publish(ba_shard *shard) {
  shard->now.position = shard->position;
  uint64_t sequence = ba_load_relaxed(&shard->published_sequence); /* relaxed: only this shard writes it */
  ba_store_relaxed(&shard->published_sequence, sequence + 1);
  const uint64_t *words = (const uint64_t *)&shard->now;
  for (size_t i = 0; i < sizeof shard->now / sizeof *words; i++) {
    /* release: not before the odd sequence above; pairs with the acquire loads of ba_shard_read_published. */
    ba_store_release(&shard->published[i], words[i]);
  }
  ba_store_release(&shard->published_sequence, sequence + 2); /* release: after all of them */
}

void ba_shard_read_published(ba_shard *shard, ba_shard_statistics *out) {
  uint64_t *words = (uint64_t *)out;
  for (;;) {
    uint64_t first = ba_load_acquire(&shard->published_sequence); /* acquire: the loads below come after it */
    for (size_t i = 0; i < sizeof *out / sizeof *words; i++) {
      words[i] = ba_load_acquire(&shard->published[i]); /* acquire: the load of the sequence below comes after it */
    }
    if (!(first & 1) && ba_load_relaxed(&shard->published_sequence) == first) return;
    ba_pause();
  }
}

void ba_shard_count_keys(ba_shard *shard) {
  for (uint32_t a = 0; a < shard->engine->actor_count; a++) {
    ba_actor *actor = &shard->actors[a];
    uint64_t keys = 0;
    for (unsigned p = 0; p < BA_PARTITIONS; p++) keys += ba_store_count(actor->store, p);
    ba_store_relaxed(&actor->keys, keys); /* relaxed: a figure for people */
    ba_store_relaxed(&actor->key_bytes, ba_store_bytes(actor->store));
  }
}

/* --- one step --- */

/* Wall time and expiry. An actor's instances expire at the first step of a tick, EXPIRE_MAX of each partition at most;
 * what is left goes at the following steps. Due instances are as good as absent meanwhile. */
static void begin_step(ba_shard *shard, uint64_t wall) {
  shard->wall = wall;
  for (uint32_t a = 0; a < shard->engine->actor_count; a++) {
    ba_actor *actor = &shard->actors[a];
    if (!actor->tick_ns) continue;
    uint32_t tick = (uint32_t)(wall / actor->tick_ns); /* wraps; differences count */
    if (tick == actor->tick && !actor->expiring) continue;
    actor->tick = tick;
    actor->expiring = false;
    for (unsigned p = 0; p < BA_PARTITIONS; p++) {
      if (shard->owners[p] != shard->index) continue;
      uint32_t gone = ba_store_expire(actor->store, p, tick, EXPIRE_MAX);
      shard->now.expired += gone;
      if (gone == EXPIRE_MAX) actor->expiring = true;
    }
  }
}

void ba_shard_beat(ba_shard *shard, uint64_t wall) {
  begin_step(shard, wall);
  ba_shard_count_keys(shard);
  ba_shard_publish(shard);
}

/* Signals at signals[0..n), ordinals from `ordinal`, in batches. */
static void handle(ba_shard *shard, const ba_signal *signals, const uint8_t *parts, uint32_t n, uint32_t ordinal,
                   uint64_t position, bool uniform) {
  const ba_engine *engine = shard->engine;
  for (uint32_t at = 0; at < n;) {
    uint32_t m = n - at < engine->chunk ? n - at : engine->chunk;
    ba_batch batch = {.signals = signals + at,
                      .parts = parts + at,
                      .n = m,
                      .ordinal = engine->feedback ? ordinal + at : 0,
                      .position = engine->feedback ? position : position + ordinal + at,
                      .uniform = uniform,
                      .mine = engine->shard_count == 1};
    if (engine->feedback) {
      ba_dispatch(shard, &batch);
    } else {
      if (engine->emitters) ba_wave_begin(shard, m);
      ba_dispatch(shard, &batch);
      if (engine->emitters) ba_wave_deliver_stream(shard, &batch);
    }
    at += m;
  }
}

static void end_step(ba_shard *shard, uint64_t position, uint64_t begun) {
  shard->position = position;
  for (ba_subscription *s = shard->engine->subscriptions; s; s = s->next) {
    ba_outputs_advance(s, shard->index, (ba_output_key){position, 0});
    ba_outputs_notify(s);
  }
  if (shard->rounds++ % KEYS_EVERY == 0) ba_shard_count_keys(shard);
  shard->now.step_ticks += ba_ticks() - begun;
  ba_shard_publish(shard);
}

void ba_shard_step(ba_shard *shard, const ba_signal *signals, const uint8_t *parts, uint32_t n, bool uniform,
                   uint64_t wall) {
  uint64_t begun = ba_ticks();
  begin_step(shard, wall);
  if (shard->engine->feedback) ba_wave_begin(shard, n);
  handle(shard, signals, parts, n, 0, shard->position, uniform);
  if (shard->engine->feedback) ba_waves_run(shard, shard->position, n);
  shard->now.steps++;
  end_step(shard, shard->position + n, begun);
}

/* --- from the ring --- */

/* Slots [position, position + n), in two pieces where they wrap. */
static void handle_slots(ba_shard *shard, uint64_t begin, uint32_t offset, uint32_t n, bool uniform) {
  ba_step_ring *ring = &shard->engine->ring;
  uint64_t at = (begin + offset) & ring->mask;
  uint32_t first = ring->mask + 1 - at < n ? (uint32_t)(ring->mask + 1 - at) : n;
  handle(shard, ring->signals + at, ring->parts + at, first, offset, begin, uniform);
  if (first < n) handle(shard, ring->signals, ring->parts, n - first, offset + first, begin, uniform);
}

typedef struct ahead {
  uint32_t n;     /* signals */
  uint32_t steps; /* steps that end among them */
  bool uniform;
} ahead;

/* Blocks that are there: about BA_CHUNK signals, `max` at most. Stepwise: exactly one step, waiting for its later
 * blocks, which their sender is writing. */
static ahead look_ahead(ba_shard *shard, uint64_t max) {
  ba_step_ring *ring = &shard->engine->ring;
  bool stepwise = shard->engine->stepwise;
  ahead seen = {.uniform = true};
  uint16_t kind = 0;
  while (seen.n < max && (stepwise ? seen.steps == 0 : seen.n < BA_CHUNK)) {
    ba_block block;
    if (!ba_step_ring_ready(ring, shard->position + seen.n, &block)) {
      if (!stepwise || seen.n == 0) break;
      ba_pause();
      continue;
    }
    uint16_t block_kind = ring->signals[(shard->position + seen.n) & ring->mask].kind;
    if (seen.n == 0) kind = block_kind;
    seen.uniform = seen.uniform && block.uniform && block_kind == kind;
    seen.n += block.n;
    seen.steps += block.last;
  }
  return seen;
}

static void handle_ahead(ba_shard *shard, ahead seen) {
  ba_engine *engine = shard->engine;
  uint64_t begin = shard->position, begun = ba_ticks();
  if (engine->stepwise) {
    begin_step(shard, engine->ring.walls[begin & engine->ring.mask]);
    if (engine->feedback) ba_wave_begin(shard, seen.n);
  }
  handle_slots(shard, begin, 0, seen.n, seen.uniform);
  if (engine->feedback) ba_waves_run(shard, begin, seen.n);
  shard->now.steps += seen.steps;
  end_step(shard, begin + seen.n, begun);
  ba_step_ring_release(&engine->ring, shard->index, begin + seen.n);
}

/* --- pauses, idleness, the end --- */

typedef struct standing {
  uint64_t generation; /* newest pause that was obeyed or is not for us */
} standing;

/* Position up to which the shard may go; stands still here if the pause is due now. */
static uint64_t obey_pause(ba_shard *shard, standing *stand) {
  ba_engine *engine = shard->engine;
  uint64_t anywhere = shard->position + UINT64_MAX / 2;
  /* seq_cst: pairs with the store in ba_engine_pause_begin; mask and position are visible, and no wake-up is lost. */
  uint64_t generation = ba_load_seq_cst(&engine->pause_generation);
  if (generation == stand->generation) return anywhere;
  bool over = ba_load_seq_cst(&engine->resume_generation) >= generation;
  /* relaxed, twice: published by the generation; those of a later pause do no harm (shard.h). */
  if (over || !(ba_load_relaxed(&engine->pause_mask) >> shard->index & 1)) {
    stand->generation = generation;
    return anywhere;
  }
  uint64_t boundary = ba_load_relaxed(&engine->pause_position);
  if (shard->position != boundary) return boundary;
  ba_shard_count_keys(shard);
  ba_store_seq_cst(&shard->stands, generation); /* seq_cst: pairs with the load in all_stand */
  ba_wake(&engine->paused_news);
  ba_waiter waiter = ba_waiter_begin_picky(&engine->resumed_news, BA_WAIT_FOREVER);
  while (ba_load_seq_cst(&engine->resume_generation) < generation && ba_waiter_step(&waiter)) {
  }
  ba_waiter_end(&waiter);
  stand->generation = generation;
  return shard->position + UINT64_MAX / 2; /* an import may have moved it */
}

static bool something_to_do(ba_shard *shard, const standing *stand) {
  ba_engine *engine = shard->engine;
  ba_block block;
  return ba_step_ring_ready(&engine->ring, shard->position, &block) ||
         ba_load_seq_cst(&engine->pause_generation) != stand->generation || ba_load_seq_cst(&engine->closing);
}

static void idle(ba_shard *shard, const standing *stand) {
  ba_engine *engine = shard->engine;
  uint64_t begun = ba_ticks();
  ba_shard_count_keys(shard);
  ba_waiter waiter = ba_waiter_begin_picky(&engine->ring.news, BA_WAIT_FOREVER);
  while (!something_to_do(shard, stand) && ba_waiter_step(&waiter)) {
  }
  bool parked = ba_waiter_was_parked(&waiter);
  ba_waiter_end(&waiter);
  uint64_t ticks = ba_ticks() - begun;
  shard->now.idle_ticks += ticks;
  if (parked) shard->now.parked_ticks += ticks;
}

static bool at_end(ba_shard *shard) {
  ba_engine *engine = shard->engine;
  if (!ba_load_seq_cst(&engine->closing)) return false; /* seq_cst: pairs with ba_engine_close; no wake-up is lost */
  if (ba_load_seq_cst(&engine->discard) && !engine->feedback) return true; /* waves need every shard */
  pthread_mutex_lock(&engine->ring.lock); /* after closing nothing is claimed any more: the tail stands */
  bool end = engine->ring.tail == shard->position;
  pthread_mutex_unlock(&engine->ring.lock);
  return end;
}

void *ba_shard_main(void *argument) {
  ba_shard *shard = argument;
  standing stand = {0};
  while (!at_end(shard)) {
    /* Blocks are looked for before pauses: one that was claimed after a pause was set (both under the ring's lock) is
     * seen together with that pause, so no shard runs past the boundary where it has to stand still. */
    ahead seen = look_ahead(shard, UINT32_MAX);
    uint64_t limit = obey_pause(shard, &stand), room = limit - shard->position;
    if (seen.n > room) seen = look_ahead(shard, room);
    if (seen.n) {
      handle_ahead(shard, seen);
    } else if (room) {
      idle(shard, &stand);
    }
  }
  ba_store_seq_cst(&shard->stands, BA_ENDED); /* seq_cst: pairs with the load in all_stand */
  ba_wake(&shard->engine->paused_news);
  return NULL;
}
