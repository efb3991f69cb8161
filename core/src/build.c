/*
 * Making an engine from its configuration, and taking it down: copies of what it points to, routes, the graph of who
 * emits what, shards with their stores. One thread; nobody else knows the engine yet, or any more.
 */
#include <bitactor/alloc.h>
#include <bitactor/shard.h>
#include <string.h>

enum { RING_SIGNALS = 32768, TICKS_AN_IDLE_TIME = 64, TICK_NS_MIN = 1000 * 1000 };

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
