"""States and tables of another replica whose app has another layout: refused as not ready, never read as ours."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

import bitactor as ba
from bitactor.cluster import queries
from bitactor.protocol.errors import Code, ProtocolError


def app_of(**fields):
    app = ba.App("layouts")
    reading = app.kind("reading", 1, value="f8")

    @app.actor(reading, state=fields, name="readings")
    def readings(state, signal):
        state.count += 1

    return app


def owner_of(app):
    """A lane's owner, as far as answers go: a real engine with one reading of key 7."""
    engine = ba.Engine(app, 0)
    engine.send(kind="reading", key=7, value=1.0)
    engine.flush()
    place = SimpleNamespace(position=1)
    tables = SimpleNamespace(names={})
    return SimpleNamespace(engine=engine, generation=3, tables=tables, writer=SimpleNamespace(place=place))


class Calls:
    """Asks the one owner directly."""

    def __init__(self, owner):
        self.owner = owner

    async def ask(self, lane, verb, question, **_):
        return await queries.ANSWERS[verb](self.owner, json.loads(question))


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def reader(loop):
    owners = []

    def make(mine, theirs):
        owners.append(owner_of(app_of(**theirs)))
        return queries.Reader(app_of(**mine), Calls(owners[-1]), 1, loop)

    yield make
    for owner in owners:
        owner.engine.close()


def test_a_replica_of_the_same_app_answers(reader):
    same = {"count": "u8", "last": ("f8", 2)}
    asked = reader(same, same)
    assert asked.state("readings", 7).count == 1
    assert asked.table("readings").columns["count"].tolist() == [1]
    assert asked.table("readings", ["last"]).columns["last"].shape == (1, 2)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"count": "u8", "after": "u8"}, {"count": "u8"}),
        ({"count": "u8"}, {"count": "u8", "after": "u8"}),
        ({"count": "u8", "total": "f8"}, {"count": "u8", "other": "f8"}),  # the same size
        ({"count": "u8", "total": "f8"}, {"count": "u8", "total": "i8"}),
        ({"count": "u8", "total": ("f8", 2)}, {"count": "u8", "total": ("f8", 3)}),
    ],
)
def test_a_replica_of_another_layout_is_not_read(mine, theirs, reader):
    asked = reader(mine, theirs)
    for question in (lambda: asked.state("readings", 7), lambda: asked.table("readings")):
        with pytest.raises(ProtocolError, match="another version of the app") as refused:
            question()
        assert refused.value.code == Code.NOT_READY
