/*
 * A store: the keyed state of one actor inside one shard.
 *
 * An instance is a key with `stride` bytes of state at states + slot * stride. It stays in its slot until it, or an
 * instance of the same partition, is removed. Each partition keeps its instances in dense order: a new one comes last,
 * and when one is removed the last one takes its place. Nothing but slot numbers depends on the secret: dense order,
 * refusals and expiry are a function of the operations on that partition alone, in their order.
 *
 * With expiry, an instance is due at a tick when tick - last_tick >= idle_ticks, modulo 2^32. Ticks never go back but
 * may wrap, so an instance must be touched or expired within 2^32 ticks of its last touch. A due instance is as good as
 * absent: ba_store_find does not find it, and a signal for its key starts it fresh where it stands. A new key in a
 * full partition of which an instance is due takes over the place of the one untouched for longest, so whether a key is
 * refused does not depend on how far ba_store_expire has come.
 *
 * One thread at a time per store; nothing waits. States never move as the store grows.
 * Invariants: count of a partition <= partition_keys_max if that is not 0, or what it was filled with if that is more;
 * 16 * blocks of a partition < count + 32;
 * along the expiry list of a partition last_tick never decreases (modulo 2^32).
 */
#ifndef BITACTOR_STORE_H
#define BITACTOR_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include <bitactor/signal.h>
#include <bitactor/table.h>

/* What ba_store_resolve and ba_store_find give in place of a slot. */
enum {
  BA_SLOT_NONE = UINT32_MAX,          /* absent (ba_store_find only) */
  BA_SLOT_KEY_CAP = UINT32_MAX - 1,   /* refused: the partition holds partition_keys_max live keys */
  BA_SLOT_NO_MEMORY = UINT32_MAX - 2, /* refused: a new key and no memory for it */
  BA_SLOT_REFUSED = UINT32_MAX - 2    /* any value at or above this is not a slot */
};

typedef struct ba_store ba_store;

typedef struct ba_store_config {
  uint32_t stride;             /* bytes of one state, at least 1; a multiple of 8 keeps states aligned */
  const uint8_t *init;         /* stride bytes: a new instance's state; copied */
  uint32_t partition_keys_max; /* most keys in one partition; 0: no cap */
  uint32_t idle_ticks;         /* 0: instances never expire */
  uint64_t secret[2];          /* places keys in tables; nothing observable depends on it */
  uint64_t reserve_keys;       /* address space for so many keys; 0: about 2^30, or what fits 2^40 bytes */
  uint32_t lanes;              /* of which this store is one's: that many share the reservation; 0: 1 */
} ba_store_config;

/* An empty store; null: no memory. Any thread. If the address space asked for is not to be had, it makes do with less.
 */
ba_store *ba_store_create(const ba_store_config *config);

/* Gives everything back; null is allowed. Pointers into the store are dead. */
void ba_store_destroy(ba_store *store);

/* Base address of the states, for handlers; never changes. */
uint8_t *ba_store_states(const ba_store *store);

/*
 * Resolves a batch: for i in [0, n), the signal is signals[order[i]], its partition parts[order[i]], and slots[i]
 * becomes its instance's slot. Unknown keys become new instances, in this order. A refused signal gets BA_SLOT_KEY_CAP
 * or BA_SLOT_NO_MEMORY. Returns how many were refused. All slots given stay good until the next removal or expiry.
 * With expiry, every instance met is touched: its last tick becomes `tick`.
 */
uint32_t ba_store_resolve(ba_store *store, const ba_signal *signals, const uint8_t *parts, const uint16_t *order,
                          uint32_t n, uint32_t tick, uint32_t *slots);

/* Whether tables and states are larger than a core's own cache. */
bool ba_store_is_large(const ba_store *store);

/* Slot of a key; BA_SLOT_NONE: absent, or due at `tick`. Touches nothing. */
uint32_t ba_store_find(const ba_store *store, uint64_t key, uint32_t tick);

/* Removes a key. 0: done. -1: it was not there. */
int ba_store_remove(ba_store *store, uint64_t key);

/* Instances in a partition, due ones that were not removed yet among them. */
uint32_t ba_store_count(const ba_store *store, unsigned partition);

/* Slot of instance i of a partition in dense order; 0 <= i < ba_store_count. */
uint32_t ba_store_slot_at(const ba_store *store, unsigned partition, uint32_t i);

/* Key of the instance in a slot that is in use. */
uint64_t ba_store_key(const ba_store *store, uint32_t slot);

/* Whether the instance in a slot that is in use is due at `tick`; always false without expiry. */
bool ba_store_due(const ba_store *store, uint32_t slot, uint32_t tick);

/*
 * Removes instances of a partition that are due at `tick`, the one untouched for longest first, `max` at most; returns
 * how many. Fewer than `max`: none is due any more. O(returned).
 */
uint32_t ba_store_expire(ba_store *store, unsigned partition, uint32_t tick, uint32_t max);

/* Copies the keys (count of them) and states (stride bytes each) of a partition, in dense order. */
void ba_store_copy(const ba_store *store, unsigned partition, uint64_t *keys, uint8_t *states);

/*
 * Copies the expiry lists of a store with expiry, from the instance untouched for longest to the newest: orders[p][i]
 * is the place in dense order of the i-th instance of partition p in its list, ticks[p][i] its last tick. Arrays of
 * empty partitions are not looked at.
 */
void ba_store_copy_touches(const ba_store *store, uint32_t *const orders[BA_PARTITIONS],
                           uint32_t *const ticks[BA_PARTITIONS]);

/*
 * Fills an empty partition with n instances in dense order, the key cap notwithstanding. order and ticks as
 * ba_store_copy_touches gives them; unused without expiry. The caller has checked that the keys are of this partition
 * and differ, and that order holds 0 to n - 1. 0: done. -1: no memory; the store is only good for ba_store_destroy.
 */
int ba_store_fill(ba_store *store, unsigned partition, uint32_t n, const uint64_t *keys, const uint8_t *states,
                  const uint32_t *order, const uint32_t *ticks);

/*
 * Bytes of memory in use besides the states of instances: tables, keys, lists, expiry links, the store itself, slots of
 * states that are not in use, all in whole pages.
 */
uint64_t ba_store_bytes(const ba_store *store);

typedef struct ba_store_counts {
  uint64_t created;        /* instances made, fresh starts of due ones included */
  uint64_t expired;        /* instances removed, replaced or started fresh because they were due */
  uint64_t refused_keys;   /* signals refused with BA_SLOT_KEY_CAP */
  uint64_t refused_memory; /* signals refused with BA_SLOT_NO_MEMORY */
  uint64_t looked_again;   /* signals whose key the first look at its bucket did not find: new or in a longer chain */
} ba_store_counts;

/* Counts since the store was made. */
ba_store_counts ba_store_counted(const ba_store *store);
uint64_t ba_store_refused_keys(const ba_store *store);
uint64_t ba_store_refused_memory(const ba_store *store);

/* For tests: replaces the hash of a store that has no keys yet, for instance by one under which all keys collide. */
void ba_store_set_hash(ba_store *store, ba_hash hash);

/* For tests and benchmarks: which of the ways to compare keys to use; they differ in speed only. Returns the one in
 * use. */
enum ba_store_way { BA_WAY_BEST, BA_WAY_SCALAR, BA_WAY_AVX2, BA_WAY_AVX512 };
enum ba_store_way ba_store_set_way(ba_store *store, enum ba_store_way way);

#endif
