/*
 * The engine's face: making and closing it, admission, flush, pauses, statistics. Subscriptions: subscribe.c.
 *
 * Locks, in the order in which they nest: turn (inline: who holds it handles steps), subscriptions_lock, ring.lock.
 * None but turn, by the holder of an inline engine's pause, is held while a thread waits.
 */
#include <bitactor/alloc.h>
#include <bitactor/shard.h>
#include <string.h>

enum { RING_SIGNALS = 65536, TICKS_AN_IDLE_TIME = 64, TICK_NS_MIN = 1000 * 1000 };

static void *copied(ba_engine *engine, const void *from, size_t bytes) {
  void *copy = ba_alloc(bytes ? bytes : 1);
  if (!copy) return NULL;
  if (bytes) memcpy(copy, from, bytes);
  engine->owned[engine->owned_n++] = copy;
  return copy;
}

static bool valid(const ba_engine_config *config) {
  if (config->kind_count == 0 || config->kind_count > 255 || config->actor_count > BA_ACTORS_MAX) return false;
  if (config->shards > BA_SHARDS_MAX) return false;
  if (config->lanes > BA_PARTITIONS || (config->lanes && BA_PARTITIONS % config->lanes)) return false;
  if (config->lane >= (config->lanes ? config->lanes : 1)) return false;
  uint32_t ring = config->ring_signals;
  if (ring && (ring & (ring - 1) || ring < 2 * BA_FRAME_SIGNALS || ring > 1u << 30)) return false;
  for (uint32_t a = 0; a < config->actor_count; a++) {
    const ba_actor_spec *spec = &config->actors[a];
    if (!spec->handler || !spec->init || spec->stride < 8 || spec->stride % 8 || spec->kind_count == 0) return false;
  }
  return true;
}

static bool copy_config(ba_engine *engine, const ba_engine_config *config) {
  engine->kind_count = config->kind_count;
  engine->actor_count = config->actor_count;
  engine->kind_numbers = copied(engine, config->kinds, config->kind_count * sizeof *config->kinds);
  engine->specs = copied(engine, config->actors, config->actor_count * sizeof *config->actors);
  engine->may_emit = ba_alloc(config->actor_count * 256u + 1);
  if (!engine->kind_numbers || !engine->specs || !engine->may_emit) return false;
  for (uint32_t a = 0; a < config->actor_count; a++) {
    ba_actor_spec *spec = &engine->specs[a];
    spec->init = copied(engine, spec->init, spec->stride);
    spec->kinds = copied(engine, spec->kinds, spec->kind_count * sizeof *spec->kinds);
    spec->emits = copied(engine, spec->emits, spec->emit_count * sizeof *spec->emits);
    if (!spec->init || !spec->kinds || !spec->emits) return false;
  }
  return true;
}

/* Routes, and which actors may emit what. False: a number is 0, declared twice, or used and not declared. */
static bool lay_routes(ba_engine *engine) {
  for (uint32_t k = 0; k < engine->kind_count; k++) {
    uint16_t number = engine->kind_numbers[k];
    if (number == 0 || engine->kind_index[number]) return false;
    engine->kind_index[number] = (uint8_t)(k + 1);
  }
  for (uint32_t k = 0; k < 256; k++) engine->routes[k].first = (uint8_t)engine->actor_count;
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    const ba_actor_spec *spec = &engine->specs[a];
    for (uint32_t k = 0; k < spec->kind_count; k++) {
      uint8_t index = engine->kind_index[spec->kinds[k]];
      if (!index) return false;
      ba_route *route = &engine->routes[index];
      if (route->count && route->actors[route->count - 1] == a) continue; /* named twice */
      if (!route->count) route->first = (uint8_t)a;
      route->actors[route->count++] = (uint8_t)a;
    }
    for (uint32_t e = 0; e < spec->emit_count; e++) {
      uint8_t index = engine->kind_index[spec->emits[e]];
      if (!index) return false;
      engine->may_emit[a * 256 + index] = 1;
    }
    engine->emitters += spec->emit_count != 0;
  }
  return true;
}

/* Waves that can emit anything when a signal of that kind comes in; BA_WAVES_MAX when actors feed each other round. */
static uint32_t waves_of(const ba_engine *engine, uint8_t index, uint32_t so_far) {
  if (so_far == BA_WAVES_MAX) return BA_WAVES_MAX;
  uint32_t most = so_far;
  const ba_route *route = &engine->routes[index];
  for (uint32_t r = 0; r < route->count; r++) {
    const ba_actor_spec *spec = &engine->specs[route->actors[r]];
    for (uint32_t e = 0; e < spec->emit_count; e++) {
      uint32_t waves = waves_of(engine, engine->kind_index[spec->emits[e]], so_far + 1);
      if (waves == BA_WAVES_MAX) return BA_WAVES_MAX;
      if (waves > most) most = waves;
    }
  }
  return most;
}

static void study_graph(ba_engine *engine) {
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    const ba_actor_spec *spec = &engine->specs[a];
    for (uint32_t e = 0; e < spec->emit_count; e++) {
      if (engine->routes[engine->kind_index[spec->emits[e]]].count) engine->feedback = true;
    }
    if (spec->idle_ns || spec->reads_wall) engine->stepwise = engine->ring.needs_wall = true;
  }
  engine->stepwise |= engine->feedback;
  for (uint32_t k = 1; k <= engine->kind_count && engine->depth < BA_WAVES_MAX; k++) {
    uint32_t waves = waves_of(engine, (uint8_t)k, 0);
    if (waves > engine->depth) engine->depth = waves;
  }
  /* Without feedback the outputs of several actors are put in order batch by batch: small ones bound the memory. */
  engine->chunk = engine->emitters > 1 && !engine->feedback ? 256 : BA_CHUNK;
}

uint64_t ba_idle_tick_ns(uint64_t idle_ns) {
  return idle_ns / TICKS_AN_IDLE_TIME < TICK_NS_MIN ? TICK_NS_MIN : idle_ns / TICKS_AN_IDLE_TIME;
}

static bool make_actor(ba_actor *actor, const ba_actor_spec *spec, const ba_engine_config *engine) {
  actor->spec = spec;
  actor->sample = BA_TICK_SAMPLE - 1;
  ba_store_config config = {.stride = spec->stride,
                            .init = spec->init,
                            .partition_keys_max = spec->partition_keys_max,
                            .secret = {engine->secret[0], engine->secret[1]},
                            .lanes = engine->lanes};
  if (spec->idle_ns) {
    actor->tick_ns = ba_idle_tick_ns(spec->idle_ns);
    config.idle_ticks = (uint32_t)((spec->idle_ns + actor->tick_ns - 1) / actor->tick_ns);
  }
  actor->store = ba_store_create(&config);
  return actor->store != NULL;
}

static bool make_shard(ba_engine *engine, uint32_t index, const ba_engine_config *config) {
  ba_shard *shard = &engine->shards[index];
  shard->engine = engine;
  shard->index = index;
  shard->position = shard->now.position = config->position;
  for (uint32_t i = 0; i < BA_CHUNK; i++) shard->every[i] = (uint16_t)i;
  pthread_mutex_init(&shard->letters_lock, NULL);
  for (uint32_t p = 0; p < BA_PARTITIONS; p++) shard->owners[p] = (uint8_t)ba_owner_of(engine, p);
  uint32_t lists = engine->actor_count + 1;
  shard->actors = ba_alloc_aligned(lists * sizeof *shard->actors, BA_CACHE_LINE);
  shard->kinds = ba_alloc((engine->kind_count + 1) * sizeof *shard->kinds);
  shard->order = ba_alloc_aligned((size_t)lists * BA_CHUNK * sizeof *shard->order, BA_CACHE_LINE);
  shard->order_n = ba_alloc(lists * sizeof *shard->order_n);
  shard->slots = ba_alloc_aligned(BA_CHUNK * sizeof *shard->slots, BA_CACHE_LINE);
  shard->failed = ba_alloc(BA_CHUNK);
  shard->emit_buffer = ba_alloc_aligned(BA_EMITS_MIN * sizeof *shard->emit_buffer, BA_CACHE_LINE);
  if (!shard->actors || !shard->kinds || !shard->order || !shard->order_n || !shard->slots || !shard->failed ||
      !shard->emit_buffer || ba_waves_init(shard) != BA_OK) {
    return false;
  }
  for (uint32_t a = 0; a < engine->actor_count; a++) {
    if (!make_actor(&shard->actors[a], &engine->specs[a], config)) return false;
  }
  ba_shard_publish(shard);
  return true;
}

static void free_shard(ba_shard *shard) {
  for (uint32_t a = 0; shard->actors && a < shard->engine->actor_count; a++) ba_store_destroy(shard->actors[a].store);
  ba_free(shard->actors);
  ba_free(shard->kinds);
  ba_free(shard->order);
  ba_free(shard->order_n);
  ba_free(shard->slots);
  ba_free(shard->failed);
  ba_free(shard->emit_buffer);
  ba_waves_destroy(shard);
  pthread_mutex_destroy(&shard->letters_lock);
}

static int start(ba_engine *engine) {
  for (uint32_t s = 0; s < engine->shard_count && !engine->inline_mode; s++) {
    ba_shard *shard = &engine->shards[s];
    if (pthread_create(&shard->thread, NULL, ba_shard_main, shard) != 0) return BA_NO_MEMORY;
    shard->started = true;
  }
  return BA_OK;
}

static int build(ba_engine *engine, const ba_engine_config *config) {
  uint32_t capacity = config->ring_signals ? config->ring_signals : RING_SIGNALS;
  /* Inline, the ring holds nothing: two slots keep its lock, positions and counts in one place for both modes. */
  int result =
      ba_step_ring_init(&engine->ring, engine->inline_mode ? 2 : capacity, engine->shard_count, config->position);
  if (result != BA_OK) return result;
  engine->has_ring = true;
  engine->ring.manual_clock = config->manual_clock;
  if (!copy_config(engine, config)) return BA_NO_MEMORY;
  if (!lay_routes(engine)) return BA_BAD_CONFIG;
  study_graph(engine);
  engine->shards = ba_alloc_aligned(engine->shard_count * sizeof *engine->shards, BA_CACHE_LINE);
  if (!engine->shards) return BA_NO_MEMORY;
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    engine->shards_made = s + 1;
    if (!make_shard(engine, s, config)) return BA_NO_MEMORY;
  }
  return start(engine);
}

int ba_engine_create(const ba_engine_config *config, ba_engine **out) {
  *out = NULL;
  if (!valid(config)) return BA_BAD_CONFIG;
  ba_engine *engine = ba_alloc_aligned(sizeof *engine, BA_CACHE_LINE);
  if (!engine) return BA_NO_MEMORY;
  engine->inline_mode = config->shards == 0;
  engine->shard_count = config->shards ? config->shards : 1;
  engine->lane = config->lane;
  engine->lanes = config->lanes ? config->lanes : 1;
  pthread_mutex_init(&engine->turn, NULL);
  pthread_mutex_init(&engine->subscriptions_lock, NULL);
  ba_wait_point_init(&engine->paused_news, false, false);
  ba_wait_point_init(&engine->resumed_news, false, false);
  ba_wait_point_init(&engine->pause_free, false, false);
  ba_wait_point_init(&engine->barrier_news, false, false);
  int result = build(engine, config);
  if (result == BA_OK) {
    *out = engine;
  } else {
    ba_engine_destroy(engine);
  }
  return result;
}

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

/* --- pauses --- */

/* Takes the right to pause; false: the time is over, or timeout_ns is 0 and another has it. */
static bool take_pause(ba_engine *engine, uint64_t timeout_ns) {
  ba_waiter waiter = ba_waiter_begin_picky(&engine->pause_free, timeout_ns);
  bool taken = false;
  do {
    uint32_t none = 0;
    taken = ba_cas_strong_acq_rel(&engine->pause_taken, &none, 1);
  } while (!taken && ba_waiter_step(&waiter));
  ba_waiter_end(&waiter);
  return taken;
}

static void give_pause(ba_engine *engine) {
  ba_store_seq_cst(&engine->pause_taken, 0); /* seq_cst: pairs with the exchange in take_pause; no wake-up is lost */
  ba_wake(&engine->pause_free);
}

int ba_engine_pause_begin(ba_engine *engine, uint64_t mask, uint64_t timeout_ns) {
  if (ba_inside == engine) return BA_IN_ACTOR;
  if (!take_pause(engine, timeout_ns)) return BA_TIMEOUT;
  if (engine->inline_mode) {
    pthread_mutex_lock(&engine->turn);
    return BA_OK;
  }
  uint64_t all = engine->shard_count == 64 ? UINT64_MAX : (UINT64_C(1) << engine->shard_count) - 1;
  pthread_mutex_lock(&engine->ring.lock);
  /* relaxed, three times: only who has the right to pause writes them, and the store below publishes the first two. */
  ba_store_relaxed(&engine->pause_mask, mask & all);
  ba_store_relaxed(&engine->pause_position, engine->ring.tail);
  uint64_t generation = ba_load_relaxed(&engine->pause_generation) + 1;
  /* seq_cst: pairs with the load in obey_pause; under the ring's lock: see ba_shard_main. */
  ba_store_seq_cst(&engine->pause_generation, generation);
  pthread_mutex_unlock(&engine->ring.lock);
  ba_wake(&engine->ring.news);
  return BA_OK;
}

/* Whether every shard of the pause stands still for it, or for ever. */
static bool all_stand(ba_engine *engine) {
  /* relaxed: this thread wrote both, or took them over with the right to pause. */
  uint64_t mask = ba_load_relaxed(&engine->pause_mask), generation = ba_load_relaxed(&engine->pause_generation);
  for (uint32_t s = 0; s < engine->shard_count; s++) {
    /* seq_cst: pairs with the stores in shard.c; what the shard did before is visible, and no wake-up is lost. */
    uint64_t stands = mask >> s & 1 ? ba_load_seq_cst(&engine->shards[s].stands) : generation;
    if (stands != generation && stands != BA_ENDED) return false;
  }
  return true;
}

int ba_engine_pause_wait(ba_engine *engine, uint64_t timeout_ns, uint64_t *position) {
  if (engine->inline_mode) {
    *position = engine->ring.tail;
    return BA_OK;
  }
  ba_waiter waiter = ba_waiter_begin_picky(&engine->paused_news, timeout_ns);
  bool done;
  while (!(done = all_stand(engine)) && ba_waiter_step(&waiter)) {
  }
  ba_waiter_end(&waiter);
  *position = ba_load_relaxed(&engine->pause_position); /* relaxed: as in all_stand */
  return done ? BA_OK : BA_TIMEOUT;
}

int ba_engine_pause(ba_engine *engine, uint64_t mask, uint64_t timeout_ns, uint64_t *position) {
  uint64_t begun = ba_monotonic_ns();
  int result = ba_engine_pause_begin(engine, mask, timeout_ns);
  if (result != BA_OK) return result;
  uint64_t gone = ba_monotonic_ns() - begun;
  if (timeout_ns != BA_WAIT_FOREVER) timeout_ns = gone < timeout_ns ? timeout_ns - gone : 0;
  result = ba_engine_pause_wait(engine, timeout_ns, position);
  if (result != BA_OK) ba_engine_resume(engine);
  return result;
}

void ba_engine_resume(ba_engine *engine) {
  if (engine->inline_mode) {
    pthread_mutex_unlock(&engine->turn);
  } else {
    /* seq_cst: pairs with the load in obey_pause; what the holder did is visible to the shards; no wake-up is lost. */
    ba_store_seq_cst(&engine->resume_generation, ba_load_relaxed(&engine->pause_generation));
    ba_wake(&engine->resumed_news);
  }
  give_pause(engine);
}

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

void ba_engine_destroy(ba_engine *engine) {
  if (!engine) return;
  (void)ba_engine_close(engine, true);
  while (engine->subscriptions) {
    ba_subscription *s = engine->subscriptions;
    engine->subscriptions = s->next;
    ba_outputs_destroy(s);
  }
  for (uint32_t s = 0; s < engine->shards_made; s++) free_shard(&engine->shards[s]);
  ba_free(engine->shards);
  if (engine->has_ring) ba_step_ring_destroy(&engine->ring);
  for (uint32_t i = 0; i < engine->owned_n; i++) ba_free(engine->owned[i]);
  ba_free(engine->may_emit);
  pthread_mutex_destroy(&engine->turn);
  pthread_mutex_destroy(&engine->subscriptions_lock);
  ba_free(engine);
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
