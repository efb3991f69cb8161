/*
 * From a batch of signals to calls of handlers: choose, resolve, call, collect.
 *
 * choose:  one pass writes, for each actor, the indexes of the signals it handles (ascending, so every partition's
 *          signals keep their order); a batch of one kind whose signals are all ours skips the pass.
 * resolve: the store turns keys into slots, many at a time.
 * call:    one call of the compiled loop for each actor, again after a full emit buffer or a raise.
 * collect: emits go to waves.c; a signal that failed is counted once, by its first failure in order of actors.
 *
 * Entered by the shard's thread. Actor-major order inside a batch changes nothing: no state is shared by two actors.
 */
#include <assert.h>
#include <bitactor/shard.h>
#include <bitactor/ticks.h>
#include <string.h>

/* Signals resolved at once. The states of so many are still in the cache, and their pages known to the processor, when
 * the handler comes to them; with four times as many a third of the way is lost again. */
enum { PIECE = 512 };

_Thread_local const ba_engine *ba_inside;

static uint32_t histogram_bucket(uint64_t ticks) {
  /* Eight buckets an octave: the top four bits and the exponent. */
  if (ticks < 8) return (uint32_t)ticks;
  uint32_t exponent = 63 - (uint32_t)__builtin_clzll(ticks);
  uint32_t bucket = (exponent - 2) * 8 + (uint32_t)((ticks >> (exponent - 3)) & 7);
  return bucket < BA_HISTOGRAM_BUCKETS ? bucket : BA_HISTOGRAM_BUCKETS - 1;
}

uint64_t ba_histogram_floor(uint32_t bucket) {
  if (bucket < 8) return bucket;
  return (uint64_t)(8 + bucket % 8) << (bucket / 8 - 1);
}

static void fail(ba_shard *shard, const ba_batch *batch, uint32_t i, uint32_t actor, uint32_t error,
                 enum ba_drop drop) {
  if (!shard->any_failed) memset(shard->failed, 0, BA_CHUNK);
  shard->any_failed = true;
  if (!shard->failed[i]) shard->failed[i] = (uint8_t)(1 + drop);
  ba_shard_dead_letter(shard, batch, i, actor, error, drop);
}

/* Leaves out the signals that were refused an instance. Returns how many remain. */
static uint32_t without_refused(ba_shard *shard, const ba_batch *batch, uint32_t actor, const uint16_t *order,
                                uint32_t n, uint16_t *kept) {
  uint32_t m = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t slot = shard->slots[i];
    if (slot >= BA_SLOT_REFUSED) {
      fail(shard, batch, order[i], actor, 0, slot == BA_SLOT_KEY_CAP ? BA_DROP_KEY_CAP : BA_DROP_NO_MEMORY);
      continue;
    }
    kept[m] = order[i];
    shard->slots[m++] = slot;
  }
  return m;
}

static void account(ba_shard *shard, ba_actor *actor, const ba_batch *batch, const uint16_t *order, uint32_t handled,
                    uint64_t ticks, bool alone) {
  ba_count(&actor->ticks, ticks);
  if (actor->spec->tick_budget && ticks > actor->spec->tick_budget * handled) ba_count(&actor->exceeded, handled);
  if (!alone) return;
  uint32_t bucket = histogram_bucket(ticks);
  ba_count(&actor->histogram[bucket], 1);
  ba_count(&shard->kinds[shard->engine->kind_index[batch->signals[order[0]].kind]].histogram[bucket], 1);
}

static void call(ba_shard *shard, const ba_batch *batch, uint32_t index, const uint16_t *order, uint32_t n) {
  ba_actor *actor = &shard->actors[index];
  ba_ctx ctx = {.size = sizeof ctx, .emit_cap = BA_EMITS_MIN, .emits = shard->emit_buffer, .wall_ns = shard->wall};
  uint8_t *states = ba_store_states(actor->store);
  uint32_t at = 0;
  while (at < n) {
    bool alone = actor->sample == 0 || n - at == 1;
    uint32_t m = alone ? 1 : n - at;
    if (m > actor->sample && !alone) m = actor->sample;
    ctx.status = BA_FAILED;
    ctx.emit_n = 0;
    uint64_t begun = ba_ticks();
    uint32_t done = actor->spec->handler(&ctx, states, shard->slots + at, batch->signals, order + at, m);
    uint64_t ticks = ba_ticks() - begun;
    if (done > m) done = m; /* a handler of the C ABI that miscounts must not run us past the batch */
    if (ctx.emit_n) {
      uint64_t emits_begun = ba_ticks();
      ba_wave_collect(shard, batch, index, ctx.emits, ctx.emit_n < ctx.emit_cap ? ctx.emit_n : ctx.emit_cap);
      shard->now.emit_ticks += ba_ticks() - emits_begun;
    }
    bool stuck = ctx.status == BA_EMIT_FULL && done == 0; /* the buffer was empty, and too small all the same */
    bool raised = ctx.status == BA_RAISED || ctx.status > BA_RAISED || stuck || (ctx.status == BA_DONE && done < m);
    if (raised && done < m) {
      fail(shard, batch, order[at + done], index, ctx.status == BA_RAISED ? ctx.error : UINT32_MAX, BA_DROP_RAISED);
      ba_count(&actor->raised, 1);
      done++;
    }
    if (done) account(shard, actor, batch, order + at, done, ticks, alone);
    actor->sample = alone ? BA_TICK_SAMPLE - 1 : actor->sample - done;
    at += done;
  }
}

static void count_signals(ba_shard *shard, const ba_batch *batch, ba_actor *actor, const uint16_t *order, uint32_t n) {
  ba_count(&actor->signals, n);
  if (actor->spec->kind_count == 1) {
    ba_count(&shard->kinds[shard->engine->kind_index[actor->spec->kinds[0]]].signals, n);
    return;
  }
  for (uint32_t i = 0; i < n; i++) {
    ba_count(&shard->kinds[shard->engine->kind_index[batch->signals[order[i]].kind]].signals, 1);
  }
}

static void run_actor(ba_shard *shard, const ba_batch *batch, uint32_t index, const uint16_t *order, uint32_t n) {
  ba_actor *actor = &shard->actors[index];
  uint16_t kept[BA_CHUNK];
  const uint32_t at_once = ba_store_is_large(actor->store) ? PIECE : BA_CHUNK;
  for (uint32_t at = 0; at < n; at += at_once) {
    const uint16_t *piece = order + at;
    uint32_t m = n - at < at_once ? n - at : at_once;
    uint32_t refused =
        ba_store_resolve(actor->store, batch->signals, batch->parts, piece, m, actor->tick, shard->slots);
    if (refused) {
      m = without_refused(shard, batch, index, piece, m, kept);
      piece = kept;
    }
    ba_count(&actor->refused, refused);
    count_signals(shard, batch, actor, piece, m);
    call(shard, batch, index, piece, m);
  }
}

/* Appends the signals mine[0..n), or 0 to n - 1 if it is null, to the lists of their actors, which end at `ends`. */
static inline __attribute__((always_inline)) void list_signals(const ba_engine *engine, const ba_signal *signals,
                                                               const uint16_t *mine, uint32_t n, uint16_t **ends) {
  for (uint32_t j = 0; j < n; j++) {
    const uint32_t i = mine ? mine[j] : j;
    const ba_route *route = &engine->routes[engine->kind_index[signals[i].kind]];
    *ends[route->first]++ = (uint16_t)i;
    for (uint32_t k = 1; k < route->count; k++) *ends[route->actors[k]]++ = (uint16_t)i;
  }
}

/* Returns how many signals are ours. */
static uint32_t choose(ba_shard *shard, const ba_batch *batch) {
  const ba_engine *engine = shard->engine;
  const uint32_t lists = engine->actor_count + 1;
  uint16_t *ends[BA_ACTORS_MAX + 1];
  for (uint32_t a = 0; a < lists; a++) ends[a] = shard->order + (size_t)a * BA_CHUNK;
  uint32_t total = batch->n;
  if (batch->mine) {
    list_signals(engine, batch->signals, NULL, batch->n, ends);
  } else {
    uint16_t mine[BA_CHUNK];
    uint32_t n = 0;
    for (uint32_t i = 0; i < batch->n; i++) {
      mine[n] = (uint16_t)i;
      n += shard->owners[batch->parts[i]] == shard->index;
    }
    total = n;
    list_signals(engine, batch->signals, mine, n, ends);
  }
  for (uint32_t a = 0; a < lists; a++) shard->order_n[a] = (uint32_t)(ends[a] - (shard->order + (size_t)a * BA_CHUNK));
  return total;
}

/* All of one kind, all ours: every actor of the kind gets all of them. */
static void run_all(ba_shard *shard, const ba_batch *batch) {
  const ba_engine *engine = shard->engine;
  const ba_route *route = &engine->routes[engine->kind_index[batch->signals[0].kind]];
  shard->order_n[engine->actor_count] = route->count ? 0 : batch->n;
  for (uint32_t k = 0; k < route->count; k++) run_actor(shard, batch, route->actors[k], shard->every, batch->n);
}

static uint32_t run_chosen(ba_shard *shard, const ba_batch *batch) {
  const ba_engine *engine = shard->engine;
  const uint32_t total = choose(shard, batch);
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    if (shard->order_n[a]) run_actor(shard, batch, a, shard->order + (size_t)a * BA_CHUNK, shard->order_n[a]);
  }
  return total;
}

static void tally(ba_shard *shard, const ba_batch *batch, uint32_t total) {
  uint64_t *dropped = batch->wave ? shard->now.emits_dropped : shard->now.dropped;
  uint64_t *processed = batch->wave ? &shard->now.emits_processed : &shard->now.processed;
  uint32_t unhandled = shard->order_n[shard->engine->actor_count];
  dropped[BA_DROP_UNHANDLED] += unhandled;
  uint32_t good = total - unhandled;
  for (uint32_t i = 0; shard->any_failed && i < batch->n; i++) {
    if (!shard->failed[i]) continue;
    dropped[shard->failed[i] - 1]++;
    good--;
  }
  shard->any_failed = false;
  *processed += good;
}

void ba_dispatch(ba_shard *shard, const ba_batch *batch) {
  assert(batch->n <= BA_CHUNK);
  uint32_t total = batch->n;
  uint64_t begun = ba_ticks() - shard->now.emit_ticks; /* what collecting emits takes is not dispatch */
  const ba_engine *outside = ba_inside;
  ba_inside = shard->engine;
  if (batch->uniform && batch->mine) {
    run_all(shard, batch);
  } else {
    total = run_chosen(shard, batch);
  }
  ba_inside = outside;
  tally(shard, batch, total);
  shard->now.dispatch_ticks += ba_ticks() - shard->now.emit_ticks - begun;
}
