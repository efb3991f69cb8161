"""Which replica should own which lane: a pure function of what each replica sees, so all come to the same answer.

Balanced within one lane. What has an owner stays there as far as that goes, so that one replica more or less moves
about lanes / replicas of them.
"""

from collections.abc import Collection, Mapping


def assign(
    members: Collection[str],
    lanes: int,
    owned: Mapping[int, str],
    barred: Collection[tuple[int, str]] = (),
) -> dict[int, str]:
    """Lane -> member for every lane that one of `members` may have. owned: today's owners; barred: (lane, member).

    A lane that no member may have is left out.
    """
    wanted: dict[int, str] = {}
    if not members:
        return wanted
    held: dict[str, list[int]] = {member: [] for member in sorted(members)}
    for lane in range(lanes):
        owner = owned.get(lane)
        if owner in held and (lane, owner) not in barred:
            held[owner].append(lane)
    quota = _quotas(held, lanes)
    for member, its in held.items():
        for lane in its[: quota[member]]:
            wanted[lane] = member
    load = {member: min(len(its), quota[member]) for member, its in held.items()}
    for lane in range(lanes):
        if lane in wanted:
            continue
        may = [member for member in held if (lane, member) not in barred]
        if may:
            wanted[lane] = min(may, key=lambda member: (load[member] >= quota[member], load[member], member))
            load[wanted[lane]] += 1
    return wanted


def _quotas(held: Mapping[str, list[int]], lanes: int) -> dict[str, int]:
    """How many lanes each member gets: those that have more today get the odd ones."""
    each, odd = divmod(lanes, len(held))
    by_load = sorted(held, key=lambda member: (-len(held[member]), member))
    return {member: each + (place < odd) for place, member in enumerate(by_load)}
