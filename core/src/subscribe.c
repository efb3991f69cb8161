/*
 * Subscriptions of an engine: they come and go while every shard stands still, so that no shard sees the list change.
 * Entered by readers' threads. Locks: see engine.c.
 */
#include <bitactor/shard.h>
#include <string.h>

enum { UNSUBSCRIBE_NS = 50 * 1000 * 1000 };

/* Forgets subscriptions that nobody reads, and sums up what the others want. Every shard is paused. */
static void sweep(ba_engine *engine) {
  memset(engine->wanted, 0, sizeof engine->wanted);
  engine->remote_wanted = false;
  for (ba_subscription **at = &engine->subscriptions; *at;) {
    ba_subscription *s = *at;
    if (ba_load_acquire(&s->detached)) { /* acquire: pairs with the store in ba_unsubscribe, its reader's last act */
      *at = s->next;
      ba_outputs_destroy(s);
      continue;
    }
    for (uint32_t k = 0; k < sizeof engine->wanted; k++) engine->wanted[k] |= s->wanted[k];
    engine->remote_wanted |= s->remote;
    at = &s->next;
  }
}

static int subscribe(ba_engine *engine, bool remote, const uint16_t *kinds, uint32_t n, uint32_t capacity, bool drop,
                     int event_fd, ba_subscription **out) {
  *out = NULL;
  if (capacity < 2 || capacity & (capacity - 1) || capacity > 1u << 30) return BA_BAD_CONFIG;
  for (uint32_t k = 0; k < n; k++) {
    if (!engine->kind_index[kinds[k]]) return BA_BAD_KIND;
  }
  uint64_t position = engine->shards[0].position; /* of every shard: they stand at one boundary */
  ba_subscription *s = ba_outputs_create(engine->shard_count, capacity, engine->inline_mode, drop, event_fd, position);
  if (!s) return BA_NO_MEMORY;
  s->engine = engine;
  s->remote = remote;
  for (uint32_t k = 0; k < n; k++) s->wanted[engine->kind_index[kinds[k]]] = 1;
  pthread_mutex_lock(&engine->subscriptions_lock);
  ba_store_relaxed(&s->ended, engine->shards_ended); /* relaxed: nobody else has it yet */
  s->next = engine->subscriptions;
  engine->subscriptions = s;
  sweep(engine);
  pthread_mutex_unlock(&engine->subscriptions_lock);
  *out = s;
  return BA_OK;
}

int ba_subscribe_paused(ba_engine *engine, const uint16_t *kinds, uint32_t n, uint32_t capacity, bool drop,
                        int event_fd, ba_subscription **out) {
  return subscribe(engine, false, kinds, n, capacity, drop, event_fd, out);
}

int ba_subscribe_remote_paused(ba_engine *engine, uint32_t capacity, int event_fd, ba_subscription **out) {
  return subscribe(engine, true, NULL, 0, capacity, false, event_fd, out);
}

int ba_subscribe(ba_engine *engine, const uint16_t *kinds, uint32_t n, uint32_t capacity, bool drop, int event_fd,
                 uint64_t timeout_ns, ba_subscription **out) {
  *out = NULL;
  uint64_t position;
  int result = ba_engine_pause(engine, UINT64_MAX, timeout_ns, &position);
  if (result != BA_OK) return result;
  result = ba_subscribe_paused(engine, kinds, n, capacity, drop, event_fd, out);
  ba_engine_resume(engine);
  return result;
}

void ba_unsubscribe(ba_subscription *subscription) {
  ba_engine *engine = subscription->engine;
  /* Shards that wait for this reader go on. seq_cst: pairs with the load in wait_for_room, and as a release with the
   * load in sweep. After it the subscription may be gone at any time: another thread may sweep it. */
  ba_wait_point *room = &subscription->room;
  pthread_mutex_lock(&engine->subscriptions_lock); /* not swept before the wake below */
  ba_store_seq_cst(&subscription->detached, 1);
  ba_wake(room);
  pthread_mutex_unlock(&engine->subscriptions_lock);
  uint64_t position;
  if (engine->inline_mode) { /* no pause: who holds it may be this thread */
    if (pthread_mutex_trylock(&engine->turn) != 0) return;
  } else if (ba_engine_pause(engine, UINT64_MAX, UNSUBSCRIBE_NS, &position) != BA_OK) {
    return;
  }
  pthread_mutex_lock(&engine->subscriptions_lock);
  sweep(engine);
  pthread_mutex_unlock(&engine->subscriptions_lock);
  if (engine->inline_mode) {
    pthread_mutex_unlock(&engine->turn);
  } else {
    ba_engine_resume(engine);
  }
}
