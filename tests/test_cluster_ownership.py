"""What a replica does with its lanes: kept while its claim is the last, given up to the end when the log is lost."""

import asyncio
from types import SimpleNamespace

from bitactor.cluster.intake import PART_BYTES_MAX, Intake
from bitactor.cluster.members import LaneOf, Member, Members
from bitactor.cluster.names import Names
from bitactor.cluster.ownership import Ownership
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.protocol.records import RecordBuilder
from bitactor.runtime.tables import Tables

LEASE_S = 60.0


class Core:
    """A lane as far as ownership looks at it."""

    def __init__(self, generation):
        self.generation = generation
        self.writer = SimpleNamespace(place=SimpleNamespace(position=0))
        self.abandoned = False

    async def abandon(self):
        self.abandoned = True


def test_a_lane_is_let_go_when_another_claimed_it_later_and_kept_when_it_was_just_taken_from_another():
    async def main():
        me = Member("b", "r1", "", 0.0)  # as it spoke last, before it took the lane
        members = Members(None, Names("t", "app"), lambda: me, lease_s=LEASE_S, changed=lambda: None)
        owned = Ownership(members, "b", 1, None, lease_s=0, changed=lambda: None)
        await members.speak()
        other = Member("a", "r0", "", 0.0, lanes={0: LaneOf(generation=5)})
        await members._on_message(SimpleNamespace(data=other.encode()))
        for generation, kept in ((6, True), (4, False)):
            core = owned.lanes[0] = Core(generation)
            owned.step()
            await asyncio.gather(*owned._moving.values())
            assert core.abandoned is not kept
            assert (0 in owned.lanes) is kept

    asyncio.run(main())


def test_a_lane_that_is_given_away_while_its_log_is_lost_does_not_wait_for_what_will_never_be_durable():
    async def main():
        async def nothing():
            pass

        submitted = []
        intake = Intake(
            Tables(), [RecordBuilder(bytes_max=2 * PART_BYTES_MAX) for _ in range(2)], submitted.append,
            kinds=b"", producers_max=9, names_max=9, hold=nothing,
        )  # fmt: skip
        asking = asyncio.create_task(intake.open(7, "seven", "", 0, takeover=False))
        while not submitted:
            await asyncio.sleep(0)
        intake.closed = ProtocolError(Code.NOT_READY, "this lane moves")
        giving = asyncio.create_task(intake.drained())
        await asyncio.sleep(0)
        assert not giving.done()
        intake.fail(ProtocolError(Code.NOT_READY, "the lane is not owned here any more"))
        async with asyncio.timeout(20):
            await giving
        (error,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(error, ProtocolError)

    asyncio.run(main())
