/* Words for the results of rings. Pure; any thread. */
#include <bitactor/ring.h>

const char *ba_ring_result_text(ba_ring_result result) {
  switch (result) {
    case BA_RING_OK: return "done";
    case BA_RING_FULL: return "the ring has no room";
    case BA_RING_EMPTY: return "the ring has no items";
    case BA_RING_TIMEOUT: return "the time is over";
    case BA_RING_CLOSED: return "the ring is closed";
    case BA_RING_TAKEN: return "the ring's only endpoint of this kind is open already";
    case BA_RING_BAD_OPTION: return "a capacity, item size or count is outside its range";
    case BA_RING_NO_MEMORY: return "no memory";
    case BA_RING_PEER_DEAD: return "the process at the other end has died";
    case BA_RING_CORRUPT: return "the shared segment contradicts itself";
    case BA_RING_FOREIGN: return "the shared segment is not a ring of this version and byte order";
    case BA_RING_EXISTS: return "a shared ring of this name exists";
    case BA_RING_ABSENT: return "there is no shared ring of this name, or it is not ready";
    case BA_RING_SYSTEM: return "the operating system refused";
  }
  return "unknown result";
}
