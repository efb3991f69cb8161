"""A producer's stream cut into lanes: each signal once, in order, whoever dies on the way."""

import asyncio
import random
import secrets

import pytest

from bitactor.cluster.parts import Bundle, bundle_items, part_of
from bitactor.cluster.producers import resume
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.frames import split_frame
from tests.cluster_parts import KINDS, Lane, Network, Stream, check, make_router


async def campaign(seed, lanes_count, *, faults, deaths):
    dice = random.Random(seed)
    lanes = [Lane(number, dice) for number in range(lanes_count)]
    network = Network(lanes, dice, faults)
    streams = [Stream(f"p{i}", dice.randint(200, 3000), dice.choice([3, 50, 1000]), dice) for i in range(3)]

    async def run(stream):
        while stream.acked < stream.count:
            router = await make_router(network, lanes_count)
            held = await stream.connect(router, takeover=dice.random() < 0.2)
            if held is None:
                await router.stop()
                continue
            upto = stream.count if dice.random() < 0.3 else min(stream.count, held.next + dice.randint(1, 800))
            await stream.send(router, held, upto, dice.choice([1, 7, 300]))
            if dice.random() < deaths:
                await asyncio.sleep(dice.random() * 0.004)
                await router.stop()  # with what is on its way
                continue
            waited = 0
            while stream.lost is None and stream.acked < held.next and waited < 400:
                await asyncio.sleep(0.002)
                waited += 1
            router.close_producer(held)
            await router.stop()

    async def move():
        while True:
            await asyncio.sleep(dice.random() * 0.05)
            lanes[dice.randrange(lanes_count)].own()

    mover = asyncio.create_task(move()) if deaths else None
    await asyncio.wait_for(asyncio.gather(*map(run, streams)), 60)
    if mover is not None:
        mover.cancel()
    return streams, lanes


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_each_signal_is_in_its_lane_once_and_in_order(lanes):
    streams, logs = asyncio.run(campaign(7, lanes, faults=0.0, deaths=0.0))
    assert check(streams, logs) == []


@pytest.mark.parametrize("lanes", [2, 16])
def test_also_when_routers_die_lanes_move_and_answers_are_lost(lanes):
    for _ in range(4):
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        streams, logs = asyncio.run(campaign(seed, lanes, faults=0.1, deaths=0.7))
        assert check(streams, logs) == []
        assert sum(len(lane.signals()) for lane in logs) == sum(stream.count for stream in streams)


@pytest.mark.parametrize("defect", ["lost", "twice", "out of order"])
def test_the_check_finds_what_is_lost_twice_or_out_of_order(defect):
    streams, logs = asyncio.run(campaign(11, 2, faults=0.0, deaths=0.0))
    lane = max(logs, key=lambda one: len(one.records))
    assert len(lane.records) > 4
    middle = len(lane.records) // 2
    if defect == "lost":
        del lane.records[middle]
    elif defect == "twice":
        lane.records.insert(middle, lane.records[middle])
    else:
        lane.records.reverse()  # neighbours may be of different producers, and then in any order
    assert check(streams, logs)


def test_a_stream_goes_on_behind_the_longest_row_of_whole_batches():
    def row(next_, floor, *batches):
        return {"next": next_, "floor": floor, "batches": list(batches)}

    assert resume([None, None], 2) == 0
    assert resume([row(10, 0, (0, 10, 1)), None], 2) == 10
    assert resume([row(10, 0, (0, 10, 3)), None], 2) == 0  # lane 1 has not got its part
    assert resume([row(10, 0, (0, 10, 3)), row(10, 0, (0, 10, 3))], 2) == 10
    assert resume([row(30, 20, (20, 30, 1)), row(15, 5, (5, 15, 2))], 2) == 30
    assert resume([row(30, 20, (20, 25, 1), (25, 30, 3)), None], 2) == 25
    # cut in other ways by two replicas: [10, 20) is there by its halves
    assert resume([row(20, 10, (10, 20, 3)), row(17, 10, (15, 17, 2), (10, 15, 3))], 2) == 17


def test_a_bundle_of_many_records_is_answered_though_the_first_are_done_before_the_last_begins():
    async def run():
        dice = random.Random(3)
        lane = Lane(0, dice, record_bytes=400 << 10)
        stream = Stream("p", 8 * 8192, 100, dice)
        held = await stream.connect(await make_router(Network([lane], dice, 0.0), 1))
        items = []
        for begin in range(0, stream.count, 8192):
            piece = split_frame(stream.frame(held, begin, begin + 8192), 1, KINDS).pieces[0]
            items.append(
                part_of(
                    held.id, held.epoch, begin=begin, end=begin + 8192, after=begin, floor=0, lanes=1,
                    rows=[piece.rows], offsets=[piece.offsets],
                )
            )  # fmt: skip
        async with asyncio.timeout(20):
            assert await lane.intake.take(bundle_items(memoryview(Bundle(0, tuple(items)).encode()))) == []
        stream.acked = stream.count
        assert len(lane.records) > 8 and check([stream], [lane]) == []

    asyncio.run(run())


def test_an_older_epoch_is_fenced_in_every_lane_also_where_it_never_was():
    async def run():
        dice = random.Random(3)
        lanes = [Lane(number, dice) for number in range(8)]
        network = Network(lanes, dice, 0.0)
        old, new = await make_router(network, 8), await make_router(network, 8)
        network.heard.clear()  # the older router hears nothing of it, as one that was paused
        stream = Stream("p", 1000, 100, dice)
        held = await stream.connect(old)
        await stream.send(old, held, 1, 1)
        await old.drained()
        taken = await Stream("p", 1000, 100, dice).connect(new, takeover=True)
        assert taken.epoch == held.epoch + 1
        old.admit(held, stream.frame(held, 1, 1000), KINDS)
        await old.drained()
        assert stream.lost == Code.FENCED
        assert sum(len(lane.signals()) for lane in lanes) == 1

    asyncio.run(run())


def test_another_identity_does_not_get_a_producer():
    async def run():
        dice = random.Random(3)
        network = Network([Lane(0, dice)], dice, 0.0)
        router = await make_router(network, 1)
        await Stream("p", 10, 10, dice).connect(router)
        from bitactor.protocol.messages import Hello

        with pytest.raises(ProtocolError, match="belongs to another identity"):
            await router.open_producer("somebody else", Hello("p"), None, None)

    asyncio.run(run())
