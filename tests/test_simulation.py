"""Histories of a simulated service, each decided by a seed, with crashes, refusals, takeovers and lost connections.

`python -m tests.simulation SEED COUNT` runs more of them; each takes some 50 ms.
"""

import logging
from unittest import mock

import pytest

from bitactor.runtime import admission, recovery, tables
from tests import simulation
from tests.simulation import simulate

SEEDS = 120


@pytest.fixture(autouse=True)
def silent():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_what_is_told_is_kept_once_in_every_history():
    restarts = records = 0
    for seed in range(SEEDS):
        world = simulate(seed)
        restarts += world.restarts
        records += len(world.log.records)
    assert restarts > SEEDS
    assert records > 5 * SEEDS


def test_a_seed_gives_the_same_history_again():
    one, other = simulate(7), simulate(7)
    assert one.log.records == other.log.records
    assert one.restarts == other.restarts


def nothing(*_):
    pass


def replayed_without_erasures(items, real=recovery.effects_of):
    return real(items)[0], []


def is_found(seed):
    """Whether this history shows that something is wrong."""
    try:
        simulate(seed)
    except (Exception, simulation.Crash):  # noqa: BLE001
        return True
    return False


# What a careless change could break, each put in once: the simulation must find it within some seeds.
DEFECTS = {
    "a refused record's followers are kept": (admission.Admission, "_forget_ahead", nothing),
    "a welcome runs ahead of the log": (admission.Entry, "pending", property(lambda _: None, nothing)),
    "a replay leaves erasures out": (recovery, "effects_of", replayed_without_erasures),
    "a snapshot shares its tables with the writer": (tables.Tables, "copy", lambda self: self),
    "a snapshot lacks the outputs before it": (simulation.SimulatedHub, "catch_up", nothing),
    "an older holder goes on": (admission.Admission, "_lose", nothing),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect):
    with mock.patch.object(*DEFECTS[defect]):
        assert any(is_found(seed) for seed in range(300))
