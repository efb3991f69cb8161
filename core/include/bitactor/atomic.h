/*
 * Every atomic access of the core goes through these names, so that a model checker can redirect them.
 * No fences: ThreadSanitizer does not see them. Each use states what it pairs with and why a weaker order is wrong.
 * BA_EMULATED_SEQ_CST is for emulators that let a seq_cst load pass an earlier seq_cst store (qemu-user 7.2 does so
 * with aarch64's stlr and ldar on x86-64, some per cent of the time; the architecture forbids it): tests on them would
 * hang.
 */
#ifndef BITACTOR_ATOMIC_H
#define BITACTOR_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

#ifndef BA_ATOMIC_REDIRECT
#define BA_ATOMIC(type) _Atomic(type)
#define ba_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define ba_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define ba_load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define ba_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define ba_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#ifdef BA_EMULATED_SEQ_CST
#define ba_store_seq_cst(p, v)                                                                                         \
  (atomic_store_explicit((p), (v), memory_order_seq_cst), atomic_thread_fence(memory_order_seq_cst))
#else
#define ba_store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#endif
#define ba_exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define ba_exchange_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define ba_fetch_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define ba_fetch_add_release(p, v) atomic_fetch_add_explicit((p), (v), memory_order_release)
#define ba_fetch_add_acq_rel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)
#define ba_fetch_add_seq_cst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define ba_cas_weak_relaxed(p, expected, desired)                                                                      \
  atomic_compare_exchange_weak_explicit((p), (expected), (desired), memory_order_relaxed, memory_order_relaxed)
#define ba_cas_weak_acq_rel(p, expected, desired)                                                                      \
  atomic_compare_exchange_weak_explicit((p), (expected), (desired), memory_order_acq_rel, memory_order_acquire)
#define ba_cas_strong_acq_rel(p, expected, desired)                                                                    \
  atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acq_rel, memory_order_acquire)
#define ba_cas_weak_seq_cst(p, expected, desired)                                                                      \
  atomic_compare_exchange_weak_explicit((p), (expected), (desired), memory_order_seq_cst, memory_order_seq_cst)
/* Keeps the compiler, not the machine, from moving memory accesses across; only where wait.h explains why. */
#define ba_compiler_barrier() atomic_signal_fence(memory_order_seq_cst)
#else
#include BA_ATOMIC_REDIRECT
#endif

#define BA_CACHE_LINE 64
#define BA_ALIGNED_LINE _Alignas(BA_CACHE_LINE)

/* One step of a spin loop: tells the core that another thread is awaited. */
static inline void ba_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");
#endif
}

#endif
