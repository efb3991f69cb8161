"""How many texts have names: counted once each, also while a name is both durable and not completed yet."""

import random

import pytest

from bitactor import text_key
from bitactor.protocol.errors import Code, ProtocolError
from bitactor.runtime.names import Names
from bitactor.runtime.records import OpenRecord
from bitactor.runtime.tables import Tables

MOST = 5
TEXTS = [f"name-{number}" for number in range(8)]


def is_full(names, text):
    """Whether a text is refused for want of room."""
    try:
        names.is_new(text_key(text), text)
    except ProtocolError as error:
        return error.code is Code.NAMES_FULL
    return False


def test_a_name_in_the_tables_that_is_not_completed_yet_is_counted_once():
    tables = Tables({}, {})
    names, record = Names(tables, 2), OpenRecord(None, 0)
    names.add(text_key("AAPL"), "AAPL", record)
    tables.name(text_key("AAPL"), "AAPL")  # the writer is faster than the loop
    assert names.is_new(text_key("MSFT"), "MSFT")
    names.add(text_key("MSFT"), "MSFT", record)
    with pytest.raises(ProtocolError, match="2 texts have names already"):
        names.is_new(text_key("GOOG"), "GOOG")
    names.completed(record)
    assert is_full(names, "GOOG")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_names_erasures_the_writer_and_refusals_is_as_a_plain_set(seed):
    random_ = random.Random(seed)
    tables = Tables({}, {})
    names = Names(tables, MOST)
    known, durable = set(), set()  # as admitted, and as the writer has them
    flying = []  # (record, what it does), in order; those before `applied` are in the tables
    applied = 0
    for _ in range(400):
        step, text = random_.choice(("name", "name", "erase", "apply", "complete", "refuse")), random_.choice(TEXTS)
        key = text_key(text)
        if step == "name" and text not in known:
            assert is_full(names, text) == (len(known) >= MOST), f"seed {seed}"
            if len(known) < MOST:
                flying.append((OpenRecord(None, 0), "name", text))
                names.add(key, text, flying[-1][0])
                known.add(text)
        elif step == "name":
            assert not names.is_new(key, text)
        elif step == "erase":
            flying.append((OpenRecord(None, 0), "erase", text))
            names.erase(key, flying[-1][0])
            known.discard(text)
        elif step == "apply" and applied < len(flying):
            _, what, done = flying[applied]
            applied += 1
            tables.name(text_key(done), done) if what == "name" else tables.erase(text_key(done))
            durable.add(done) if what == "name" else durable.discard(done)
        elif step == "complete" and applied:
            names.completed(flying.pop(0)[0])
            applied -= 1
        elif step == "refuse" and not applied:
            flying.clear()
            names.forget_ahead()
            known = set(durable)
        assert {one for one in TEXTS if names.text_of(text_key(one)) is not None} == known, f"seed {seed}"
