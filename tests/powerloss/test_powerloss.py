"""No acknowledged record is lost to a power cut, and every disk that may be left opens; 2,000 by `make powerloss`."""

import random
import secrets

import pytest

from bitactor.log.contract import FatalLogError
from tests.powerloss.campaign import Run, campaign, images_at, judge
from tests.powerloss.images import Image, apply, lay


@pytest.fixture
def seed():
    made = secrets.randbits(32)
    print(f"seed {made}")
    return made


def test_synced_commits_lose_nothing_acknowledged_and_every_image_opens(tmp_path, seed):
    found, judged = campaign(150, "full", seed, tmp_path)
    assert judged == 150
    assert found == {}


def test_normal_may_lose_the_last_records_and_is_whole_otherwise(tmp_path, seed):
    found, judged = campaign(150, "normal", seed, tmp_path)
    assert judged == 150
    assert set(found) == {"lost acknowledged"}


def test_without_syncs_the_same_campaign_fails(tmp_path, seed):
    found, _ = campaign(100, "off", seed, tmp_path)
    assert found["lost acknowledged"] > 0
    assert found["does not open"] + found["cannot be read"] > 0


class Dice:
    """Chooses what it is told to."""

    def __init__(self, mode, value):
        self.mode, self.value = mode, value

    def choice(self, options):
        return self.mode if self.mode in options else options[0]

    def random(self):
        return self.value

    def randrange(self, _):
        return 0


def image_of(*operations):
    image = Image()
    for each in operations:
        image.step(each)
    return image


def test_an_image_has_what_was_synced_and_may_lack_what_was_not():
    image = image_of(
        ("create", "a", 1), ("write", 1, 0, b"old"), ("sync", 1), ("names", ""), ("write", 1, 1, b"NEW"),
        ("create", "s/b", 2), ("write", 2, 0, b"x"), ("names", ""),
    )  # fmt: skip
    assert image.build(Dice("none", 0)) == {"a": b"old"}
    assert image.build(Dice("all", 0)) == {"a": b"oNEW", "s/b": b"x"}
    assert image.build(Dice("some", 0.9)) == {"a": b"old"}
    image.step(("names", "s"))
    assert image.build(Dice("none", 0)) == {"a": b"old", "s/b": b""}
    image.step(("lost", 1))
    image.step(("sync", 1))
    assert image.build(Dice("all", 0))["a"] == b"old"
    image.step(("rename", "a", "c"))
    image.step(("remove", "s/b"))
    assert image.build(Dice("none", 0)) == {"a": b"old", "s/b": b""}
    assert image.build(Dice("all", 0)) == {"c": b"old"}


def test_a_torn_write_leaves_whole_sectors():
    image = image_of(("create", "a", 1), ("names", ""), ("write", 1, 500, b"n" * 1000))
    arrived = image.build(Dice("torn", 0.05))["a"]
    assert arrived == bytes(500) + b"n" * 1000
    assert image.build(Dice("torn", 0.5))["a"] == b""
    data = bytearray(b"12345")
    apply(data, ("truncate", 1, 3))
    assert data == b"123"
    apply(data, ("write", 1, 5, b"x"))
    assert data == b"123\0\0x"


@pytest.mark.parametrize("ending", ["sync failed", "killed syncing", "killed"])
def test_power_lost_while_a_log_opens_after_a_failure_loses_nothing(tmp_path, seed, ending):
    dice = random.Random(seed)
    run = Run(tmp_path / "live", "full", seed)
    run.lengths[:8] = [40] * 8  # all in the same pages
    log = run.open()
    for sequence in range(dice.randint(1, 3)):
        run.append(log, sequence)
    if ending != "killed":
        run.trace.stop_at, run.trace.loses = run.trace.syncs + 1, ending == "sync failed"
        with pytest.raises(FatalLogError):
            run.append(log, sequence + 1)
    run.die(log)
    begin = len(run.trace.operations)
    run.trace.stop_at = None
    log = run.open()
    run.append(log, log.end().sequence)
    run.die(log)
    found = []
    for number, moment in enumerate(range(begin, len(run.trace.operations) + 1)):
        for each, (files, marks) in enumerate(images_at(run, [moment] * 4, dice)):
            place = tmp_path / f"{number}-{each}"
            lay(files, place)
            found += judge(run, place, marks)
    assert found == []
