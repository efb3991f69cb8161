/*
 * The ring between two processes: what it refuses to attach to, who may have a side, and what each side gets when the
 * other leaves, closes, is killed, or writes what cannot be true.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <bitactor/shm_ring.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ring_items.h"

#ifdef __linux__

enum { HEADER = 4096, CONSTANTS = 64 };

static char name[64], path[128];

static void make(uint64_t capacity, uint64_t start) {
  const ba_ring_options options = {
      .capacity = capacity, .item_bytes = sizeof(item), .type_tag = 0x12345678, .start = start};
  const ba_ring_result result = ba_shm_create(name, &options);
  CHECK(result == BA_RING_OK, "create: %s", ba_ring_result_text(result));
}

static ba_shm_ring *attach(ba_shm_role role) {
  ba_shm_ring *ring;
  const ba_ring_result result = ba_shm_attach(name, role, &ring);
  CHECK(result == BA_RING_OK, "attach: %s", ba_ring_result_text(result));
  return ring;
}

static void push(ba_shm_ring *ring, uint64_t first, uint64_t n) {
  for (uint64_t i = first; i < first + n; i++) {
    const item made = item_of(0, i);
    uint64_t pushed;
    CHECK(ba_shm_wait_push(ring, &made, 1, BA_WAIT_FOREVER, &pushed) == BA_RING_OK && pushed == 1, "push");
  }
}

static void expect(ba_shm_ring *ring, uint64_t first, uint64_t n) {
  for (uint64_t i = first; i < first + n; i++) {
    item got;
    uint64_t popped;
    CHECK(ba_shm_wait_pop(ring, &got, 1, UINT64_C(20000000000), &popped) == BA_RING_OK && popped == 1, "pop");
    CHECK(got.number == i && got.check == item_check(0, i), "item %llu, not %llu", (unsigned long long)got.number,
          (unsigned long long)i);
  }
}

static ba_ring_result pop_one(ba_shm_ring *ring, uint64_t timeout_ns) {
  item got;
  uint64_t popped;
  return ba_shm_wait_pop(ring, &got, 1, timeout_ns, &popped);
}

/* Runs body(argument) in a child, which then says so and sleeps until it is killed; returns when it has said so. */
static pid_t child(void (*body)(uint64_t), uint64_t argument) {
  int said[2];
  CHECK(pipe(said) == 0, "pipe");
  const pid_t pid = fork();
  CHECK(pid >= 0, "fork");
  if (pid == 0) {
    body(argument);
    CHECK(write(said[1], "x", 1) == 1, "write");
    for (;;) pause();
  }
  char byte;
  close(said[1]);
  CHECK(read(said[0], &byte, 1) == 1, "the child failed");
  close(said[0]);
  return pid;
}

static void end(pid_t pid) {
  int status;
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "killed");
}

static void consumes(uint64_t n) { expect(attach(BA_SHM_CONSUMER), 0, n); }

static void claims_without_publishing(uint64_t n) {
  ba_shm_ring *ring = attach(BA_SHM_PRODUCER);
  push(ring, 0, n);
  ba_span span;
  CHECK(ba_spsc_try_claim(ba_shm_producer(ring), 2, 2, &span) == BA_RING_OK, "claim");
  memset(span.first, POISON, span.first_n * sizeof(item));
}

static void polls_without_releasing(uint64_t n) {
  ba_span span;
  CHECK(ba_shm_wait_poll(attach(BA_SHM_CONSUMER), (uint32_t)n, (uint32_t)n, BA_WAIT_FOREVER, &span) == BA_RING_OK,
        "poll");
}

static void items_pass_between_processes_once_and_in_order(uint64_t start) {
  enum { N = 20000 };
  make(64, start);
  ba_shm_ring *ring = attach(BA_SHM_CONSUMER);
  const pid_t pid = fork();
  if (pid == 0) {
    ba_shm_ring *mine = attach(BA_SHM_PRODUCER);
    push(mine, 0, N);
    ba_shm_detach(mine, true);
    _exit(0);
  }
  expect(ring, 0, N);
  CHECK(pop_one(ring, BA_WAIT_FOREVER) == BA_RING_CLOSED, "the end");
  const ba_ring_statistics counts = ba_shm_statistics(ring);
  CHECK(counts.pushed == N && counts.popped == N && counts.queued == 0, "counts");
  int status;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the child failed");
  CHECK(ba_shm_look_at_peer(ring) == BA_SHM_LEFT, "it left");
  ba_shm_detach(ring, true);
  CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
}

static void a_killed_producer_is_noticed_after_its_last_published_item(void) {
  make(16, UINT64_MAX - 3);
  ba_shm_ring *ring = attach(BA_SHM_CONSUMER);
  CHECK(ba_shm_look_at_peer(ring) == BA_SHM_NEVER_CAME && pop_one(ring, 1000000) == BA_RING_TIMEOUT, "nobody yet");
  const pid_t pid = child(claims_without_publishing, 5);
  CHECK(ba_shm_look_at_peer(ring) == BA_SHM_ALIVE, "alive");
  ba_shm_ring *second;
  CHECK(ba_shm_attach(name, BA_SHM_PRODUCER, &second) == BA_RING_TAKEN && second == NULL, "two producers");
  end(pid);
  expect(ring, 0, 5);
  const uint64_t begin = ba_monotonic_ns();
  CHECK(pop_one(ring, BA_WAIT_FOREVER) == BA_RING_PEER_DEAD, "not noticed");
  CHECK(ba_monotonic_ns() - begin < UINT64_C(5000000000), "noticed late");
  ba_shm_ring *next = attach(BA_SHM_PRODUCER); /* its side is free; what it had only claimed was never there */
  push(next, 5, 3);
  expect(ring, 5, 3);
  CHECK(pop_one(ring, 1000000) == BA_RING_TIMEOUT && ba_shm_look_at_peer(ring) == BA_SHM_ALIVE, "alive again");
  ba_shm_abandon(next); /* no word: as if it had died */
  CHECK(pop_one(ring, BA_WAIT_FOREVER) == BA_RING_PEER_DEAD, "abandoned");
  ba_shm_detach(ring, false);
  CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
}

static void a_killed_consumer_is_noticed_by_a_producer_that_finds_no_room(void) {
  make(8, 0);
  ba_shm_ring *ring = attach(BA_SHM_PRODUCER);
  push(ring, 0, 4);
  pid_t pid = child(polls_without_releasing, 3);
  end(pid);
  push(ring, 4, 4);
  const item one = item_of(0, 8);
  uint64_t pushed;
  CHECK(ba_shm_wait_push(ring, &one, 1, BA_WAIT_FOREVER, &pushed) == BA_RING_PEER_DEAD && pushed == 0, "not noticed");
  pid = child(consumes, 6); /* from the first item on: those that were polled and not released come again */
  push(ring, 8, 6);
  end(pid);
  ba_shm_ring *last = attach(BA_SHM_CONSUMER);
  expect(last, 6, 8);
  ba_shm_detach(last, true);
  ba_span span;
  CHECK(ba_shm_wait_claim(ring, 1, 1, BA_WAIT_FOREVER, &span) == BA_RING_CLOSED, "a consumer that closes");
  ba_shm_detach(ring, true);
  CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
}

static void a_side_that_leaves_hands_over(void) {
  make(8, 0);
  ba_shm_ring *ring = attach(BA_SHM_CONSUMER);
  for (uint64_t i = 0; i < 5; i++) {
    ba_shm_ring *producer = attach(BA_SHM_PRODUCER);
    push(producer, 2 * i, 2);
    ba_shm_detach(producer, false);
    CHECK(ba_shm_look_at_peer(ring) == BA_SHM_LEFT, "left");
    if (i % 2 == 0) {
      ba_shm_detach(ring, false);
      ring = attach(BA_SHM_CONSUMER);
    }
    expect(ring, 2 * i, 2);
    CHECK(pop_one(ring, 1000000) == BA_RING_TIMEOUT, "who left may be followed");
  }
  ba_shm_detach(ring, false);
  ba_shm_detach(NULL, true);
  ba_shm_abandon(NULL);
  CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
}

static ba_ring_result attach_result(void) {
  ba_shm_ring *ring;
  const ba_ring_result result = ba_shm_attach(name, BA_SHM_CONSUMER, &ring);
  CHECK((ring != NULL) == (result == BA_RING_OK), "a ring with result %s", ba_ring_result_text(result));
  ba_shm_detach(ring, false);
  ba_ring_options options;
  ba_ring_statistics statistics;
  CHECK(ba_shm_look(name, &options, &statistics) == result, "look and attach differ");
  return result;
}

static void flip(off_t at, uint8_t bits) {
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  uint8_t byte;
  CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1, "read");
  byte ^= bits;
  CHECK(pwrite(fd, &byte, 1, at) == 1, "write");
  close(fd);
}

static void a_header_with_any_bit_changed_is_refused(void) {
  make(8, 7);
  CHECK(attach_result() == BA_RING_OK, "as made");
  for (off_t at = 0; at < CONSTANTS + 4; at++) { /* the constants, and whether they are ready */
    for (int bit = 0; bit < 8; bit++) {
      flip(at, (uint8_t)(1U << bit));
      const ba_ring_result result = attach_result();
      CHECK(result == BA_RING_FOREIGN || result == BA_RING_CORRUPT, "byte %d bit %d: %s", (int)at, bit,
            ba_ring_result_text(result));
      flip(at, (uint8_t)(1U << bit));
    }
  }
  CHECK(attach_result() == BA_RING_OK, "as made");
  CHECK(truncate(path, HEADER + 100) == 0 && attach_result() == BA_RING_CORRUPT, "cut off");
  CHECK(truncate(path, 100) == 0 && attach_result() == BA_RING_FOREIGN, "cut off within the header");
  CHECK(truncate(path, 0) == 0 && attach_result() == BA_RING_ABSENT, "nothing in it yet");
  CHECK(truncate(path, 3 * HEADER) == 0 && attach_result() == BA_RING_ABSENT, "zeros: not ready yet");
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  for (int i = 0; i < 1000; i++) CHECK(write(fd, "something else", 14) == 14, "write");
  close(fd);
  CHECK(attach_result() == BA_RING_FOREIGN, "something else");
  CHECK(ba_shm_unlink(name) == BA_RING_OK && ba_shm_unlink(name) == BA_RING_ABSENT, "unlink");
  CHECK(attach_result() == BA_RING_ABSENT, "gone");
}

static void counters_that_cannot_be_true_are_refused(void) {
  for (int by_flip = 0; by_flip <= 1; by_flip++) {
    make(8, 0);
    ba_shm_ring *consumer = attach(BA_SHM_CONSUMER), *producer = attach(BA_SHM_PRODUCER);
    push(producer, 0, 3);
    const off_t counter =
        HEADER + (off_t)(by_flip ? offsetof(ba_spsc_control, released) : offsetof(ba_spsc_control, published));
    flip(counter + 4, 1); /* 2^32 more */
    if (by_flip) {
      ba_span span;
      CHECK(ba_shm_wait_claim(producer, 8, 8, BA_WAIT_FOREVER, &span) == BA_RING_CORRUPT, "released beyond published");
    } else {
      CHECK(pop_one(consumer, BA_WAIT_FOREVER) == BA_RING_CORRUPT, "published beyond the capacity");
    }
    ba_shm_detach(producer, false);
    ba_shm_detach(consumer, false);
    ba_shm_ring *again;
    CHECK(ba_shm_attach(name, BA_SHM_CONSUMER, &again) == BA_RING_CORRUPT && again == NULL, "attach");
    CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
  }
}

static void names_and_options_have_rules(void) {
  const ba_ring_options right = {.capacity = 8, .item_bytes = 32}, wrong = {.capacity = 7, .item_bytes = 32};
  char longest[BA_SHM_NAME_MAX + 2];
  memset(longest, 'x', sizeof(longest));
  longest[BA_SHM_NAME_MAX + 1] = 0;
  const char *bad[] = {"", ".hidden", "a/b", "a b", "\xc3\xa9", longest};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    ba_shm_ring *ring;
    CHECK(ba_shm_create(bad[i], &right) == BA_RING_BAD_OPTION, "create %zu", i);
    CHECK(ba_shm_attach(bad[i], BA_SHM_PRODUCER, &ring) == BA_RING_BAD_OPTION, "attach %zu", i);
    CHECK(ba_shm_unlink(bad[i]) == BA_RING_BAD_OPTION, "unlink %zu", i);
  }
  CHECK(ba_shm_create(name, &wrong) == BA_RING_BAD_OPTION, "capacity");
  make(8, 3);
  CHECK(ba_shm_create(name, &right) == BA_RING_EXISTS, "twice");
  struct stat info;
  CHECK(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600, "only for its owner");
  ba_ring_options options;
  ba_ring_statistics counts;
  CHECK(ba_shm_look(name, &options, &counts) == BA_RING_OK, "look");
  CHECK(options.capacity == 8 && options.item_bytes == 32 && options.type_tag == 0x12345678 && options.start == 3,
        "look");
  CHECK(counts.capacity == 8 && counts.pushed == 0, "look");
  ba_alloc_fail_every(1);
  ba_shm_ring *ring;
  CHECK(ba_shm_attach(name, BA_SHM_PRODUCER, &ring) == BA_RING_NO_MEMORY && ring == NULL, "memory");
  ba_alloc_fail_every(0);
  ring = attach(BA_SHM_PRODUCER); /* the failed one gave its side back */
  CHECK(ba_shm_producer(ring) != NULL && ba_shm_consumer(ring) == NULL, "a producer is no consumer");
  CHECK(ba_shm_options(ring).type_tag == 0x12345678, "options");
  ba_shm_detach(ring, true);
  CHECK(ba_shm_unlink(name) == BA_RING_OK, "unlink");
}

int main(void) {
  snprintf(name, sizeof(name), "test-shm-%d", (int)getpid());
  snprintf(path, sizeof(path), "/dev/shm/bitactor-%s", name);
  names_and_options_have_rules();
  a_header_with_any_bit_changed_is_refused();
  counters_that_cannot_be_true_are_refused();
  a_side_that_leaves_hands_over();
  items_pass_between_processes_once_and_in_order(0);
  items_pass_between_processes_once_and_in_order(UINT64_MAX - 1000);
  a_killed_producer_is_noticed_after_its_last_published_item();
  a_killed_consumer_is_noticed_by_a_producer_that_finds_no_room();
  puts("test_shm_ring: ok");
  return 0;
}

#else

int main(void) {
  puts("test_shm_ring: skipped, Linux only");
  return 77;
}

#endif
