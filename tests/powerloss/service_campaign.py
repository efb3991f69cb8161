"""Cuts the power in runs of a service's core, recovers what may be left with the real recovery, and compares.

The comparison is an inline replay (tests/service_oracle.py) of the records that were appended up to where the recovered
log ends: state, producers, names and outputs bit for bit, and each producer's signals exactly once.

`python -m tests.powerloss.service_campaign IMAGES [--seed N] [--durability full|normal|off]` prints what was wrong.
"""

import argparse
import asyncio
import logging
import random
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

import bitactor as ba
from bitactor.log.contract import LogError
from bitactor.protocol.records import RecordError
from bitactor.runtime.core import Core
from bitactor.runtime.recovery import RecoveryError
from bitactor.runtime.tables import TableError
from bitactor.state import StateError
from tests.powerloss.campaign import images
from tests.powerloss.images import lay
from tests.powerloss.service import PRODUCERS, ServiceRun, settings, signals_of
from tests.service_app import app
from tests.service_oracle import truth_of

IMAGES_A_RUN = 25
REFUSALS = (LogError, RecoveryError, RecordError, TableError, StateError)


@lru_cache(maxsize=128)
def truth(records):
    """What these records say, from the first on."""
    said = truth_of(records, app)
    return said, flat(said.state)


def flat(state):
    """A state as bytes that can be compared."""
    meta, sections = state.to_sections()
    return meta, [(name, array.tobytes()) for name, array in sections]


class Recovered(Core):
    """Knows where the log ended that it found."""

    async def _open_log(self):
        log = await super()._open_log()
        self.end = log.end().sequence
        return log


async def judge(durability, directory, marks):
    """What is wrong with the service recovered from that directory; [] when every promise was kept."""
    core = Recovered(settings(directory, durability), app, print)
    try:
        await core.start()
    except REFUSALS as error:
        return [f"does not open: {error}"]
    try:
        return await compare(core, marks)
    except LogError as error:
        return [f"cannot be read: {error}"]
    finally:
        await core.stop(snapshot=False)


async def compare(core, marks):
    """What differs from the marks: what was appended, acknowledged and done when the power went."""
    found = []
    first, end = core.log.first().sequence, core.end
    appended = tuple(marks[("record", each)] for each in range(end) if ("record", each) in marks)
    if len(appended) < end:
        return [f"more than was appended: it ends at {end} and {len(appended)} were begun"]
    if tuple(map(bytes, core.log.read(first)))[: end - first] != appended[first:]:
        return ["other records than were appended"]
    if core.writer.place.sequence != max(end, 1):  # an empty log is given an app record
        found.append(f"goes on elsewhere: at {core.writer.place.sequence}, the log ended at {end}")
    said, state = truth(appended)
    if flat(await asyncio.to_thread(core.engine.export_state)) != state:
        found.append("another state")
    rows = {row.id: (row.name, row.identity, row.epoch, row.next) for row in core.tables.producers.values()}
    known = {i: (p["name"], p["identity"], p["epoch"], p["next"]) for i, p in said.producers.items()}
    if rows != known or core.tables.names != said.names:
        found.append(f"other producers or names: {rows}, and the log says {known}")
    outputs = await asyncio.to_thread(core.hub.export)
    if outputs["outputs"] != said.outputs.tobytes():
        found.append("other outputs")
    if end < marks.get("acknowledged", 0):
        found.append(f"lost acknowledged: it ends at {end} and {marks['acknowledged']} were acknowledged")
    for name in PRODUCERS:
        got = said.sent.get(ba.text_key(name), signals_of(name)[:0])
        if got.tobytes() != signals_of(name)[: len(got)].tobytes():
            found.append(f"not exactly once: the {len(got)} signals of {name}")
        if len(got) < marks.get(("acked", name), 0):
            found.append(f"lost acknowledged: {name} has {len(got)} of {marks[('acked', name)]} signals")
    newest = core._store.latest()
    taken = int(newest[0].stem) if newest else 0
    if taken < marks.get("snapshot", 0):
        found.append(f"snapshot lost: {taken} is the newest and {marks['snapshot']} was done")
    found += [f"snapshot damaged: {each.name}" for each in core._store.directory.glob("*.damaged")]
    return found


async def judge_all(count, durability, seed, directory, **defects):
    """Judge `count` images; (what was found -> how often, records recovered in all). Files go under `directory`."""
    dice = random.Random(seed)
    found, judged = Counter(), 0
    while judged < count:
        home = directory / f"run{judged}"
        run = ServiceRun(home, durability, dice.getrandbits(32), **defects)
        await run.live()
        for files, marks in images(run, min(IMAGES_A_RUN, count - judged), dice):
            place = home / f"image{judged}"
            lay(files, place)
            for each in await judge(durability, place, marks):
                found[each.partition(":")[0]] += 1
                print(f"image {judged} of seed {seed}, {durability}: {each}")
            shutil.rmtree(place)
            judged += 1
        shutil.rmtree(home)
    return found


def campaign(count, durability, seed, directory, **defects):
    """What was found in `count` images -> how often."""
    logger = logging.getLogger("bitactor.runtime")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return asyncio.run(judge_all(count, durability, seed, directory, **defects))
    finally:
        logger.setLevel(before)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--durability", choices=["full", "normal", "off"], default="full")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as directory:
        found = campaign(options.images, options.durability, options.seed, Path(directory))
    print(f"{options.images} images recovered, synchronous={options.durability}: {dict(found) or 'nothing lost'}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
