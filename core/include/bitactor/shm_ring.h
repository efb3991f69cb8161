/*
 * The one-to-one ring between two processes, over a named POSIX shared memory segment of mode 0600.
 *
 * One process creates the segment, each side attaches a role to it: producer or consumer. Layout: one page of header,
 * the control block of spsc.h, the slots. Only the user who created it can open it.
 *
 * Enter: a ba_shm_ring belongs to one thread at a time; the producer's and the consumer's are different ones, usually
 * in different processes. Linux only; elsewhere every call gives BA_RING_SYSTEM.
 *
 * Trust. Before the slots are mapped, the header's magic, byte order, version, sizes, length of the file and CRC are
 * checked; sizes are then taken from the checked copy, never from the segment again. The counters are checked at each
 * look: published - released is between 0 and the capacity, else BA_RING_CORRUPT. Content is the peer's own affair.
 *
 * Death. Each side holds a lock on its role for as long as its process has the segment open (an open-file-description
 * lock, which the kernel gives back at any kind of death) and leaves its process number and that process's start time
 * in the header (which tells a dead owner from a fork of it that keeps the lock). A waiting side looks every
 * BA_SHM_LOOK_NS. A consumer gets every published item, then PEER_DEAD; a producer gets PEER_DEAD when it finds no
 * room. A side that never came is not dead: one waits for it, up to the timeout. After a death, or a clean detach
 * without close, the role is free and another process may attach it: a producer goes on after the last published item;
 * a consumer after the last released one, so items that were polled and not released are seen again. What a dead
 * producer had claimed and not published was never in the ring.
 */
#ifndef BITACTOR_SHM_RING_H
#define BITACTOR_SHM_RING_H

#include <bitactor/spsc.h>

enum {
  BA_SHM_VERSION = 1,
  BA_SHM_NAME_MAX = 200,
  BA_SHM_LOOK_NS = 10000000 /* a peer's death is noticed within this time, by a side that waits */
};

typedef enum ba_shm_role { BA_SHM_PRODUCER = 0, BA_SHM_CONSUMER = 1 } ba_shm_role;

/* What is known of the process at the other end. */
typedef enum ba_shm_peer { BA_SHM_NEVER_CAME, BA_SHM_ALIVE, BA_SHM_LEFT, BA_SHM_DIED } ba_shm_peer;

typedef struct ba_shm_ring ba_shm_ring;

/*
 * Makes a segment `name` (letters, digits, '.', '_', '-'; not beginning with '.'). It exists until ba_shm_unlink, with
 * or without users. OK, EXISTS, BAD_OPTION or SYSTEM (ENOSPC: no room in /dev/shm; it is reserved in full here, so that
 * no later write can fail).
 */
ba_ring_result ba_shm_create(const char *name, const ba_ring_options *options);

/*
 * Takes a role in the segment. OK, TAKEN (a living process has it), ABSENT, FOREIGN, CORRUPT, BAD_OPTION, NO_MEMORY or
 * SYSTEM. *ring is null unless OK; give it back with ba_shm_detach.
 */
ba_ring_result ba_shm_attach(const char *name, ba_shm_role role, ba_shm_ring **ring);

/*
 * Leaves the role and frees the handle. A producer that closes first (`close`) ends the stream: the consumer drains it
 * and sees CLOSED. A consumer that closes stops the producer: its next claim gives CLOSED. Null is allowed.
 */
void ba_shm_detach(ba_shm_ring *ring, bool close);

/* Gives a role and its handle up without a word: to the other side its holder has died. Null is allowed. */
void ba_shm_abandon(ba_shm_ring *ring);

/* Options and counts of a segment, without a role in it. OK, ABSENT, FOREIGN, CORRUPT, BAD_OPTION or SYSTEM. */
ba_ring_result ba_shm_look(const char *name, ba_ring_options *options, ba_ring_statistics *statistics);

/* Removes the name; who has it open goes on. OK, ABSENT, BAD_OPTION or SYSTEM. */
ba_ring_result ba_shm_unlink(const char *name);

/* The endpoint, for the calls of spsc.h that do not wait; null for the other role. */
ba_spsc_producer *ba_shm_producer(ba_shm_ring *ring);
ba_spsc_consumer *ba_shm_consumer(ba_shm_ring *ring);

/* Options as checked at attach. */
ba_ring_options ba_shm_options(const ba_shm_ring *ring);
ba_ring_statistics ba_shm_statistics(const ba_shm_ring *ring);

/* What is known of the other side. Costs two system calls. */
ba_shm_peer ba_shm_look_at_peer(ba_shm_ring *ring);

/* As ba_spsc_wait_claim and ba_spsc_wait_poll, and PEER_DEAD. */
ba_ring_result ba_shm_wait_claim(ba_shm_ring *ring, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span);
ba_ring_result ba_shm_wait_poll(ba_shm_ring *ring, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span);

/* As ba_spsc_wait_push and ba_spsc_wait_pop, and PEER_DEAD. */
ba_ring_result ba_shm_wait_push(ba_shm_ring *ring, const void *items, uint64_t n, uint64_t timeout_ns,
                                uint64_t *pushed);
ba_ring_result ba_shm_wait_pop(ba_shm_ring *ring, void *items, uint64_t most, uint64_t timeout_ns, uint64_t *popped);

#endif
