/*
 * The loops of resolve.c, included there once for each way to compare keys; not a header in the usual sense.
 * WAY(name) gives a name its suffix, WAY_TARGET is the functions' target attribute, WAY_MATCH(bucket, key) is a mask
 * whose bit i says that entry i of the bucket holds the key, and WAY_LINES(table, hash, keys, lines) finds the first
 * lines of GROUP keys. One thread at a time per store.
 */

/* The slot of a key if its chain from `bucket` on holds it, else BA_SLOT_NONE. */
ALWAYS_INLINE WAY_TARGET uint32_t WAY(look)(const ba_lines *lines, const ba_bucket *bucket, uint64_t key) {
  uint32_t mask = WAY_MATCH(bucket, key);
  while (__builtin_expect(mask == 0, 0)) {
    if (bucket->next == 0) return BA_SLOT_NONE;
    bucket = ba_lines_at(lines, bucket->next);
    mask = WAY_MATCH(bucket, key);
  }
  return bucket->slots[__builtin_ctz(mask)];
}

/* Resolves signal i by the long way. Returns whether it was refused. */
WAY_TARGET static __attribute__((noinline)) bool WAY(resolve_waiting)(const resolve_job *job, uint32_t i, bool expiry) {
  ba_store *store = job->store;
  store->counts.looked_again++;
  const uint16_t at = job->order[i];
  const uint64_t key = job->signals[at].key;
  const uint32_t hash = ba_hash_of(&store->hash, key);
  uint32_t slot = WAY(look)(&store->lines, ba_table_bucket(&store->lines, &store->table, hash), key);
  if (slot == BA_SLOT_NONE) {
    slot = ba_store_resolve_one(store, job->parts[at], key, job->tick);
  } else {
    fetch_instance(store, slot, expiry);
  }
  job->slots[i] = slot;
  return slot >= BA_SLOT_REFUSED;
}

/* Keys and first lines of the signals [begin, begin + GROUP); past the end, line 0, which is there. */
ALWAYS_INLINE WAY_TARGET void WAY(prepare)(const resolve_job *job, uint32_t begin, uint32_t n, uint64_t *keys,
                                           uint32_t *lines) {
  const uint32_t m = begin >= n ? 0 : n - begin < GROUP ? n - begin : GROUP;
  for (uint32_t j = 0; j < m; j++) keys[j] = job->signals[job->order[begin + j]].key;
  WAY_LINES(&job->store->table, &job->store->hash, keys, lines);
  for (uint32_t j = m; j < GROUP; j++) lines[j] = 0;
}

/*
 * While a group of signals is looked up, the buckets of the next one are asked for, one by one; so are the state and
 * the link of each slot found: the handler comes to them later. A key that its first bucket does not hold waits until
 * the next group is done, while the next bucket of its chain is on its way. Those that wait are resolved in order, so
 * new instances are made in the order of signals. With a key cap and expiry nobody waits: an instance that is due may
 * lose its slot to a new key, so what comes before a new key must be touched, and what comes after not yet looked up.
 */
ALWAYS_INLINE WAY_TARGET uint32_t WAY(resolve_all)(const resolve_job *job, uint32_t n, bool expiry, bool large) {
  ba_store *store = job->store;
  const bool patient = !expiry || store->partition_keys_max == UINT32_MAX;
  _Alignas(64) uint64_t keys[2][GROUP];
  _Alignas(64) uint32_t lines[2][GROUP];
  uint16_t waiting[2][GROUP];
  uint32_t waiting_n[2] = {0, 0};
  uint32_t refused = 0;
  uint32_t touched = 0; /* signals [0, touched) are touched */
  WAY(prepare)(job, 0, n, keys[0], lines[0]);
  for (uint32_t j = 0; j < GROUP && large; j++) fetch(ba_lines_at(&store->lines, lines[0][j]));
  for (uint32_t begin = 0; begin < n + GROUP; begin += GROUP) {
    const uint32_t now = begin / GROUP % 2, other = 1 - now;
    const uint32_t m = begin >= n ? 0 : n - begin < GROUP ? n - begin : GROUP;
    if (m) WAY(prepare)(job, begin + GROUP, n, keys[other], lines[other]);
    for (uint32_t j = 0; j < m; j++) {
      if (large) fetch(ba_lines_at(&store->lines, lines[other][j]));
      const ba_bucket *bucket = ba_lines_at(&store->lines, lines[now][j]);
      const uint32_t mask = WAY_MATCH(bucket, keys[now][j]);
      if (__builtin_expect(mask != 0, 1)) {
        const uint32_t slot = bucket->slots[__builtin_ctz(mask)];
        if (large) fetch_instance(store, slot, expiry);
        job->slots[begin + j] = slot;
      } else if (patient) {
        fetch(ba_lines_at(&store->lines, bucket->next));
        waiting[now][waiting_n[now]++] = (uint16_t)(begin + j);
      } else {
        touched = touch(job, touched, begin + j);
        refused += WAY(resolve_waiting)(job, begin + j, expiry);
      }
    }
    for (uint32_t w = 0; w < waiting_n[other]; w++) {
      if (expiry) touched = touch(job, touched, waiting[other][w]);
      refused += WAY(resolve_waiting)(job, waiting[other][w], expiry);
    }
    waiting_n[other] = 0;
    if (expiry) touched = touch(job, touched, begin < n ? begin : n);
  }
  return refused;
}

WAY_TARGET static uint32_t WAY(resolve)(const resolve_job *job, uint32_t n) {
  const bool large = ba_store_is_large(job->store);
  if (job->store->idle_ticks) {
    return large ? WAY(resolve_all)(job, n, true, true) : WAY(resolve_all)(job, n, true, false);
  }
  return large ? WAY(resolve_all)(job, n, false, true) : WAY(resolve_all)(job, n, false, false);
}

#undef WAY
#undef WAY_TARGET
#undef WAY_MATCH
#undef WAY_LINES
