/*
 * Steps in waves: what the handlers of one wave emitted becomes the next wave, in one order for any number of shards.
 *
 * Order: every signal of a wave has an ordinal, 0 .. n-1, the same whoever handles it (in the first wave: its place in
 * the step). Handling counts the emits of each ordinal. After the barrier the prefix sums of these counts, added over
 * the shards (each ordinal is handled by one of them), give each emit its rank: emits sorted by (ordinal of the cause,
 * index among the cause's emits). The rank is the ordinal in the next wave. So one barrier a wave is all that shards
 * need of each other, and no sort looks at keys.
 *
 * Two sets of buffers take turns. A shard that leaves the barrier of wave w writes the other set; nobody reads that one
 * any more, because its readers had finished with it before they arrived at the barrier of wave w.
 *
 * Bound: a step in which actors feed each other delivers the first BA_STEP_EMITS_MAX emits in order of wave and rank,
 * and runs BA_WAVES_MAX waves; the rest is dropped and counted, the same for any number of shards. A shard keeps at
 * most four times that many entries of one wave (an emit may have one for an actor and one for readers): past that it
 * forgets those whose rank is past the bound for certain.
 *
 * Entered by the shards' threads.
 */
#include <bitactor/alloc.h>
#include <bitactor/shard.h>
#include <bitactor/ticks.h>
#include <string.h>

enum { ENTRIES_MAX = 4 * BA_STEP_EMITS_MAX };

/* Makes room for n items behind the pointer at `items`, keeping the first `kept`. False: no memory, nothing changed. */
static bool reserve(void *items, uint32_t *capacity, uint64_t n, size_t size, uint32_t kept) {
  if (n <= *capacity) return true;
  uint64_t wanted = *capacity ? *capacity : 1024;
  while (wanted < n) wanted *= 2;
  void *old, *grown = ba_alloc_aligned(wanted * size, BA_CACHE_LINE);
  if (!grown) return false;
  memcpy(&old, items, sizeof old);
  if (kept) memcpy(grown, old, kept * size);
  ba_free(old);
  memcpy(items, &grown, sizeof grown);
  *capacity = (uint32_t)wanted;
  return true;
}

static bool append(ba_emits *list, const ba_emit *emit) {
  if (list->n == list->capacity &&
      !reserve(&list->items, &list->capacity, list->n + 1ull, sizeof *list->items, list->n)) {
    return false;
  }
  if (list->n) {
    const ba_emit *before = &list->items[list->n - 1];
    if (before->cause > emit->cause || (before->cause == emit->cause && before->reserved > emit->reserved)) {
      list->sorted = false;
    }
  }
  list->items[list->n++] = *emit;
  return true;
}

static void clear(ba_emits *list) {
  list->n = 0;
  list->sorted = true;
}

int ba_waves_init(ba_shard *shard) {
  for (int i = 0; i < 2; i++) {
    if (!reserve(&shard->made[i].counts, &shard->made[i].counts_capacity, BA_FRAME_SIGNALS, sizeof(uint32_t), 0)) {
      return BA_NO_MEMORY;
    }
  }
  return BA_OK;
}

void ba_waves_destroy(ba_shard *shard) {
  for (int i = 0; i < 2; i++) {
    ba_wave_made *made = &shard->made[i];
    for (uint32_t t = 0; t < BA_SHARDS_MAX; t++) ba_free(made->to[t].items);
    ba_free(made->outward.items);
    ba_free(made->counts);
  }
  ba_free(shard->wave_signals);
  ba_free(shard->wave_parts);
  ba_free(shard->wave_ordinals);
  ba_free(shard->prefix);
  ba_free(shard->place);
}

void ba_wave_begin(ba_shard *shard, uint32_t n) {
  ba_wave_made *made = &shard->made[shard->turn];
  for (uint32_t t = 0; t < shard->engine->shard_count; t++) clear(&made->to[t]);
  clear(&made->outward);
  made->total = made->stored = made->routed = 0;
  made->cut = UINT32_MAX;
  made->n = n;
  if (!reserve(&made->counts, &made->counts_capacity, n, sizeof(uint32_t), 0)) made->n = 0;
  memset(made->counts, 0, made->n * sizeof(uint32_t));
}

static bool handled(const ba_engine *engine, const ba_emit *emit) {
  return engine->routes[engine->kind_index[emit->signal.kind]].count != 0;
}

/* For actors, but those of another lane's engine. */
static bool is_remote(const ba_engine *engine, const ba_emit *emit) {
  return engine->lanes > 1 && handled(engine, emit) && !ba_in_lane(engine, ba_partition(emit->signal.key));
}

/* Whether actors of this engine receive it. */
static bool received(const ba_engine *engine, const ba_emit *emit) {
  return handled(engine, emit) && !is_remote(engine, emit);
}

static bool read_by(const ba_subscription *subscription, uint8_t kind, bool remote) {
  return subscription->wanted[kind] || (remote && subscription->remote);
}

/* Leaves out the emits of ordinals past the cut, counting them; in the outward list, those that actors receive too are
 * counted where they are in to[]. */
static void drop_past(ba_shard *shard, ba_wave_made *made, ba_emits *list) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < list->n; i++) {
    const ba_emit *emit = &list->items[i];
    if (emit->cause <= made->cut) {
      list->items[kept++] = *emit;
    } else if (list != &made->outward || !received(shard->engine, emit)) {
      shard->now.emits_dropped[BA_DROP_BOUND]++;
    }
  }
  made->stored -= list->n - kept;
  list->n = kept;
}

/* Forgets emits that rank past the bound for certain: this shard alone made BA_STEP_EMITS_MAX before them. */
static void forget_surplus(ba_shard *shard, ba_wave_made *made) {
  uint64_t sum = 0;
  made->cut = 0;
  while (made->cut < made->n && (sum += made->counts[made->cut]) < BA_STEP_EMITS_MAX) made->cut++;
  drop_past(shard, made, &made->outward);
  for (uint32_t t = 0; t < shard->engine->shard_count; t++) drop_past(shard, made, &made->to[t]);
}

static uint32_t rank_of(const ba_shard *shard, const ba_emit *emit) {
  uint32_t rank = shard->prefix[emit->cause] + emit->reserved;
  return rank < emit->reserved ? UINT32_MAX : rank;
}

/* An outward entry for which there is no memory. Readers lose it; as an emit it is counted here only if that is not
 * done elsewhere: where actors receive it, or, in a stream, when it was made. */
static void lose_outward(ba_shard *shard, const ba_emit *emit) {
  const ba_engine *engine = shard->engine;
  uint8_t kind = engine->kind_index[emit->signal.kind];
  bool remote = is_remote(engine, emit);
  for (ba_subscription *s = engine->subscriptions; s; s = s->next) {
    if (read_by(s, kind, remote)) ba_outputs_lose(s);
  }
  if (engine->feedback && !received(engine, emit)) shard->now.emits_dropped[BA_DROP_NO_MEMORY]++;
}

static void lose_all_outward(ba_shard *shard, const ba_emits *list) {
  for (uint32_t i = 0; i < list->n; i++) lose_outward(shard, &list->items[i]);
}

static void drop_outward_past(ba_shard *shard, const ba_emits *list, uint32_t ranks) {
  for (uint32_t i = 0; i < list->n; i++) {
    if (received(shard->engine, &list->items[i])) continue; /* counted there */
    if (rank_of(shard, &list->items[i]) >= ranks) shard->now.emits_dropped[BA_DROP_BOUND]++;
  }
}

void ba_wave_collect(ba_shard *shard, const ba_batch *batch, uint32_t actor, const ba_emit *emits, uint32_t n) {
  const ba_engine *engine = shard->engine;
  ba_wave_made *made = &shard->made[shard->turn];
  shard->now.emitted += n;
  for (uint32_t i = 0; i < n; i++) {
    uint8_t kind = engine->kind_index[emits[i].signal.kind];
    if (!engine->may_emit[actor * 256u + kind] || emits[i].signal.flags & ~BA_FLAGS_KNOWN ||
        emits[i].cause >= batch->n) {
      shard->now.emits_dropped[BA_DROP_BAD_EMIT]++;
      continue;
    }
    uint32_t ordinal = batch->ordinals ? batch->ordinals[emits[i].cause] : batch->ordinal + emits[i].cause;
    if (ordinal >= made->n) { /* there was no memory for the counts */
      shard->now.emits_dropped[BA_DROP_NO_MEMORY]++;
      continue;
    }
    ba_emit emit = {emits[i].signal, ordinal, made->counts[ordinal]++};
    made->total++;
    if (ordinal > made->cut) {
      shard->now.emits_dropped[BA_DROP_BOUND]++;
      continue;
    }
    uint32_t targets = engine->routes[kind].count;
    uint8_t part = targets && engine->shard_count * engine->lanes > 1 ? ba_partition(emit.signal.key) : 0;
    bool here = targets && ba_in_lane(engine, part);
    if (here) { /* only apps with feedback emit what is handled */
      uint8_t owner = shard->owners[part];
      if (append(&made->to[owner], &emit)) {
        made->stored++;
      } else {
        shard->now.emits_dropped[BA_DROP_NO_MEMORY]++;
      }
      made->routed++;
    }
    if (!targets && !engine->feedback) shard->now.emits_outward++;
    if (engine->wanted[kind] || (!here && engine->feedback)) { /* with feedback it is counted when it is delivered */
      if (append(&made->outward, &emit)) {
        made->stored++;
      } else {
        lose_outward(shard, &emit);
      }
    }
    if (made->stored > ENTRIES_MAX && engine->feedback) forget_surplus(shard, made);
  }
}

/* rank of the first emit of each ordinal, from the counts of all shards. False: no memory. */
static bool sum_counts(ba_shard *shard, uint32_t n) {
  const ba_engine *engine = shard->engine;
  if (!reserve(&shard->prefix, &shard->prefix_capacity, n, sizeof(uint32_t), 0)) return false;
  memset(shard->prefix, 0, n * sizeof(uint32_t));
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    const ba_wave_made *made = &engine->shards[s].made[shard->turn];
    if (!made->total) continue;
    for (uint32_t i = 0; i < made->n && i < n; i++) shard->prefix[i] += made->counts[i];
  }
  uint32_t sum = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t count = shard->prefix[i];
    shard->prefix[i] = sum;
    sum = sum + count < sum ? UINT32_MAX : sum + count; /* saturates: past the bound anyhow */
  }
  return true;
}

/* place[rank] = the entry of that rank, or null. *past counts the entries whose rank is past the bound. */
static bool place_by_rank(ba_shard *shard, ba_emits *const *lists, uint32_t n, uint32_t ranks, uint64_t *past) {
  if (!reserve(&shard->place, &shard->place_capacity, ranks, sizeof *shard->place, 0)) return false;
  memset(shard->place, 0, ranks * sizeof *shard->place);
  for (uint32_t l = 0; l < n; l++) {
    for (uint32_t i = 0; i < lists[l]->n; i++) {
      const ba_emit *emit = &lists[l]->items[i];
      uint32_t rank = rank_of(shard, emit);
      if (rank < ranks) {
        shard->place[rank] = emit;
      } else {
        ++*past;
      }
    }
  }
  return true;
}

static void advance(ba_shard *shard, uint64_t position, uint64_t index) {
  for (ba_subscription *s = shard->engine->subscriptions; s; s = s->next) {
    ba_outputs_advance(s, shard->index, (ba_output_key){position, index});
    ba_outputs_notify(s);
  }
}

static void push(ba_shard *shard, const ba_emit *emit, bool remote, uint64_t position, uint64_t index) {
  ba_engine *engine = shard->engine;
  uint8_t kind = engine->kind_index[emit->signal.kind];
  ba_output output = {emit->signal, position, index};
  for (ba_subscription *s = engine->subscriptions; s; s = s->next) {
    if (!read_by(s, kind, remote) || ba_outputs_try_push(s, shard->index, &output)) continue;
    /* Every later output of this shard is at this key or past it, for each of the readers. */
    advance(shard, position, index);
    ba_outputs_push(s, shard->index, &output, &engine->closing);
  }
}

/* Outputs of one wave, in order. ranks: emits of the wave that are within the bound. */
static void deliver(ba_shard *shard, ba_emits *list, uint32_t wave, uint64_t position, uint32_t n, uint32_t ranks,
                    uint64_t total) {
  const ba_engine *engine = shard->engine;
  uint64_t past = 0;
  bool by_place = !list->sorted || total > ranks;
  if (!list->n) return;
  if (by_place && !place_by_rank(shard, &list, 1, ranks, &past)) {
    lose_all_outward(shard, list);
    return;
  }
  uint32_t entries = by_place ? ranks : list->n;
  for (uint32_t i = 0; i < entries; i++) {
    const ba_emit *emit = by_place ? shard->place[i] : &list->items[i];
    if (!emit) continue;
    uint8_t kind = engine->kind_index[emit->signal.kind];
    bool remote = is_remote(engine, emit);
    shard->now.emits_remote += remote;
    if (engine->feedback && !handled(engine, emit)) shard->now.emits_outward++;
    if (!engine->wanted[kind] && !(remote && engine->remote_wanted)) continue;
    if (wave == 0) {
      push(shard, emit, remote, position + emit->cause, emit->reserved);
    } else {
      push(shard, emit, remote, position + n - 1, (uint64_t)wave << 32 | rank_of(shard, emit));
    }
  }
  if (past) drop_outward_past(shard, list, ranks);
}

void ba_wave_deliver_stream(ba_shard *shard, const ba_batch *batch) {
  ba_wave_made *made = &shard->made[shard->turn];
  if (!made->outward.n) return;
  uint64_t begun = ba_ticks();
  if (!made->outward.sorted) {
    if (!reserve(&shard->prefix, &shard->prefix_capacity, batch->n, sizeof(uint32_t), 0)) {
      lose_all_outward(shard, &made->outward);
      return;
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < batch->n; i++) {
      shard->prefix[i] = sum;
      sum += made->counts[i];
    }
  }
  deliver(shard, &made->outward, 0, batch->position, batch->n, (uint32_t)made->total, made->total);
  shard->now.emit_ticks += ba_ticks() - begun;
}

/* All shards meet here once a wave. */
static void barrier(ba_shard *shard) {
  ba_engine *engine = shard->engine;
  if (engine->shard_count == 1) return;
  uint64_t begun = ba_ticks();
  uint32_t generation = ba_load_relaxed(&engine->barrier_generation); /* relaxed: it cannot change before we arrive */
  /* acq_rel: what each shard made is visible to the last to arrive, and through the generation to all. */
  if (ba_fetch_add_acq_rel(&engine->barrier_arrived, 1) + 1 == engine->shard_count) {
    ba_store_relaxed(&engine->barrier_arrived, 0); /* relaxed: ordered by the store of the generation */
    /* seq_cst: pairs with the load below; as a release it passes on what the arrivals brought. */
    ba_store_seq_cst(&engine->barrier_generation, generation + 1);
    ba_wake(&engine->barrier_news);
    return;
  }
  ba_waiter waiter = ba_waiter_begin_picky(&engine->barrier_news, BA_WAIT_FOREVER);
  while (ba_load_seq_cst(&engine->barrier_generation) == generation && ba_waiter_step(&waiter)) {
  }
  ba_waiter_end(&waiter);
  shard->now.barrier_ticks += ba_ticks() - begun;
}

static uint64_t everybody(const ba_shard *shard, bool routed) {
  uint64_t sum = 0;
  for (uint32_t s = 0; s < shard->engine->shard_count; s++) {
    const ba_wave_made *made = &shard->engine->shards[s].made[shard->turn];
    sum += routed ? made->routed : made->total;
  }
  return sum;
}

/* The signals of the next wave that are ours, in order of rank. Returns how many. */
static uint32_t gather(ba_shard *shard, uint32_t ranks) {
  ba_emits *lists[BA_SHARDS_MAX];
  uint64_t n = 0, past = 0;
  for (uint32_t s = 0; s < shard->engine->shard_count; s++) {
    lists[s] = &shard->engine->shards[s].made[shard->turn].to[shard->index];
    n += lists[s]->n;
  }
  uint32_t capacity = shard->wave_capacity, parts_capacity = capacity, ordinals_capacity = capacity;
  bool room = reserve(&shard->wave_parts, &parts_capacity, n, 1, 0) &&
              reserve(&shard->wave_ordinals, &ordinals_capacity, n, sizeof(uint32_t), 0) &&
              reserve(&shard->wave_signals, &capacity, n, sizeof(ba_signal), 0);
  if (room) shard->wave_capacity = capacity;
  if (!room || !place_by_rank(shard, lists, shard->engine->shard_count, ranks, &past)) {
    shard->now.emits_dropped[BA_DROP_NO_MEMORY] += n;
    return 0;
  }
  shard->now.emits_dropped[BA_DROP_BOUND] += past;
  uint32_t m = 0;
  for (uint32_t rank = 0; rank < ranks && m < n; rank++) {
    const ba_emit *emit = shard->place[rank];
    if (!emit) continue;
    shard->wave_signals[m] = emit->signal;
    shard->wave_parts[m] = ba_partition(emit->signal.key);
    shard->wave_ordinals[m++] = rank;
  }
  return m;
}

static void dispatch_wave(ba_shard *shard, uint32_t n, uint32_t wave, uint64_t position) {
  for (uint32_t at = 0; at < n;) {
    uint32_t m = n - at < BA_CHUNK ? n - at : BA_CHUNK;
    uint32_t other = 0;
    for (uint32_t i = 1; i < m; i++) {
      other |= (uint32_t)(shard->wave_signals[at + i].kind ^ shard->wave_signals[at].kind);
    }
    ba_batch batch = {.signals = shard->wave_signals + at,
                      .parts = shard->wave_parts + at,
                      .ordinals = shard->wave_ordinals + at,
                      .n = m,
                      .wave = wave,
                      .position = position,
                      .uniform = other == 0,
                      .mine = true};
    ba_dispatch(shard, &batch);
    at += m;
  }
}

void ba_waves_run(ba_shard *shard, uint64_t position, uint32_t n) {
  ba_engine *engine = shard->engine;
  uint64_t left = BA_STEP_EMITS_MAX;
  uint32_t wave_n = n;
  for (uint32_t wave = 0; wave < engine->depth; wave++) {
    barrier(shard);
    uint64_t begun = ba_ticks();
    ba_wave_made *made = &shard->made[shard->turn];
    uint64_t total = everybody(shard, false);
    uint64_t routed = everybody(shard, true);
    uint32_t ranks = (uint32_t)(total < left ? total : left);
    uint32_t m = 0;
    if (total) {
      if (sum_counts(shard, wave_n)) {
        deliver(shard, &made->outward, wave, position, n, ranks, total);
        advance(shard, position + n - 1, (uint64_t)(wave + 1) << 32);
        m = routed ? gather(shard, ranks) : 0;
      } else {
        lose_all_outward(shard, &made->outward);
        for (uint32_t s = 0; s < engine->shard_count; s++) {
          shard->now.emits_dropped[BA_DROP_NO_MEMORY] += engine->shards[s].made[shard->turn].to[shard->index].n;
        }
      }
    }
    shard->turn ^= 1;
    bool more = routed && wave + 1 < BA_WAVES_MAX;
    if (routed && !more) shard->now.emits_dropped[BA_DROP_BOUND] += m;
    left -= ranks;
    wave_n = ranks;
    if (more) ba_wave_begin(shard, wave_n);
    shard->now.emit_ticks += ba_ticks() - begun;
    if (!more) return;
    dispatch_wave(shard, m, wave + 1, position);
    shard->now.waves++;
  }
}
