/*
 * Inside of a store, shared by store.c (one key at a time) and resolve.c (batches). Nothing else includes this.
 * One thread at a time per store.
 */
#ifndef BITACTOR_STORE_IMPL_H
#define BITACTOR_STORE_IMPL_H

#include <bitactor/store.h>

enum {
  BLOCK = 16,         /* slots a partition gets at once */
  LIST_LINE = 16,     /* block numbers in one line of a partition's list */
  LIST_SEGMENTS = 25, /* segment 0 is one line, segment k > 0 is 1 << (k - 1) lines: 2^28 blocks at most */
  BA_FRONT_BITS = 14,
  BA_FRONT_PLACES = 1 << BA_FRONT_BITS,
  LARGE_BYTES = 1 << 20,
  NONE = UINT32_MAX
};

/* Place of a slot in its partition's list of instances ordered by last touch. */
typedef struct idle_link {
  uint32_t last_tick;
  uint32_t prev; /* slot touched before; NONE: this is the head */
  uint32_t next; /* slot touched after; NONE: this is the tail */
} idle_link;

typedef struct part_list {
  uint32_t count;               /* instances */
  uint32_t blocks;              /* blocks owned: count <= 16 * blocks */
  uint32_t head, tail;          /* expiry list; NONE: empty */
  uint32_t list_segments;       /* segments of the list of blocks that exist; they are never given back */
  uint32_t list[LIST_SEGMENTS]; /* line i of the list = list[k(i)] + i, modulo 2^32 */
} part_list;

struct resolve_job; /* resolve.c */

/* One place of the front: a key met lately and its slot. */
typedef struct front_place {
  uint64_t key;
  uint32_t slot;
  uint32_t spare;
} front_place;

typedef uint32_t (*resolve_fn)(const struct resolve_job *job, uint32_t n);

struct ba_store {
  ba_table table;
  ba_lines lines; /* buckets of the table, and the lists of blocks */
  ba_region states, keys, blocks, links;
  ba_hash hash;
  uint8_t *init;
  resolve_fn resolve;
  uint64_t count; /* instances of all partitions */
  uint32_t stride;
  uint32_t partition_keys_max; /* UINT32_MAX: no cap */
  uint32_t idle_ticks;         /* 0: no expiry, no links */
  uint32_t slots_max;          /* address space is reserved for so many */
  uint32_t block_count;        /* blocks ever handed out */
  uint32_t free_block;         /* first free block; NONE: none */
  uint32_t free_blocks;
  enum ba_store_way way;
  front_place *front;    /* see resolve.c; null: not made yet, or no memory for it */
  uint64_t front_factor; /* odd, secret */
  uint32_t front_rest;   /* batches until it is tried again */
  uint32_t front_rests;  /* batches that it rests after the next try in vain */
  ba_store_counts counts;
  part_list parts[BA_PARTITIONS];
};

static inline uint8_t *state_of(const ba_store *store, uint32_t slot) {
  return store->states.base + (size_t)slot * store->stride;
}
static inline uint64_t *keys_of(const ba_store *store) { return (uint64_t *)(void *)store->keys.base; }
static inline uint32_t *blocks_of(const ba_store *store) { return (uint32_t *)(void *)store->blocks.base; }
static inline idle_link *links_of(const ba_store *store) { return (idle_link *)(void *)store->links.base; }

/* Resolves one signal by the long way: any chain, an insert, a touch. A slot, or why it was refused. */
uint32_t ba_store_resolve_one(ba_store *store, unsigned partition, uint64_t key, uint32_t tick);

/* Forgets what the front knows: slots may have moved. */
void ba_store_clear_front(ba_store *store);

/* Records that an instance was met at a tick; starts it fresh if it was due. Stores with expiry only. */
void ba_store_touch(ba_store *store, unsigned partition, uint32_t slot, uint32_t tick);

#endif
