"""Timing of token checks: the time to say no must not tell how much of a token was right, nor whose it nearly was.

Measured in a process beside nothing else of ours, many times in random order, by the median: over the network the
differences would drown in its own, and a check that leaks there leaks here first.
"""

from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.site import Site

TELLS: Final = "AV:N/AC:H/PR:N/UI:N/S:U/C:L/I:N/A:N"
_PROBE: Final = """
import gc, hashlib, importlib, random, statistics, sys, time

auth = importlib.import_module("bitactor.ingest.auth")  # beside the public API: what both ports ask
Identities, Identity = auth.Identities, auth.Identity

random.seed(SEED)
token = b"t" * 43
digest = hashlib.sha256(token).digest()

def identities(digests):
    return Identities([Identity(f"i{n}", tokens_sha256=(one,)) for n, one in enumerate(digests)])

def others(count):
    return [random.randbytes(32) for _ in range(count)]

def agreeing(count, most):
    # digests that agree with the shown one in so many first bytes, and in no more
    return [digest[:most] + bytes([digest[most] ^ 1]) + random.randbytes(31 - most) for _ in range(count)]

SIDES = {
    "prefix": lambda: (identities(agreeing(50, 0)), identities(agreeing(50, 28))),
    "place": lambda: (identities([digest, *others(99)]), identities([*others(99), digest])),
    "known": lambda: (identities(others(100)), identities([*others(50), digest, *others(49)])),
}
one, other = SIDES[WHAT]()
gc.disable()
times = [[], []]
clock = time.perf_counter_ns
for _ in range(6000):
    first = random.random() < 0.5
    for side in ((0, 1) if first else (1, 0)):
        known = (one, other)[side]
        begin = clock()
        known.by_token(token)
        times[side].append(clock() - begin)
medians = [statistics.median(side) for side in times]
print(medians[0], medians[1])
"""


def _alike(site: "Site", what: str) -> str:
    ratios = []
    for attempt in range(3):  # a neighbour on the machine disturbs one; a leak is there each time
        done = site.python(f"WHAT = {what!r}\nSEED = {site.seed + attempt}\n{_PROBE}")
        expect(done.returncode == 0, f"{done.stderr[-300:]}")
        one, other = map(float, done.stdout.split())
        ratios.append(max(one, other) / min(one, other))
        if ratios[-1] < 1.05:
            return f"medians {one:.0f} and {other:.0f} ns, ratio {ratios[-1]:.3f}"
    expect(False, f"the medians differ by the ratios {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    return ""


@case(
    cwe=208, vector=TELLS, surface="ingest", short=True,
    precondition="50 identities whose hashes agree with the shown token's in 0, or in 28 bytes",
    steps="12,000 checks in random order, medians; three times if they differ",
    expected="medians within 5% of each other",
)  # fmt: skip
def how_much_agrees(site: "Site") -> str:
    """The time tells how much of a hash agrees."""
    return _alike(site, "prefix")


@case(
    cwe=208, vector=TELLS, surface="ingest",
    precondition="100 identities; the token is the first one's, or the last one's", steps="as above",
    expected="as above",
)  # fmt: skip
def whose_it_is(site: "Site") -> str:
    """The time tells which identity a token belongs to."""
    return _alike(site, "place")


@case(
    cwe=208, vector=TELLS, surface="ingest", precondition="100 identities; the token is nobody's, or somebody's",
    steps="as above", expected="as above",
)  # fmt: skip
def whether_it_is_known(site: "Site") -> str:
    """The time of the comparison tells whether a token is known before the answer does."""
    return _alike(site, "known")
