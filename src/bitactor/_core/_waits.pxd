# How the extension modules wait: in slices without the GIL, between which they look for Python's signals (Ctrl-C).
from libc.stdint cimport UINT64_MAX, uint64_t


cdef extern from "bitactor/wait.h" nogil:
    uint64_t ba_monotonic_ns()


cdef enum:
    SLICE_NS = 50 * 1000 * 1000  # longest wait between two looks for Python's signals


# When a timeout in seconds ends, on the monotonic clock; UINT64_MAX for None, which has no end. ValueError below 0.
cdef inline uint64_t deadline_of(object timeout) except? 0:
    if timeout is None:
        return UINT64_MAX
    cdef double seconds = timeout
    if not seconds >= 0:
        raise ValueError(f"timeout is {timeout!r}: give seconds, 0 or more, or None to wait for as long as it takes")
    return ba_monotonic_ns() + <uint64_t>(min(seconds, 1e9) * 1e9)


# How long to wait next: SLICE_NS, or what is left of the time.
cdef inline uint64_t slice_of(uint64_t deadline) noexcept nogil:
    if deadline == UINT64_MAX:
        return SLICE_NS
    cdef uint64_t now = ba_monotonic_ns()
    if now >= deadline:
        return 0
    return min(deadline - now, <uint64_t>SLICE_NS)
