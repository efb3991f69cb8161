"""How much of everything a profile does. quick: under 3 minutes on 2 cores; full: under 45. Data alone."""

from typing import Final

QUICK: Final[dict[str, float]] = {
    "senders": 4,
    "throughput_signals": 60_000_000,
    "ring_items": 4_000_000,
    "memory_keys": 1_000_000,
    "memory_limit_mb": 64,
    "saturation_s": 2,
    "byte_order_arrays": 100,
    "byte_order_s": 0.5,
    "kills": 4,
    "sigterms": 3,
    "rotations": 5,
    "overload_find_s": 3,
    "overload_base_s": 5,
    "overload_s": 8,
    "target_s": 5,
    "source_tests": 0,
}
FULL: Final[dict[str, float]] = {
    **QUICK,
    "throughput_signals": 300_000_000,
    "ring_items": 20_000_000,
    "memory_keys": 10_000_000,
    "memory_limit_mb": 512,
    "saturation_s": 15,
    "byte_order_arrays": 2_000,
    "byte_order_s": 5,
    "kills": 50,
    "sigterms": 50,
    "rotations": 50,
    "overload_find_s": 5,
    "overload_base_s": 15,
    "overload_s": 60,
    "target_s": 60,
    "source_tests": 1,
    "powerloss_images": 500,
}
TINY: Final[dict[str, float]] = {  # for tests of the campaign itself
    **QUICK,
    "throughput_signals": 400_000,
    "ring_items": 50_000,
    "memory_keys": 100_000,
    "memory_limit_mb": 24,
    "saturation_s": 0.2,
    "byte_order_arrays": 5,
    "byte_order_s": 0.02,
    "kills": 1,
    "sigterms": 1,
    "rotations": 1,
    "overload_find_s": 0.5,
    "overload_base_s": 1.5,
    "overload_s": 1,
    "target_s": 0.5,
}
PROFILES: Final = {"quick": QUICK, "full": FULL, "tiny": TINY}
