/* Memory for rings: the core's allocator, where it is there. */
#ifndef BITACTOR_SRC_RING_ALLOC_H
#define BITACTOR_SRC_RING_ALLOC_H

#if __has_include(<bitactor/alloc.h>)
#include <bitactor/alloc.h>
#else
#include <stdlib.h>
#include <string.h>

static inline void *ba_alloc_aligned(size_t size, size_t align) {
  void *memory = aligned_alloc(align, (size + align - 1) / align * align);
  if (memory != NULL) memset(memory, 0, size);
  return memory;
}
static inline void ba_free(void *memory) { free(memory); }
#endif

#endif
