"""Apps whose states tell whether signals came once and in order: of each key, how many, and how many out of turn."""

import bitactor as ba

app = ba.App("counted")
item = app.kind("item", 1, value="u8", aux="u4")


@app.actor(item, state={"n": "u8", "last": "u8", "gaps": "u8", "sum": "u8"})
def counted(state, signal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Values of a key are 0, 1, 2, ...; another one than the next is a gap."""
    if signal.value != state.n:
        state.gaps += 1
    state.n += 1
    state.last = signal.value
    state.sum += signal.aux


capped = ba.App("capped")
seen = capped.kind("seen", 1, value="u8")
KEYS_MAX = 6400


@capped.actor(seen, state={"n": "u8"}, keys_max=KEYS_MAX)
def known(state, signal):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    """Counts, for so many keys and no more."""
    state.n += 1
