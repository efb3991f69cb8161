"""A replica: one object that joins the others, owns some lanes, takes signals for all of them, and is operated.

It has the face of runtime.service.Service, so the process around it and the admin interface need not know which one
they have. Made and awaited on the event loop's thread.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from bitactor.cluster import figures
from bitactor.cluster.agreement import agree_on_lanes
from bitactor.cluster.calls import Calls
from bitactor.cluster.intake import told
from bitactor.cluster.lane import LaneCore
from bitactor.cluster.link import Link, NotOwnerError
from bitactor.cluster.members import Member, Members
from bitactor.cluster.names import Names
from bitactor.cluster.outputs import OutputReader
from bitactor.cluster.ownership import REPLAYS_AT_ONCE, Ownership
from bitactor.cluster.parts import Bundle, bundle_head, bundle_items
from bitactor.cluster.queries import ANSWERS, Reader, ask_all_json
from bitactor.cluster.router import Router
from bitactor.log import nats
from bitactor.log.nats import LEAVE_S
from bitactor.log.nats_sync import SyncWatch
from bitactor.log.streams import leave_if_cut_off
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.runtime.app import describe
from bitactor.runtime.listen import make_server
from bitactor.runtime.reports import Health, ProducerInfo, ServiceStatistics, SnapshotInfo

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config import Settings
    from bitactor.ingest.auth import Identities
    from bitactor.ingest.server import Server
    from bitactor.protocol.messages import Subscribe

ASK_S: Final = 15.0  # an operator's question waits so long for a lane that moves
LOST_S: Final = 10.0  # without any owner for some lane for so long, producers are told to try elsewhere
WATCH_S: Final = 0.5

logger = logging.getLogger("bitactor.cluster")


class Replica:
    """An app served as one of several replicas. `ended`: as Service's. After start: everything else."""

    def __init__(self, settings: "Settings", app: "App") -> None:
        self.settings = settings
        self.app = app
        self.names_in_nats = Names(settings.nats.stream, app.name)
        self.lanes = settings.cluster.lanes
        self.said = describe(app, lanes=self.lanes)
        self.incarnation = secrets.token_hex(8)
        self.ingest: Server | None = None
        self.fatal: str | None = None
        self.started_at: float | None = None
        self.admin_address = ""
        self.ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.compile_seconds = 0.0
        self._begun = time.time()
        self._phase = "made"
        self._was_whole = False  # every lane has had an owner
        self._missing_since: float | None = None
        self._replaying = asyncio.Semaphore(REPLAYS_AT_ONCE)
        self._watching: asyncio.Task[None] | None = None

    # --- start and stop ---

    async def start(self) -> None:
        """Connect, compile, join, listen. Lanes are taken from then on; `health` says when all have an owner."""
        self._phase = "recovering"
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        await asyncio.to_thread(lambda: [actor.compile() for actor in self.app.actors])
        self.compile_seconds = time.perf_counter() - begun
        self.client = await nats.connect(self.settings.nats, name=f"bitactor {self.app.name} {self._name}")
        try:
            replicas = self.settings.nats.replicas
            await agree_on_lanes(self.client, self.names_in_nats.streams, self.lanes, replicas=replicas)
            self.sync = await SyncWatch.open(self.client, self.settings.nats.monitors)
            self.link = Link(self.client, self.names_in_nats, self.incarnation)
            lease_s = self.settings.cluster.lease_s
            self.members = Members(
                self.client, self.names_in_nats, self._member, lease_s=lease_s, changed=self._changed
            )  # fmt: skip
            self.calls = Calls(self.members, self.link, self.incarnation)
            self.owned = Ownership(
                self.members, self.incarnation, self.lanes, self._make_lane, lease_s=lease_s, changed=self._lanes_moved
            )
            self.router = self._make_router()
            self.engine = Reader(self.app, self.calls, self.lanes, loop)
            await self._serve_verbs()
            await self.router.start()
            await self.members.start()
            self.ingest = make_server(self.settings, self.router)
            await self.ingest.start()
        except BaseException:
            self._phase = "stopped"
            await self.client.close()
            raise
        self._watching = asyncio.create_task(self._watch())
        self._phase = "ready"
        self.started_at = time.time()

    async def stop(self) -> None:
        """Take no more, drain, acknowledge, give the lanes away, leave. Returns when everything is closed."""
        if self._phase in ("stopping", "stopped", "made"):
            await asyncio.shield(self.ended) if self._phase == "stopping" else None
            return
        self._phase = "stopping"
        try:
            assert self.ingest is not None
            self.owned.draining = True
            await self.members.speak()  # others prepare to take the lanes
            await self.ingest.stop(self.settings.shutdown.grace_s / 4)
            self.router.closed = ProtocolError(Code.SHUTTING_DOWN, "the replica stops")
            if self._watching is not None:
                self._watching.cancel()
            await self.owned.stop()
            await self.router.stop()
            await self.members.stop()
            await self.link.close()
            await self.sync.close()
            await self.client.close()
        finally:
            self._phase = "stopped"
            if not self.ended.done():
                self.ended.set_result(self.fatal)

    async def drain(self) -> None:
        """Give all lanes away and take none again, and go on serving: before this replica is stopped."""
        self.owned.draining = True
        await self.members.speak()
        await self.owned.stop()
        await self.members.speak()

    # --- what the process and the admin interface ask, as of a Service ---

    def health(self) -> Health:
        """Whether it lives, takes signals, has started; and why not."""
        reasons = []
        if self.fatal is not None:
            reasons.append(self.fatal)
        elif self._phase != "ready":
            reasons.append({"made": "not started", "recovering": "compiling and joining"}.get(self._phase, self._phase))
        else:
            if not self.client.is_connected:
                reasons.append("no connection to NATS")
            owners = self.members.owners()
            missing = [lane for lane in range(self.lanes) if lane not in owners]
            self._was_whole |= not missing
            if missing and (not self._was_whole or len(missing) == self.lanes):
                # Later a lane that moves makes nobody unready: what comes for it waits.
                why = self.owned.barred.get(missing[0], "")
                reasons.append(f"{len(missing)} of {self.lanes} lanes have no owner{': ' * bool(why)}{why}")
            if not self.router.has_room:
                reasons.append("too much is on its way to the lanes")
        live = self.fatal is None and self._phase != "stopped"
        return Health(live, not reasons, self.started_at is not None, tuple(reasons))

    def statistics(self) -> ServiceStatistics:
        """What this replica counts: its own lanes, and what came in here for any lane. Waits for nothing."""
        return figures.statistics(self)

    async def snapshot_now(self) -> SnapshotInfo:
        """Write a snapshot of each lane that this replica owns; the last one's figures. RuntimeError: it owns none."""
        snapshots = [core.snapshots for core in self.owned.lanes.values() if core.snapshots is not None]
        taken = [await one.take(again=False) for one in snapshots]  # what is stored never changes
        if not taken:
            raise RuntimeError("this replica owns no lane now; ask one that does (bitactor cluster status)")
        return taken[-1]

    async def erase_key(self, key: int) -> None:
        """Log the erasure of a key in its lane; returns when no actor, no name holds it."""
        await self.calls.ask_json(self.router.lane_of(key), "erase", {"key": key}, within_s=ASK_S)

    async def forget_producer(self, producer: int) -> None:
        """Log in every lane that a producer is forgotten. KeyError when no lane knows it."""
        known = await asyncio.gather(
            *(self.calls.ask_json(lane, "forget", {"id": producer}, within_s=ASK_S) for lane in range(self.lanes))
        )
        if not any(known):
            raise KeyError(producer)

    def producers(self) -> list[ProducerInfo]:
        """The producers of all lanes, by name; next: what is there in every lane that it touches. In a thread."""
        asking = ask_all_json(self.calls, self.lanes, "producers")
        lanes = asyncio.run_coroutine_threadsafe(asking, self.engine.loop).result()
        return figures.producers(lanes, self.lanes, self.router.connected)

    def name_of(self, key: int) -> str | None:
        """The text of a key, of lanes that are here or that were asked for lately. On the loop."""
        for core in self.owned.lanes.values():
            if (name := core.tables.names.get(key)) is not None:
                return name
        return self.engine.names.get(key)

    @property
    def names(self) -> Mapping[int, str]:
        """The texts by key, of all lanes."""
        return self.engine.names

    @property
    def identities(self) -> "Identities | None":
        """Who is known to the ingest port now."""
        return None if self.ingest is None else self.ingest.identities.value

    def describe_lanes(self) -> list[dict[str, Any]]:
        """Every lane: owner, generation, position, lag, newest snapshot. From what the replicas tell."""
        return figures.lanes(self.members, self.lanes)

    def describe_members(self) -> list[dict[str, Any]]:
        """Every replica that was heard within the lease."""
        return figures.members(self.members, self.incarnation)

    def ready_line(self) -> dict[str, Any]:
        """What the process says when it is ready."""
        return {"replica": self._name, "lanes": self.lanes, "log": "jetstream", "durability": self.router.durability}

    # --- inside ---

    @property
    def _name(self) -> str:
        return self.settings.cluster.replica

    def _member(self) -> Member:
        ingest = () if self.ingest is None else tuple(f"{host}:{port}" for host, port in self.ingest.addresses)
        return Member(
            self.incarnation,
            self._name,
            self.said["fingerprint"][:16],
            self._begun,
            ingest,
            self.admin_address,
            self.owned.draining,
            self.owned.told(),
            dict(self.owned.barred),
            self.owned.moves,
        )

    def _make_lane(self, lane: int, failed: Callable[[str], None]) -> LaneCore:
        return LaneCore(
            self.settings,
            self.app,
            failed,
            client=self.client,
            lane=lane,
            sync=self.sync,
            send=self._send_emits,
            turn=self._replaying,
        )

    def _make_router(self) -> Router:
        return Router(
            self.calls,
            self.link,
            self._subscribe,
            kinds=self.app.kinds,
            app=self.app.name,
            fingerprint=self.said["fingerprint"],
            lanes=self.lanes,
            linger_s=self.settings.cluster.linger_ms / 1000,
            positions=self._positions,
        )

    def _positions(self) -> tuple[int, ...]:
        """The position of each lane as its owner last told, a moment ago at most; of the lanes here, now."""
        told_of = {lane: owner.lanes[lane].position for lane, owner in self.members.owners().items()}
        here = {lane: core.writer.place.position for lane, core in self.owned.lanes.items()}
        return tuple((told_of | here).get(lane, 0) for lane in range(self.lanes))

    async def _subscribe(self, identity: str, subscribe: "Subscribe", write: Callable[[bytes], bool]) -> OutputReader:
        outward = {kind.number for kind in self.app.kinds} - {k.number for a in self.app.actors for k in a.kinds}
        for number in subscribe.kinds:
            if number not in outward:
                raise ProtocolError(Code.SIGNAL_KIND, f"kind {number} never leaves the app, or is not declared")
        reader = OutputReader(self.calls, self.lanes, subscribe, write)
        await reader.begin()
        return reader

    async def _send_emits(self, lane: int, items: tuple[bytes, ...]) -> None:
        """Until they are durable in their lane. ProtocolError: refused."""
        data = Bundle(lane, items).encode()
        told_ = json.loads(await self.calls.ask(lane, "emits", data, within_s=None))
        for _, code, text, _ in told_["refused"]:
            raise ProtocolError(Code(code), text)

    def _changed(self) -> None:
        self.calls.changed()
        self.owned.step()

    def _lanes_moved(self) -> None:
        asyncio.get_running_loop().create_task(self._speak())

    async def _speak(self) -> None:
        await self.members.speak()
        self._changed()

    async def _watch(self) -> None:
        """Producers do not wait for ever for lanes that nobody owns as seen from here: another replica may see them."""
        while True:
            await asyncio.sleep(WATCH_S)
            missing = set(range(self.lanes)) - set(self.members.owners())
            cut_off = not self.client.is_connected
            if not missing and not cut_off:
                self._missing_since = None
                continue
            now = time.monotonic()
            self._missing_since = self._missing_since or now
            if now - self._missing_since > LEAVE_S:
                await leave_if_cut_off(self.client, self._streams(), "JetStream does not answer through it")
            if now - self._missing_since > LOST_S:
                self.router.lose_all(ProtocolError(Code.NOT_READY, "some lanes cannot be reached from this replica"))

    def _streams(self) -> list[str]:
        """The names of all lanes' streams."""
        return [f"{self.names_in_nats.streams}-lane-{lane}" for lane in range(self.lanes)]

    # --- what other replicas ask ---

    async def _serve_verbs(self) -> None:
        self.calls.local = {
            "bundle": lambda lane, data: self._bundle(lane, data, emits=False),
            "emits": lambda lane, data: self._bundle(lane, data, emits=True),
            **{
                verb: self._about_lane(handler)
                for verb, handler in {
                    "open": _open, "producer": _producer, "erase": _erase, "forget": _forget, **ANSWERS,
                }.items()
            },
        }  # fmt: skip
        for verb, answer in self.calls.local.items():
            await self.link.serve(verb, self._from_afar(verb, answer))

    def _from_afar(self, verb: str, answer: Callable[[int, memoryview], Coroutine[Any, Any, bytes]]) -> Any:
        async def handler(question: memoryview) -> bytes:
            lane = bundle_head(question)[0] if verb in ("bundle", "emits") else json.loads(bytes(question))["lane"]
            return await answer(lane, question)

        return handler

    def _about_lane(self, handler: Callable[[LaneCore, dict[str, Any]], Coroutine[Any, Any, bytes]]) -> Any:
        async def answer(lane: int, question: memoryview) -> bytes:
            return await handler(self._core(lane), json.loads(bytes(question)))

        return answer

    def _core(self, lane: int) -> LaneCore:
        core = self.owned.lanes.get(lane)
        if core is None:
            raise NotOwnerError(f"replica {self._name} does not own lane {lane}")
        return core

    async def _bundle(self, lane: int, data: memoryview, *, emits: bool) -> bytes:
        core = self._core(lane)
        refused = await core.intake.take(bundle_items(data), emits=emits)
        place = core.writer.place
        return json.dumps(
            {
                "durability": core.log.durability,
                "position": place.position,
                "generation": core.generation,
                "refused": [[r.item, int(r.error.code), r.error.message, r.error.sequence] for r in refused],
            }
        ).encode()


async def _open(core: LaneCore, question: dict[str, Any]) -> bytes:
    row = await core.intake.open(
        question["id"], question["name"], question["identity"], question["epoch"], takeover=question["takeover"]
    )
    return json.dumps(told(row)).encode()


async def _producer(core: LaneCore, question: dict[str, Any]) -> bytes:
    about = question["id"], question["name"], question["identity"], question["epoch"]
    row = await (core.intake.fence(*about) if question["fence"] else core.intake.row(question["id"]))
    return json.dumps(told(row)).encode()


async def _erase(core: LaneCore, question: dict[str, Any]) -> bytes:
    await core.intake.erase(question["key"])
    return b"true"


async def _forget(core: LaneCore, question: dict[str, Any]) -> bytes:
    return json.dumps(await core.intake.forget(question["id"])).encode()
