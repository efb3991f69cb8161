/*
 * The keyed state of one actor inside one shard. One thread at a time per store; nothing waits.
 *
 * Slots are handed to partitions in blocks of 16, so that states of one partition lie together and nothing is moved as
 * it grows. Per slot lie, in regions of their own: the state, the key and, with expiry, the links of the expiry list.
 * Per block: its place in its partition's list of blocks, or, of a free block, the next free one.
 */
#include <stdlib.h>
#include <string.h>

#include <bitactor/alloc.h>
#include <bitactor/store.h>

#include "store_impl.h"

#define RESERVE_BYTES_MAX (UINT64_C(1) << 40)
#define RESERVE_KEYS_DEFAULT (UINT64_C(1) << 30)
#define RESERVE_KEYS_MAX (UINT64_C(1) << 31)
#define RESERVE_KEYS_LEAST (UINT64_C(1) << 16)

static uint64_t round_up(uint64_t n, uint64_t step) { return (n + step - 1) / step * step; }

/* BITACTOR_RESERVE_KEYS is for places where address space is dear: small limits (ulimit -v), emulated processors. */
static uint64_t default_reserve(void) {
  const char *said = getenv("BITACTOR_RESERVE_KEYS");
  uint64_t keys = said ? strtoull(said, NULL, 10) : 0;
  return keys ? keys : RESERVE_KEYS_DEFAULT;
}

/* Reserves address space for so many keys. -1: not to be had; what was reserved is given back. */
static int reserve(ba_store *store, uint64_t keys) {
  const uint64_t slots = round_up(keys, BLOCK) + BA_PARTITIONS * BLOCK;
  const uint64_t lines = keys + keys / 2 + 16 * BA_PARTITIONS;
  if (ba_region_init(&store->states, slots * store->stride) == 0 &&
      ba_region_init(&store->keys, slots * sizeof(uint64_t)) == 0 &&
      ba_region_init(&store->blocks, slots / BLOCK * sizeof(uint32_t)) == 0 &&
      (store->idle_ticks == 0 || ba_region_init(&store->links, slots * sizeof(idle_link)) == 0) &&
      ba_lines_init(&store->lines, lines) == 0) {
    store->slots_max = (uint32_t)slots;
    return 0;
  }
  ba_region_free(&store->states);
  ba_region_free(&store->keys);
  ba_region_free(&store->blocks);
  ba_region_free(&store->links);
  ba_lines_free(&store->lines);
  return -1;
}

ba_store *ba_store_create(const ba_store_config *config) {
  if (config->stride == 0) return NULL;
  ba_store *store = ba_alloc_aligned(sizeof(ba_store), BA_LINE_BYTES);
  if (!store) return NULL;
  store->init = ba_alloc(config->stride);
  if (!store->init) {
    ba_free(store);
    return NULL;
  }
  memcpy(store->init, config->init, config->stride);
  store->stride = config->stride;
  store->partition_keys_max = config->partition_keys_max ? config->partition_keys_max : UINT32_MAX;
  store->idle_ticks = config->idle_ticks;
  store->hash = ba_hash_from_secret(config->secret);
  store->front_factor = ba_mix64(store->hash.a ^ store->hash.b) | 1;
  store->free_block = NONE;
  ba_table_init(&store->table);
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    store->parts[p].head = store->parts[p].tail = NONE;
  }
  uint64_t keys = config->reserve_keys ? config->reserve_keys : default_reserve();
  if (keys > RESERVE_KEYS_MAX) keys = RESERVE_KEYS_MAX;
  if (keys > RESERVE_BYTES_MAX / config->stride) keys = RESERVE_BYTES_MAX / config->stride;
  if (config->lanes > 1 && !config->reserve_keys) keys = keys / config->lanes + RESERVE_KEYS_LEAST;
  while (reserve(store, keys) != 0) {
    keys /= 2;
    if (keys < RESERVE_KEYS_LEAST) {
      ba_free(store->init);
      ba_free(store);
      return NULL;
    }
  }
  (void)ba_store_set_way(store, BA_WAY_BEST);
  return store;
}

void ba_store_destroy(ba_store *store) {
  if (!store) return;
  ba_region_free(&store->states);
  ba_region_free(&store->keys);
  ba_region_free(&store->blocks);
  ba_region_free(&store->links);
  ba_lines_free(&store->lines);
  ba_free(store->front);
  ba_free(store->init);
  ba_free(store);
}

uint8_t *ba_store_states(const ba_store *store) { return store->states.base; }

void ba_store_set_hash(ba_store *store, ba_hash hash) { store->hash = hash; }

/* ---- Dense order ---- */

/* Where entry i of a partition's list of blocks is; its segment must exist. */
static uint32_t *list_at(const ba_store *store, const part_list *part, uint32_t i) {
  const uint32_t line = i / LIST_LINE;
  const uint32_t k = 31 - (uint32_t)__builtin_clz(2 * line + 1);
  const uint32_t at = part->list[k] + line;
  return (uint32_t *)(void *)ba_lines_at(&store->lines, at) + i % LIST_LINE;
}

static uint32_t slot_at(const ba_store *store, const part_list *part, uint32_t i) {
  return *list_at(store, part, i / BLOCK) * BLOCK + i % BLOCK;
}

/* Makes sure that the partition has a slot for one more instance. -1: no memory. */
static int have_room(ba_store *store, part_list *part) {
  if (part->count < part->blocks * BLOCK) return 0;
  const uint32_t line = part->blocks / LIST_LINE;
  if (part->blocks % LIST_LINE == 0) {
    const uint32_t k = 31 - (uint32_t)__builtin_clz(2 * line + 1);
    if (k >= LIST_SEGMENTS) return -1;
    if ((line & (line - 1)) == 0 && k >= part->list_segments) { /* first line of a segment that is not there yet */
      const uint32_t first = ba_lines_take(&store->lines, line ? line : 1);
      if (first == 0) return -1;
      part->list[k] = first - line;
      part->list_segments = k + 1;
    }
  }
  uint32_t block = store->free_block;
  if (block != NONE) {
    store->free_block = blocks_of(store)[block];
    store->free_blocks--;
  } else {
    block = store->block_count;
    const size_t slots = ((size_t)block + 1) * BLOCK;
    if (slots > store->slots_max) return -1;
    if (ba_region_grow(&store->states, slots * store->stride) != 0 ||
        ba_region_grow(&store->keys, slots * sizeof(uint64_t)) != 0 ||
        ba_region_grow(&store->blocks, ((size_t)block + 1) * sizeof(uint32_t)) != 0 ||
        (store->idle_ticks && ba_region_grow(&store->links, slots * sizeof(idle_link)) != 0)) {
      return -1;
    }
    store->block_count++;
  }
  blocks_of(store)[block] = part->blocks;
  *list_at(store, part, part->blocks) = block;
  part->blocks++;
  return 0;
}

/* ---- Expiry lists ---- */

static void link_last(ba_store *store, part_list *part, uint32_t slot, uint32_t tick) {
  idle_link *links = links_of(store);
  links[slot] = (idle_link){.last_tick = tick, .prev = part->tail, .next = NONE};
  if (part->tail == NONE) {
    part->head = slot;
  } else {
    links[part->tail].next = slot;
  }
  part->tail = slot;
}

static void unlink_slot(ba_store *store, part_list *part, uint32_t slot) {
  idle_link *links = links_of(store);
  const idle_link gone = links[slot];
  *(gone.prev == NONE ? &part->head : &links[gone.prev].next) = gone.next;
  *(gone.next == NONE ? &part->tail : &links[gone.next].prev) = gone.prev;
}

static bool is_due(const ba_store *store, uint32_t slot, uint32_t tick) {
  return (uint32_t)(tick - links_of(store)[slot].last_tick) >= store->idle_ticks;
}

/* An instance in place: the state that a new one has. */
static void start(ba_store *store, uint32_t slot) {
  memcpy(state_of(store, slot), store->init, store->stride);
  store->counts.created++;
}

void ba_store_touch(ba_store *store, unsigned partition, uint32_t slot, uint32_t tick) {
  part_list *part = &store->parts[partition];
  const uint32_t last = links_of(store)[slot].last_tick;
  if (tick == last) return;
  if (is_due(store, slot, tick)) {
    store->counts.expired++;
    start(store, slot);
  }
  unlink_slot(store, part, slot);
  link_last(store, part, slot, tick);
}

/* ---- One key ---- */

/* A new instance, in order. A slot, or why not. */
static uint32_t insert(ba_store *store, unsigned partition, uint64_t key, uint32_t tick) {
  part_list *part = &store->parts[partition];
  if (part->count >= store->partition_keys_max) {
    if (store->idle_ticks == 0 || !is_due(store, part->head, tick)) {
      store->counts.refused_keys++;
      return BA_SLOT_KEY_CAP;
    }
    const uint32_t slot = part->head;
    const uint64_t old = keys_of(store)[slot];
    if (ba_table_insert(&store->lines, &store->hash, &store->table, key, slot) != 0) {
      store->counts.refused_memory++;
      return BA_SLOT_NO_MEMORY;
    }
    (void)ba_table_remove(&store->lines, &store->hash, &store->table, old); /* after the insert, which may fail */
    keys_of(store)[slot] = key;
    unlink_slot(store, part, slot);
    link_last(store, part, slot, tick);
    store->counts.expired++;
    start(store, slot);
    return slot;
  }
  if (have_room(store, part) != 0) {
    store->counts.refused_memory++;
    return BA_SLOT_NO_MEMORY;
  }
  const uint32_t slot = slot_at(store, part, part->count);
  if (ba_table_insert(&store->lines, &store->hash, &store->table, key, slot) != 0) {
    store->counts.refused_memory++;
    return BA_SLOT_NO_MEMORY;
  }
  part->count++;
  store->count++;
  keys_of(store)[slot] = key;
  if (store->idle_ticks) link_last(store, part, slot, tick);
  start(store, slot);
  return slot;
}

uint32_t ba_store_resolve_one(ba_store *store, unsigned partition, uint64_t key, uint32_t tick) {
  const uint32_t *found = ba_table_find(&store->lines, &store->hash, &store->table, key);
  if (!found) return insert(store, partition, key, tick);
  const uint32_t slot = *found;
  if (store->idle_ticks) ba_store_touch(store, partition, slot, tick);
  return slot;
}

/* Removes the instance in a slot; the last one of its partition takes its place. */
static void remove_slot(ba_store *store, unsigned partition, uint32_t slot) {
  part_list *part = &store->parts[partition];
  ba_table *table = &store->table;
  uint64_t *keys = keys_of(store);
  (void)ba_table_remove(&store->lines, &store->hash, table, keys[slot]);
  if (store->idle_ticks) unlink_slot(store, part, slot);
  const uint32_t last = slot_at(store, part, part->count - 1);
  if (last != slot) {
    memcpy(state_of(store, slot), state_of(store, last), store->stride);
    keys[slot] = keys[last];
    *ba_table_find(&store->lines, &store->hash, table, keys[last]) = slot;
    if (store->idle_ticks) {
      idle_link *links = links_of(store);
      const idle_link moved = links[slot] = links[last];
      *(moved.prev == NONE ? &part->head : &links[moved.prev].next) = slot;
      *(moved.next == NONE ? &part->tail : &links[moved.next].prev) = slot;
    }
  }
  part->count--;
  store->count--;
  while (part->blocks && part->count <= (part->blocks - 1) * BLOCK) {
    const uint32_t block = *list_at(store, part, --part->blocks);
    blocks_of(store)[block] = store->free_block;
    store->free_block = block;
    store->free_blocks++;
  }
}

uint32_t ba_store_find(const ba_store *store, uint64_t key, uint32_t tick) {
  const uint32_t *found = ba_table_find(&store->lines, &store->hash, &store->table, key);
  if (!found || ba_store_due(store, *found, tick)) return BA_SLOT_NONE;
  return *found;
}

int ba_store_remove(ba_store *store, uint64_t key) {
  const unsigned partition = ba_partition(key);
  const uint32_t *found = ba_table_find(&store->lines, &store->hash, &store->table, key);
  if (!found) return -1;
  remove_slot(store, partition, *found);
  ba_store_clear_front(store);
  return 0;
}

uint32_t ba_store_expire(ba_store *store, unsigned partition, uint32_t tick, uint32_t max) {
  if (store->idle_ticks == 0) return 0;
  const part_list *part = &store->parts[partition];
  uint32_t n = 0;
  while (n < max && part->head != NONE && is_due(store, part->head, tick)) {
    remove_slot(store, partition, part->head);
    n++;
  }
  store->counts.expired += n;
  return n;
}

/* ---- All of a partition at once ---- */

void ba_store_copy(const ba_store *store, unsigned partition, uint64_t *keys, uint8_t *states) {
  const part_list *part = &store->parts[partition];
  for (uint32_t i = 0; i < part->count; i += BLOCK) {
    const uint32_t slot = slot_at(store, part, i), left = part->count - i, n = left < BLOCK ? left : BLOCK;
    memcpy(keys + i, keys_of(store) + slot, n * sizeof *keys);
    memcpy(states + (size_t)i * store->stride, state_of(store, slot), (size_t)n * store->stride);
  }
}

/* The lists are walked side by side, because a step along one of them is a cache miss: many are under way at a time. */
void ba_store_copy_touches(const ba_store *store, uint32_t *const orders[BA_PARTITIONS],
                           uint32_t *const ticks[BA_PARTITIONS]) {
  const idle_link *links = links_of(store);
  const uint32_t *blocks = blocks_of(store);
  unsigned walked[BA_PARTITIONS], n = 0;
  uint32_t at[BA_PARTITIONS];
  for (unsigned p = 0; p < BA_PARTITIONS; p++) {
    at[p] = store->parts[p].head;
    if (at[p] != NONE) walked[n++] = p;
  }
  for (uint32_t row = 0; n; row++) {
    for (unsigned w = 0; w < n; w++) {
      const unsigned p = walked[w];
      const idle_link link = links[at[p]];
      orders[p][row] = blocks[at[p] / BLOCK] * BLOCK + at[p] % BLOCK;
      ticks[p][row] = link.last_tick;
      at[p] = link.next;
      if (link.next == NONE) walked[w--] = walked[--n];
    }
  }
}

int ba_store_fill(ba_store *store, unsigned partition, uint32_t n, const uint64_t *keys, const uint8_t *states,
                  const uint32_t *order, const uint32_t *ticks) {
  part_list *part = &store->parts[partition];
  for (uint32_t i = 0; i < n; i++) {
    if (have_room(store, part) != 0) return -1;
    const uint32_t slot = slot_at(store, part, i);
    if (ba_table_insert(&store->lines, &store->hash, &store->table, keys[i], slot) != 0) {
      return -1;
    }
    part->count++;
    store->count++;
    keys_of(store)[slot] = keys[i];
    memcpy(state_of(store, slot), states + (size_t)i * store->stride, store->stride);
  }
  for (uint32_t i = 0; i < n && store->idle_ticks; i++) {
    link_last(store, part, slot_at(store, part, order[i]), ticks[i]);
  }
  return 0;
}

/* ---- What there is ---- */

bool ba_store_is_large(const ba_store *store) {
  return (size_t)store->lines.used * BA_LINE_BYTES + store->states.used > LARGE_BYTES;
}

uint32_t ba_store_count(const ba_store *store, unsigned partition) { return store->parts[partition].count; }

uint32_t ba_store_slot_at(const ba_store *store, unsigned partition, uint32_t i) {
  return slot_at(store, &store->parts[partition], i);
}

uint64_t ba_store_key(const ba_store *store, uint32_t slot) { return keys_of(store)[slot]; }

bool ba_store_due(const ba_store *store, uint32_t slot, uint32_t tick) {
  return store->idle_ticks != 0 && is_due(store, slot, tick);
}

uint64_t ba_store_bytes(const ba_store *store) {
  const uint64_t all = ba_region_bytes(&store->states) + ba_region_bytes(&store->keys) +
                       ba_region_bytes(&store->blocks) + ba_region_bytes(&store->links) +
                       ba_region_bytes(&store->lines.region) + sizeof(ba_store) + store->stride +
                       (store->front ? BA_FRONT_PLACES * sizeof *store->front : 0);
  return all - store->count * store->stride;
}

ba_store_counts ba_store_counted(const ba_store *store) { return store->counts; }

uint64_t ba_store_refused_keys(const ba_store *store) { return store->counts.refused_keys; }

uint64_t ba_store_refused_memory(const ba_store *store) { return store->counts.refused_memory; }
