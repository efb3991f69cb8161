/*
 * Pauses: the shards of a mask stand still at one position, for who asked, until it lets them go on. Any thread may
 * ask; one pause at a time (shard.h has what is written when, shard.c how a shard obeys).
 */
#include <bitactor/shard.h>

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
