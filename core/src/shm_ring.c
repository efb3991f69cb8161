/*
 * Shared memory segments for the one-to-one ring: make, check, attach, notice deaths (shm_ring.h).
 *
 * Header page: constants written once by the creator, `ready` last, with release; then one ba_shm_side a role, written
 * by the side that holds the role's lock.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <bitactor/shm_ring.h>

#include <bitactor/alloc.h>

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 4096, ORDER_MARK = 0x01020304 };

#define MAGIC UINT64_C(0x31474e5254434142) /* "BACTRNG1" in little-endian bytes */

/* Constants of a segment; crc covers what precedes it. */
typedef struct shm_constants {
  uint64_t magic;
  uint32_t order; /* ORDER_MARK in the creator's byte order */
  uint32_t version;
  uint64_t capacity;
  uint64_t start;
  uint64_t file_bytes;
  uint64_t slots_at; /* offset of the slots in the file */
  uint32_t item_bytes;
  uint32_t control_bytes; /* sizeof(ba_spsc_control): differs between incompatible builds */
  uint32_t type_tag;
  uint32_t crc;
} shm_constants;

_Static_assert(sizeof(shm_constants) == 64, "no padding, so the CRC covers every byte");

typedef struct shm_side {
  BA_ATOMIC(uint32_t) state; /* ba_shm_peer, but for DIED, which is found out */
  BA_ATOMIC(uint32_t) pid;
  BA_ATOMIC(uint64_t) started;       /* start time of the process, clock ticks since boot */
  BA_ATOMIC(uint64_t) pid_namespace; /* pid has a meaning only to who shares it */
} shm_side;

typedef struct shm_header {
  shm_constants constants;
  BA_ATOMIC(uint32_t) ready; /* 1 once constants and control are complete */
  shm_side sides[2];
} shm_header;

_Static_assert(sizeof(shm_header) <= HEADER_BYTES, "the header fits its page");
_Static_assert(HEADER_BYTES % BA_RING_APART == 0, "the control block is aligned");

struct ba_shm_ring {
  ba_spsc_producer producer;
  ba_spsc_consumer consumer;
  ba_ring_options options;
  shm_header *header;
  ba_spsc_control *control;
  size_t bytes;
  int fd;
  ba_shm_role role;
};

/* CRC-32C (Castagnoli, polynomial 0x1EDC6F41 reflected), bit by bit: 60 bytes once per attach. */
static uint32_t crc32c(const void *data, size_t n) {
  const uint8_t *bytes = data;
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < n; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (UINT32_C(0x82f63b78) & (0 - (crc & 1)));
  }
  return ~crc;
}

static uint64_t slots_offset(void) {
  const uint64_t end = HEADER_BYTES + sizeof(ba_spsc_control);
  return (end + HEADER_BYTES - 1) / HEADER_BYTES * HEADER_BYTES;
}

/* The name as shm_open wants it; false: not a name. */
static bool shm_name(const char *name, char out[BA_SHM_NAME_MAX + 16]) {
  if (name == NULL || name[0] == 0 || name[0] == '.') return false;
  size_t n = 0;
  for (; name[n] != 0; n++) {
    const char c = name[n];
    const bool good =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!good || n >= BA_SHM_NAME_MAX) return false;
  }
  snprintf(out, BA_SHM_NAME_MAX + 16, "/bitactor-%s", name);
  return true;
}

static ba_ring_result fail_at_create(int fd, const char *path, ba_ring_result result) {
  const int error = errno;
  close(fd);
  shm_unlink(path);
  errno = error;
  return result;
}

ba_ring_result ba_shm_create(const char *name, const ba_ring_options *options) {
  char path[BA_SHM_NAME_MAX + 16];
  if (!ba_ring_options_valid(options) || !shm_name(name, path)) return BA_RING_BAD_OPTION;
  /* at most 2^30 * 2^16 + two pages: no overflow */
  const uint64_t bytes = slots_offset() + options->capacity * options->item_bytes;
  const int fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return errno == EEXIST ? BA_RING_EXISTS : BA_RING_SYSTEM;
  if (fchmod(fd, 0600) != 0) return fail_at_create(fd, path, BA_RING_SYSTEM);
  errno = posix_fallocate(fd, 0, (off_t)bytes); /* zeroed, and all of it there: no SIGBUS for want of memory later */
  if (errno != 0) return fail_at_create(fd, path, BA_RING_SYSTEM);
  const size_t mapped = slots_offset();
  uint8_t *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return fail_at_create(fd, path, BA_RING_SYSTEM);
  shm_header *header = (shm_header *)memory;
  header->constants = (shm_constants){.magic = MAGIC,
                                      .order = ORDER_MARK,
                                      .version = BA_SHM_VERSION,
                                      .capacity = options->capacity,
                                      .start = options->start,
                                      .file_bytes = bytes,
                                      .slots_at = slots_offset(),
                                      .item_bytes = options->item_bytes,
                                      .type_tag = options->type_tag,
                                      .control_bytes = sizeof(ba_spsc_control)};
  header->constants.crc = crc32c(&header->constants, offsetof(shm_constants, crc));
  ba_spsc_control_init((ba_spsc_control *)(memory + HEADER_BYTES), options->start, true, false);
  ba_store_release(&header->ready, 1); /* release: pairs with the acquire in check_header; all of the above is there */
  munmap(memory, mapped);
  close(fd);
  return BA_RING_OK;
}

ba_ring_result ba_shm_unlink(const char *name) {
  char path[BA_SHM_NAME_MAX + 16];
  if (!shm_name(name, path)) return BA_RING_BAD_OPTION;
  if (shm_unlink(path) == 0) return BA_RING_OK;
  return errno == ENOENT ? BA_RING_ABSENT : BA_RING_SYSTEM;
}

/* Copies the constants out and believes them only if everything fits together. */
static ba_ring_result check_header(shm_header *header, uint64_t file_bytes, shm_constants *out) {
  memcpy(out, &header->constants, sizeof(*out));
  if (ba_load_acquire(&header->ready) != 1) { /* acquire: pairs with the release in ba_shm_create */
    return out->magic == 0 ? BA_RING_ABSENT : BA_RING_FOREIGN;
  }
  memcpy(out, &header->constants, sizeof(*out));
  if (out->magic != MAGIC || out->order != ORDER_MARK || out->version != BA_SHM_VERSION) return BA_RING_FOREIGN;
  if (out->crc != crc32c(out, offsetof(shm_constants, crc))) return BA_RING_CORRUPT;
  if (out->control_bytes != sizeof(ba_spsc_control)) return BA_RING_FOREIGN;
  const ba_ring_options options = {.capacity = out->capacity, .item_bytes = out->item_bytes};
  if (!ba_ring_options_valid(&options) || out->slots_at != slots_offset() ||
      out->file_bytes != out->slots_at + out->capacity * out->item_bytes || out->file_bytes != file_bytes) {
    return BA_RING_CORRUPT;
  }
  return BA_RING_OK;
}

static struct flock role_lock(ba_shm_role role) {
  return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)role, .l_len = 1};
}

/* Start time of a process in clock ticks since boot (proc(5), stat, field 22); 0: no such process. */
static uint64_t process_started(uint32_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof(path), "/proc/%u/stat", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t n = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (n <= 0) return 0;
  text[n] = 0;
  const char *at = strrchr(text, ')'); /* the program's name may hold anything */
  if (at == NULL) return 0;
  /* After the name: " S ppid ...". A zombie has given everything back but its number. */
  if (at[1] == 0 || at[2] == 'Z' || at[2] == 'X') return 0;
  at += 2;
  for (int field = 3; field < 22 && at != NULL; field++) {
    at = strchr(at, ' ');
    if (at != NULL) at++;
  }
  return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static uint64_t pid_namespace(void) {
  struct stat info;
  return stat("/proc/self/ns/pid", &info) == 0 ? (uint64_t)info.st_ino : 0;
}

/* With the lock of `role` held by nobody else: whether what its last holder left is consistent; takes over. */
static ba_ring_result enter(ba_shm_ring *r, uint8_t *memory) {
  ba_spsc_control *control = r->control;
  const uint64_t published = ba_load_acquire(&control->published); /* acquire: what its last writer did is visible */
  const uint64_t released = ba_load_acquire(&control->released);
  /* The other side may go on between the two loads: released may then be past the published read here. */
  const uint64_t queued = published - released;
  if (queued > r->options.capacity && released - published > r->options.capacity) return BA_RING_CORRUPT;
  shm_side *side = &r->header->sides[r->role];
  ba_store_relaxed(&side->pid, (uint32_t)getpid()); /* relaxed: published by the store of the state */
  ba_store_relaxed(&side->started, process_started((uint32_t)getpid()));
  ba_store_relaxed(&side->pid_namespace, pid_namespace());
  ba_store_release(&side->state, BA_SHM_ALIVE); /* release: pairs with the acquire in ba_shm_look_at_peer */
  /* Only this side waits at its point: whoever died waiting there is no longer parked. */
  ba_wait_point *own = r->role == BA_SHM_PRODUCER ? &control->space : &control->items;
  ba_store_seq_cst(&own->word, 0); /* seq_cst: as every access of the word that wait.h pairs */
  ba_store_seq_cst(&own->picky, 0);
  if (r->role == BA_SHM_PRODUCER) {
    r->producer = ba_spsc_producer_of(control, memory, &r->options);
  } else {
    r->consumer = ba_spsc_consumer_of(control, memory, &r->options);
  }
  return BA_RING_OK;
}

static ba_ring_options options_of(const shm_constants *constants) {
  return (ba_ring_options){.capacity = constants->capacity,
                           .item_bytes = constants->item_bytes,
                           .type_tag = constants->type_tag,
                           .start = constants->start};
}

/* Opens the segment and checks its constants: OK, or what ba_shm_attach says. *fd is open only if OK. */
static ba_ring_result open_checked(const char *path, int *fd_out, shm_constants *constants) {
  const int fd = shm_open(path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return errno == ENOENT ? BA_RING_ABSENT : BA_RING_SYSTEM;
  ba_ring_result result = BA_RING_SYSTEM;
  struct stat info;
  if (fstat(fd, &info) != 0) goto fail;
  result = BA_RING_ABSENT; /* the creator has not sized it yet */
  if (info.st_size == 0) goto fail;
  result = BA_RING_FOREIGN;
  if (info.st_size < HEADER_BYTES || !S_ISREG(info.st_mode)) goto fail;
  result = BA_RING_SYSTEM;
  void *header = mmap(NULL, HEADER_BYTES, PROT_READ, MAP_SHARED, fd, 0);
  if (header == MAP_FAILED) goto fail;
  result = check_header(header, (uint64_t)info.st_size, constants);
  munmap(header, HEADER_BYTES);
  if (result != BA_RING_OK) goto fail;
  *fd_out = fd;
  return BA_RING_OK;
fail:;
  const int error = errno;
  close(fd);
  errno = error;
  return result;
}

ba_ring_result ba_shm_look(const char *name, ba_ring_options *options, ba_ring_statistics *statistics) {
  char path[BA_SHM_NAME_MAX + 16];
  if (!shm_name(name, path)) return BA_RING_BAD_OPTION;
  int fd;
  shm_constants constants;
  const ba_ring_result result = open_checked(path, &fd, &constants);
  if (result != BA_RING_OK) return result;
  uint8_t *memory = mmap(NULL, (size_t)constants.slots_at, PROT_READ, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  errno = error;
  if (memory == MAP_FAILED) return BA_RING_SYSTEM;
  *options = options_of(&constants);
  *statistics =
      ba_spsc_control_statistics((ba_spsc_control *)(memory + HEADER_BYTES), constants.capacity, constants.start);
  munmap(memory, (size_t)constants.slots_at);
  return BA_RING_OK;
}

ba_ring_result ba_shm_attach(const char *name, ba_shm_role role, ba_shm_ring **ring) {
  char path[BA_SHM_NAME_MAX + 16];
  *ring = NULL;
  if (!shm_name(name, path) || (role != BA_SHM_PRODUCER && role != BA_SHM_CONSUMER)) return BA_RING_BAD_OPTION;
  int fd;
  shm_constants constants;
  ba_ring_result result = open_checked(path, &fd, &constants);
  if (result != BA_RING_OK) return result;
  ba_shm_ring *r = NULL;
  const size_t mapped = (size_t)constants.file_bytes;
  uint8_t *memory = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  result = BA_RING_SYSTEM;
  if (memory == MAP_FAILED) goto fail;
  struct flock lock = role_lock(role);
  if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    result = errno == EAGAIN || errno == EACCES ? BA_RING_TAKEN : BA_RING_SYSTEM;
    goto fail;
  }
  r = ba_alloc_aligned(sizeof(*r), BA_CACHE_LINE);
  result = BA_RING_NO_MEMORY;
  if (r == NULL) goto fail;
  r->options = options_of(&constants);
  r->header = (shm_header *)memory;
  r->control = (ba_spsc_control *)(memory + HEADER_BYTES);
  r->bytes = mapped;
  r->fd = fd;
  r->role = role;
  result = enter(r, memory + constants.slots_at);
  if (result != BA_RING_OK) goto fail;
  *ring = r;
  return BA_RING_OK;
fail:;
  const int error = errno;
  ba_free(r);
  if (memory != MAP_FAILED) munmap(memory, mapped);
  close(fd);
  errno = error;
  return result;
}

void ba_shm_detach(ba_shm_ring *r, bool end) {
  if (r == NULL) return;
  if (end && r->role == BA_SHM_PRODUCER) ba_spsc_producer_close(&r->producer);
  if (end && r->role == BA_SHM_CONSUMER) ba_spsc_control_stop(r->control);
  /* release: pairs with the acquire in ba_shm_look_at_peer; the last items are published before the leaving is seen */
  ba_store_release(&r->header->sides[r->role].state, BA_SHM_LEFT);
  ba_shm_abandon(r);
}

void ba_shm_abandon(ba_shm_ring *r) {
  if (r == NULL) return;
  munmap(r->header, r->bytes);
  struct flock lock = role_lock(r->role);
  lock.l_type = F_UNLCK; /* by itself: a fork of this process may have the file open still */
  fcntl(r->fd, F_OFD_SETLK, &lock);
  close(r->fd);
  ba_free(r);
}

ba_spsc_producer *ba_shm_producer(ba_shm_ring *r) { return r->role == BA_SHM_PRODUCER ? &r->producer : NULL; }

ba_spsc_consumer *ba_shm_consumer(ba_shm_ring *r) { return r->role == BA_SHM_CONSUMER ? &r->consumer : NULL; }

ba_ring_options ba_shm_options(const ba_shm_ring *r) { return r->options; }

ba_ring_statistics ba_shm_statistics(const ba_shm_ring *r) {
  return ba_spsc_control_statistics(r->control, r->options.capacity, r->options.start);
}

ba_shm_peer ba_shm_look_at_peer(ba_shm_ring *r) {
  const ba_shm_role other = r->role == BA_SHM_PRODUCER ? BA_SHM_CONSUMER : BA_SHM_PRODUCER;
  shm_side *side = &r->header->sides[other];
  /* acquire: pairs with the release stores of the state; the numbers below belong to it */
  const uint32_t state = ba_load_acquire(&side->state);
  if (state != BA_SHM_ALIVE) return state == BA_SHM_LEFT ? BA_SHM_LEFT : BA_SHM_NEVER_CAME;
  struct flock lock = role_lock(other);
  if (fcntl(r->fd, F_OFD_GETLK, &lock) != 0) return BA_SHM_ALIVE; /* cannot tell: not a reason to give up */
  bool dead = lock.l_type == F_UNLCK;
  const uint64_t started = ba_load_relaxed(&side->started); /* relaxed: ordered by the load of the state */
  if (!dead && started != 0 && ba_load_relaxed(&side->pid_namespace) == pid_namespace()) {
    dead = process_started(ba_load_relaxed(&side->pid)) != started; /* the lock lives on in a fork of it */
  }
  if (!dead) return BA_SHM_ALIVE;
  return ba_load_acquire(&side->state) == BA_SHM_LEFT ? BA_SHM_LEFT : BA_SHM_DIED; /* it may have left just now */
}

/* One slice of a wait: as long as the caller has time, at most until the next look at the peer. */
static uint64_t slice(uint64_t deadline) {
  const uint64_t now = ba_monotonic_ns();
  const uint64_t left = deadline > now ? deadline - now : 0;
  return left < BA_SHM_LOOK_NS ? left : BA_SHM_LOOK_NS;
}

static uint64_t deadline_after(uint64_t timeout_ns) {
  const uint64_t now = ba_monotonic_ns();
  return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

/* After a slice without success: whether to go on waiting. */
static ba_ring_result after_slice(ba_shm_ring *r, uint64_t deadline) {
  if (ba_shm_look_at_peer(r) == BA_SHM_DIED) return BA_RING_PEER_DEAD;
  return ba_monotonic_ns() >= deadline ? BA_RING_TIMEOUT : BA_RING_OK;
}

ba_ring_result ba_shm_wait_claim(ba_shm_ring *r, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span) {
  ba_ring_result result = ba_spsc_try_claim(&r->producer, least, most, span);
  if (result != BA_RING_FULL) return result;
  const uint64_t deadline = deadline_after(timeout_ns);
  for (;;) {
    result = ba_spsc_wait_claim(&r->producer, least, most, slice(deadline), span);
    if (result != BA_RING_TIMEOUT) return result;
    result = after_slice(r, deadline);
    if (result != BA_RING_OK) return result;
  }
}

ba_ring_result ba_shm_wait_poll(ba_shm_ring *r, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span) {
  ba_ring_result result = ba_spsc_try_poll(&r->consumer, least, most, span);
  if (result != BA_RING_EMPTY) return result;
  const uint64_t deadline = deadline_after(timeout_ns);
  for (;;) {
    result = ba_spsc_wait_poll(&r->consumer, least, most, slice(deadline), span);
    if (result != BA_RING_TIMEOUT) return result;
    const ba_ring_result seen = after_slice(r, deadline);
    if (seen == BA_RING_OK) continue;
    /* What it published before it died, or before the time was over, is still to be had. */
    result = ba_spsc_try_poll(&r->consumer, seen == BA_RING_PEER_DEAD ? 1 : least, most, span);
    return result == BA_RING_EMPTY ? seen : result;
  }
}

ba_ring_result ba_shm_wait_push(ba_shm_ring *r, const void *items, uint64_t n, uint64_t timeout_ns, uint64_t *pushed) {
  const uint64_t deadline = deadline_after(timeout_ns);
  *pushed = 0;
  while (*pushed < n) {
    const uint64_t left = n - *pushed;
    const uint64_t now = ba_monotonic_ns();
    ba_span span;
    const ba_ring_result result =
        ba_shm_wait_claim(r, 1, left < UINT32_C(1) << 30 ? (uint32_t)left : UINT32_C(1) << 30,
                          deadline == UINT64_MAX ? BA_WAIT_FOREVER : (deadline > now ? deadline - now : 0), &span);
    if (result != BA_RING_OK) return result;
    ba_span_write(&span, (const uint8_t *)items + *pushed * r->options.item_bytes, r->options.item_bytes);
    ba_spsc_publish(&r->producer, span.n);
    *pushed += span.n;
  }
  return BA_RING_OK;
}

ba_ring_result ba_shm_wait_pop(ba_shm_ring *r, void *items, uint64_t most, uint64_t timeout_ns, uint64_t *popped) {
  ba_span span;
  *popped = 0;
  const ba_ring_result result =
      ba_shm_wait_poll(r, 1, most < UINT32_C(1) << 30 ? (uint32_t)most : UINT32_C(1) << 30, timeout_ns, &span);
  if (result != BA_RING_OK) return result;
  ba_span_read(&span, items, r->options.item_bytes);
  ba_spsc_release(&r->consumer, span.n);
  *popped = span.n;
  return BA_RING_OK;
}

#else /* not Linux: locks that belong to an open file, and /proc, are missing */

ba_ring_result ba_shm_create(const char *name, const ba_ring_options *options) {
  (void)name;
  (void)options;
  return BA_RING_SYSTEM;
}
ba_ring_result ba_shm_attach(const char *name, ba_shm_role role, ba_shm_ring **ring) {
  (void)name;
  (void)role;
  *ring = NULL;
  return BA_RING_SYSTEM;
}
ba_ring_result ba_shm_look(const char *name, ba_ring_options *options, ba_ring_statistics *statistics) {
  (void)name;
  *options = (ba_ring_options){.capacity = 0};
  *statistics = (ba_ring_statistics){.capacity = 0};
  return BA_RING_SYSTEM;
}
void ba_shm_detach(ba_shm_ring *r, bool end) {
  (void)r;
  (void)end;
}
void ba_shm_abandon(ba_shm_ring *r) { (void)r; }
ba_ring_result ba_shm_unlink(const char *name) {
  (void)name;
  return BA_RING_SYSTEM;
}
ba_spsc_producer *ba_shm_producer(ba_shm_ring *r) { return (void)r, NULL; }
ba_spsc_consumer *ba_shm_consumer(ba_shm_ring *r) { return (void)r, NULL; }
ba_ring_options ba_shm_options(const ba_shm_ring *r) { return (void)r, (ba_ring_options){.capacity = 0}; }
ba_ring_statistics ba_shm_statistics(const ba_shm_ring *r) { return (void)r, (ba_ring_statistics){.capacity = 0}; }
ba_shm_peer ba_shm_look_at_peer(ba_shm_ring *r) { return (void)r, BA_SHM_NEVER_CAME; }
ba_ring_result ba_shm_wait_claim(ba_shm_ring *r, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span) {
  return (void)r, (void)least, (void)most, (void)timeout_ns, (void)span, BA_RING_SYSTEM;
}
ba_ring_result ba_shm_wait_poll(ba_shm_ring *r, uint32_t least, uint32_t most, uint64_t timeout_ns, ba_span *span) {
  return (void)r, (void)least, (void)most, (void)timeout_ns, (void)span, BA_RING_SYSTEM;
}
ba_ring_result ba_shm_wait_push(ba_shm_ring *r, const void *items, uint64_t n, uint64_t timeout_ns, uint64_t *pushed) {
  return (void)r, (void)items, (void)n, (void)timeout_ns, *pushed = 0, BA_RING_SYSTEM;
}
ba_ring_result ba_shm_wait_pop(ba_shm_ring *r, void *items, uint64_t most, uint64_t timeout_ns, uint64_t *popped) {
  return (void)r, (void)items, (void)most, (void)timeout_ns, *popped = 0, BA_RING_SYSTEM;
}

#endif
