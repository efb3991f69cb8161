/*
 * The loops of resolve.c, included there once for each way to compare keys; not a header in the usual sense.
 * WAY(name) gives a name its suffix, WAY_TARGET is the functions' target attribute, and WAY_MATCH(bucket, key) is a
 * mask whose bit i says that entry i of the bucket holds the key. One thread at a time per store.
 */

/* The slot of a key if its chain from `bucket` on holds it, else BA_SLOT_NONE. */
ALWAYS_INLINE WAY_TARGET uint32_t WAY(look)(const uint8_t *lines, const ba_bucket *bucket, uint64_t key) {
  uint32_t mask = WAY_MATCH(bucket, key);
  while (__builtin_expect(mask == 0, 0)) {
    if (bucket->next == 0) return BA_SLOT_NONE;
    bucket = (const ba_bucket *)(const void *)(lines + (size_t)bucket->next * BA_LINE_BYTES);
    mask = WAY_MATCH(bucket, key);
  }
  return bucket->slots[__builtin_ctz(mask)];
}

/* Tables and states in the core's own cache: the processor overlaps the signals by itself. */
ALWAYS_INLINE WAY_TARGET uint32_t WAY(resolve_small)(ba_store *store, const ba_signal *signals, const uint8_t *parts,
                                                     const uint16_t *order, uint32_t n, uint32_t tick, uint32_t *slots,
                                                     bool expiry) {
  const uint8_t *lines = store->lines.region.base;
  const ba_hash hash = store->hash;
  uint32_t refused = 0;
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t key = signals[order[i]].key;
    const unsigned p = parts[order[i]];
    uint32_t slot = WAY(look)(lines, ba_table_bucket(lines, &store->tables[p], ba_hash_of(&hash, key)), key);
    if (__builtin_expect(slot == BA_SLOT_NONE, 0)) {
      slot = ba_store_resolve_one(store, p, key, tick);
      refused += slot >= BA_SLOT_REFUSED;
    } else if (expiry) {
      ba_store_touch(store, p, slot, tick);
    }
    slots[i] = slot;
  }
  return refused;
}

/*
 * Larger ones: while the buckets of group g are compared, those of group g + 1 are on their way; so are the states and
 * links of the slots found. Links are touched a group later, but always before the long way may look at them, so the
 * order of touches is the order of signals whatever the batches are.
 */
ALWAYS_INLINE WAY_TARGET uint32_t WAY(resolve_large)(ba_store *store, const ba_signal *signals, const uint8_t *parts,
                                                     const uint16_t *order, uint32_t n, uint32_t tick, uint32_t *slots,
                                                     bool expiry) {
  const uint8_t *lines = store->lines.region.base;
  const ba_hash hash = store->hash;
  const ba_bucket *ahead[2][GROUP];
  uint32_t refused = 0;
  uint32_t touched = 0; /* signals [0, touched) are touched */
  for (uint32_t begin = 0; begin < n + GROUP; begin += GROUP) {
    const ba_bucket **group = ahead[begin / GROUP % 2];
    for (uint32_t i = begin; i < n && i < begin + GROUP; i++) {
      const ba_bucket *bucket =
          ba_table_bucket(lines, &store->tables[parts[order[i]]], ba_hash_of(&hash, signals[order[i]].key));
      __builtin_prefetch(bucket);
      group[i - begin] = bucket;
    }
    if (begin == 0) continue;
    group = ahead[(begin / GROUP + 1) % 2];
    const uint32_t from = begin - GROUP, until = begin < n ? begin : n;
    for (uint32_t i = from; i < until; i++) {
      const uint64_t key = signals[order[i]].key;
      uint32_t slot = WAY(look)(lines, group[i - from], key);
      if (__builtin_expect(slot == BA_SLOT_NONE, 0)) {
        for (; expiry && touched < i; touched++) {
          if (slots[touched] < BA_SLOT_REFUSED) {
            ba_store_touch(store, parts[order[touched]], slots[touched], tick);
          }
        }
        slot = ba_store_resolve_one(store, parts[order[i]], key, tick);
        refused += slot >= BA_SLOT_REFUSED;
      } else {
        __builtin_prefetch(state_of(store, slot), 1);
        if (expiry) __builtin_prefetch(links_of(store) + slot, 1);
      }
      slots[i] = slot;
    }
    for (; expiry && touched < from; touched++) {
      if (slots[touched] < BA_SLOT_REFUSED) ba_store_touch(store, parts[order[touched]], slots[touched], tick);
    }
  }
  for (; expiry && touched < n; touched++) {
    if (slots[touched] < BA_SLOT_REFUSED) ba_store_touch(store, parts[order[touched]], slots[touched], tick);
  }
  return refused;
}

WAY_TARGET static uint32_t WAY(resolve)(ba_store *store, const ba_signal *signals, const uint8_t *parts,
                                        const uint16_t *order, uint32_t n, uint32_t tick, uint32_t *slots) {
  const size_t bytes = (size_t)store->lines.used * BA_LINE_BYTES + store->states.used;
  if (store->idle_ticks) {
    return bytes <= LARGE_BYTES ? WAY(resolve_small)(store, signals, parts, order, n, tick, slots, true)
                                : WAY(resolve_large)(store, signals, parts, order, n, tick, slots, true);
  }
  return bytes <= LARGE_BYTES ? WAY(resolve_small)(store, signals, parts, order, n, tick, slots, false)
                              : WAY(resolve_large)(store, signals, parts, order, n, tick, slots, false);
}

#undef WAY
#undef WAY_TARGET
#undef WAY_MATCH
