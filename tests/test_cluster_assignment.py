"""Who should own which lane: complete, balanced, and moving no more than it must."""

import random
import secrets

from bitactor.cluster.assignment import assign


def test_every_lane_has_an_owner_and_loads_differ_by_one():
    for members in range(1, 9):
        wanted = assign([f"r{i}" for i in range(members)], 16, {})
        assert sorted(wanted) == list(range(16))
        loads = [sum(owner == f"r{i}" for owner in wanted.values()) for i in range(members)]
        assert max(loads) - min(loads) <= 1


def test_without_members_no_lane_is_wanted_by_anybody():
    assert assign([], 16, {3: "gone"}) == {}


def test_what_is_balanced_stays():
    wanted = assign(["a", "b", "c"], 16, {})
    assert assign(["c", "b", "a"], 16, wanted) == wanted


def test_a_replica_more_or_less_moves_its_share():
    wanted = assign(["a", "b", "c"], 16, {})
    more = assign(["a", "b", "c", "d"], 16, wanted)
    assert sum(wanted[lane] != more[lane] for lane in range(16)) == 4
    assert all(more[lane] == "d" for lane in range(16) if wanted[lane] != more[lane])
    less = assign(["a", "b", "d"], 16, {lane: owner for lane, owner in more.items() if owner != "c"})
    assert all(less[lane] == more[lane] for lane in range(16) if more[lane] != "c")


def test_a_lane_that_a_member_cannot_have_goes_to_another_even_past_its_share():
    barred = {(lane, "a") for lane in range(16)}
    assert set(assign(["a", "b"], 16, {}, barred).values()) == {"b"}
    assert assign(["a"], 16, {}, {(5, "a")}).keys() == set(range(16)) - {5}


def test_random_clusters_come_to_rest():
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        lanes = dice.choice([1, 2, 4, 8, 16, 32, 64])
        members = [f"r{i}" for i in range(dice.randint(1, 9))]
        owned = {lane: f"r{dice.randint(0, 11)}" for lane in range(lanes) if dice.random() < 0.8}
        wanted = assign(members, lanes, owned)
        assert sorted(wanted) == list(range(lanes))
        loads = [sum(owner == member for owner in wanted.values()) for member in members]
        assert max(loads) - min(loads) <= 1
        assert assign(members, lanes, wanted) == wanted
        kept = sum(wanted[lane] == owner for lane, owner in owned.items() if owner in members)
        each = lanes // len(members)
        least = sum(min(sum(o == m for o in owned.values()), each) for m in members)
        assert kept >= least
