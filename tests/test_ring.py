"""bitactor.Ring: what every item goes through, between threads and between processes, and how it says no."""

import contextlib
import functools
import multiprocessing
import os
import pickle
import random
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter, deque
from pathlib import Path

import numpy as np
import pytest

import bitactor as ba
from bitactor.ring import POP_ITEMS

ITEM = np.dtype([("producer", "u4"), ("", "V4"), ("number", "u8"), ("check", "u8"), ("half", "f8")])
SHAPES = [("one", "one"), ("many", "one"), ("one", "many"), ("many", "many")]


def make(producer, first, n):
    items = np.zeros(n, ITEM)
    items["producer"] = producer
    items["number"] = np.arange(first, first + n, dtype=np.uint64)
    items["check"] = ~items["number"] * np.uint64(0x9E3779B97F4A7C15) + np.uint64(producer)
    items["half"] = items["number"] / 2
    return items


def whole(items):
    """Whether each item's content is what its producer and number say."""
    expected = ~items["number"] * np.uint64(0x9E3779B97F4A7C15) + items["producer"].astype(np.uint64)
    return bool((items["check"] == expected).all() and (items["half"] == items["number"] / 2).all())


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def name():
    made = f"test-{os.getpid()}-{secrets.token_hex(4)}"
    yield made
    with contextlib.suppress(FileNotFoundError):
        ba.Ring.unlink(made)


def run_python(code, *args, timeout=60):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# --- between threads ---


@pytest.mark.parametrize(("producers", "consumers"), SHAPES)
def test_every_item_comes_out_once_whole_and_in_the_order_of_its_producer(producers, consumers):
    seed = secrets.randbits(32)
    print("seed", seed)
    each = 20_000
    ring = ba.Ring(256, ITEM, producers=producers, consumers=consumers)
    writers = 3 if producers == "many" else 1
    readers = 3 if consumers == "many" else 1
    got = [[] for _ in range(readers)]

    def write(index):
        dice = random.Random(seed + index)
        with ring.producer() as producer:
            sent = 0
            while sent < each:
                n = min(dice.choice((1, 2, 7, 100, 700)), each - sent)
                if n == 1:
                    assert producer.push(make(index, sent, 1)[0])
                else:
                    assert producer.push_batch(make(index, sent, n)) == n
                sent += n

    def read(index):
        dice = random.Random(seed - index)
        with ring.consumer() as consumer:
            while (batch := consumer.pop_batch(dice.choice((1, 3, 64, 1000)))) is not None:
                assert len(batch)
                got[index].append(batch)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
    others = [threading.Thread(target=read, args=(i,)) for i in range(readers)]
    for thread in threads + others:
        thread.start()
    for thread in threads:
        thread.join()
    ring.close()
    for thread in others:
        thread.join()

    for batches in got:  # in what one consumer got, each producer's numbers only grow
        mine = np.concatenate(batches) if batches else np.empty(0, ITEM)
        assert whole(mine)
        for producer in range(writers):
            numbers = mine["number"][mine["producer"] == producer]
            assert (np.diff(numbers.astype(np.int64)) > 0).all()
    everything = np.concatenate([batch for batches in got for batch in batches])
    for producer in range(writers):
        numbers = np.sort(everything["number"][everything["producer"] == producer])
        assert (numbers == np.arange(each)).all()
    counts = ring.statistics()
    assert (counts.pushed, counts.popped, counts.queued) == (writers * each, writers * each, 0)
    assert (counts.refused, counts.dropped) == (0, 0)


@pytest.mark.parametrize(("producers", "consumers"), SHAPES)
@pytest.mark.parametrize("full", ["refuse", "drop"])
def test_the_ring_does_what_a_bounded_deque_does(producers, consumers, full):
    seed = secrets.randbits(32)
    print("seed", seed)
    dice = random.Random(seed)
    for capacity in (1, 2, 8, 64):
        ring = ba.Ring(capacity, "u8", producers=producers, consumers=consumers, full=full)
        producer, consumer = ring.producer(), ring.consumer()
        model, refused, number, popped = deque(), 0, 0, 0
        for _ in range(400):
            n = dice.randint(1, capacity + 3)
            if dice.random() < 0.5:
                room = min(n, capacity - len(model))
                if n == 1:
                    assert producer.push(number) is (room == 1)
                else:
                    assert producer.push_batch(np.arange(number, number + n, dtype="u8")) == room
                model.extend(range(number, number + room))
                refused += n - room
                number += n
            else:
                batch = consumer.pop_batch(n, timeout=0)
                expected = [model.popleft() for _ in range(min(n, len(model)))]
                assert batch.tolist() == expected
                popped += len(expected)
            counts = ring.statistics()
            assert (counts.capacity, counts.queued, counts.popped) == (capacity, len(model), popped)
            assert (counts.refused, counts.dropped) == ((refused, 0) if full == "refuse" else (0, refused))


def test_a_batch_larger_than_the_ring_waits_part_by_part():
    ring = ba.Ring(8, "u8")
    producer, consumer = ring.producer(), ring.consumer()
    thread = threading.Thread(target=lambda: producer.push_batch(np.arange(10_000, dtype="u8")))
    thread.start()
    got = []
    while len(got) < 10_000:
        got.extend(consumer.pop_batch().tolist())
    thread.join()
    assert got == list(range(10_000))
    assert ring.statistics().pushed == 10_000


def test_pop_into_fills_the_callers_array_from_its_beginning():
    ring = ba.Ring(8, "f8")
    ring.producer().push_batch(np.array([1.5, 2.5, 3.5]))
    out = np.zeros(8)
    assert ring.consumer().pop_into(out) == 3
    assert out.tolist() == [1.5, 2.5, 3.5, 0, 0, 0, 0, 0]
    with pytest.raises(TypeError, match="contiguous"):
        ring.consumer().pop_into(np.zeros(8)[::2])
    with pytest.raises(TypeError, match="float64"):
        ring.consumer().pop_into(np.zeros(8, "f4"))


def test_popped_arrays_are_the_callers_own():
    ring = ba.Ring(2, "u8")
    producer, consumer = ring.producer(), ring.consumer()
    kept = []
    for i in range(100):
        producer.push(i)
        kept.append(consumer.pop_batch())
    assert [batch.tolist() for batch in kept] == [[i] for i in range(100)]


def test_iterating_gives_batches_until_the_end():
    ring = ba.Ring(64, "u8")
    ring.producer().push_batch(np.arange(50, dtype="u8"))
    ring.close()
    assert np.concatenate(list(ring.consumer())).tolist() == list(range(50))


# --- handles ---


@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_a_second_handle_of_a_one_side_is_refused_until_the_first_is_closed(side):
    ring = ba.Ring(8, "u8")
    first = getattr(ring, side)()
    with pytest.raises(RuntimeError, match=f'only {side} is taken: close it first, or .* {side}s="many"'):
        getattr(ring, side)()
    first.close()
    first.close()
    second = getattr(ring, side)()
    del second  # a handle that nobody holds gives its place back too
    getattr(ring, side)()
    with pytest.raises(ba.ClosedError, match=f"this {side} is closed"):
        first.push(1) if side == "producer" else first.pop()


def test_the_next_handle_goes_on_where_the_last_one_stopped():
    ring = ba.Ring(8, "u8")
    for i in range(20):
        with ring.producer() as producer, ring.consumer() as consumer:
            producer.push(i)
            if i % 3 == 2:
                assert consumer.pop_batch().tolist() == [i - 2, i - 1, i]


@pytest.mark.parametrize(("producers", "consumers"), [("one", "one"), ("many", "many")])
def test_a_handle_in_two_threads_is_refused_to_the_second(producers, consumers):
    ring = ba.Ring(1, "u8", producers=producers, consumers=consumers)
    producer, consumer = ring.producer(), ring.consumer()
    waiting = threading.Thread(target=consumer.pop)
    waiting.start()
    until(lambda: ring.statistics().consumer_parks)
    with pytest.raises(RuntimeError, match="another thread uses this consumer"):
        consumer.pop()
    producer.push(1)
    waiting.join()
    producer.push(2)
    waiting = threading.Thread(target=producer.push, args=(3,))
    waiting.start()
    until(lambda: ring.statistics().producer_parks)
    with pytest.raises(RuntimeError, match="another thread uses this producer"):
        producer.push(4)
    assert consumer.pop() == 2
    waiting.join()
    assert consumer.pop() == 3


def test_handles_keep_their_ring_alive():
    producer = ba.Ring(8, "u8").producer()
    for i in range(8):
        assert producer.push(i)
    assert not producer.push(9, timeout=0)


# --- time and the end ---


@pytest.mark.parametrize(("producers", "consumers"), [("one", "one"), ("many", "many")])
def test_timeouts_end_a_wait_and_take_nothing(producers, consumers):
    ring = ba.Ring(4, "u8", producers=producers, consumers=consumers)
    producer, consumer = ring.producer(), ring.consumer()
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0.12 seconds"):
        consumer.pop(timeout=0.12)
    assert 0.1 < time.monotonic() - begin < 5
    assert len(consumer.pop_batch(timeout=0)) == 0
    begin = time.monotonic()
    assert producer.push_batch(np.arange(6, dtype="u8"), timeout=0.12) == 4
    assert 0.1 < time.monotonic() - begin < 5
    assert producer.push(7, timeout=0) is False
    assert consumer.pop_batch().tolist() == [0, 1, 2, 3]
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout is"):
            consumer.pop(timeout=wrong)


@pytest.mark.parametrize(("producers", "consumers"), SHAPES)
def test_close_refuses_producers_and_lets_consumers_drain(producers, consumers):
    ring = ba.Ring(8, "u8", producers=producers, consumers=consumers)
    producer, consumer = ring.producer(), ring.consumer()
    producer.push_batch(np.arange(5, dtype="u8"))
    assert not ring.closed
    ring.close()
    ring.close()
    assert ring.closed
    with pytest.raises(ba.ClosedError, match="takes no more items"):
        producer.push(9)
    with pytest.raises(ba.ClosedError):
        ring.producer()
    assert consumer.pop() == 0
    assert consumer.pop_batch().tolist() == [1, 2, 3, 4]
    assert consumer.pop() is None
    assert consumer.pop_batch() is None
    assert consumer.pop_into(np.zeros(2, "u8")) is None
    assert ring.statistics().popped == 5


@pytest.mark.parametrize(("producers", "consumers"), SHAPES)
def test_close_wakes_who_waits(producers, consumers):
    ring = ba.Ring(2, "u8", producers=producers, consumers=consumers)
    producer, result = ring.producer(), []
    waiting = threading.Thread(target=lambda: result.append(producer.push_batch(np.arange(7, dtype="u8"))))
    waiting.start()
    until(lambda: ring.statistics().queued == 2)
    time.sleep(0.02)
    ring.close()
    waiting.join(timeout=10)
    assert result == [2]  # what was taken before the end, and can still be popped
    assert ring.consumer().pop_batch().tolist() == [0, 1]

    empty = ba.Ring(2, "u8", producers=producers, consumers=consumers)
    consumer = empty.consumer()
    waiting = threading.Thread(target=lambda: result.append(consumer.pop()))
    waiting.start()
    time.sleep(0.02)
    empty.close()
    waiting.join(timeout=10)
    assert result == [2, None]


def test_a_wait_for_room_gives_up_the_gil_and_answers_control_c():
    result = run_python(
        """
        import os, signal, threading, time
        import numpy as np
        from bitactor import Ring
        ring = Ring(4, "u8")
        producer = ring.producer()
        ticks = []
        def tick():
            for _ in range(20):
                time.sleep(0.005)
                ticks.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=tick).start()
        try:
            producer.push_batch(np.arange(10, dtype="u8"))
        except KeyboardInterrupt:
            print("interrupted", len(ticks), ring.statistics().queued, producer.push(1, timeout=0))
        try:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            consumer = ring.consumer()
            print(consumer.pop_batch().tolist())
            consumer.pop()
        except KeyboardInterrupt:
            print("interrupted", producer.push(5), consumer.pop())
        """
    )
    assert result.stderr == ""
    assert result.stdout == "interrupted 20 4 False\n[0, 1, 2, 3]\ninterrupted True 5\n"


# --- what a ring takes ---


@pytest.mark.parametrize(
    ("dtype", "items"),
    [
        ("f8", [1.5, -0.0, 1e300]),
        ("i8", [-1, 2**63 - 1, 0]),
        (">u8", [1, 2**64 - 1, 0]),
        ("S16", [b"text", b"", b"0123456789abcdef"]),
        ("U2", ["ab", "", "\u00e9"]),
        ("M8[ns]", [np.datetime64(1, "ns"), np.datetime64("2024-05-01T12:00:00", "ns"), np.datetime64("NaT", "ns")]),
        ("c16", [1 + 2j, 0j, -1j]),
        ([("a", "u4"), ("b", "f4"), ("c", "S24")], [(1, 0.5, b"x"), (2, -1.0, b""), (0, 0.0, b"y" * 24)]),
        ([("v", "f8", (3,)), ("n", "i8")], [([1, 2, 3], 4), ([0, 0, 0], -1), ([9, 9, 9], 9)]),
        ("V65536", [b"\x01" * 65536, b"\x00" * 65536, b"\x02" * 65536]),
    ],
)
def test_items_of_any_fixed_size_dtype_come_back_as_they_went(dtype, items):
    expected = np.array(items, dtype)
    ring = ba.Ring(4, dtype)
    producer, consumer = ring.producer(), ring.consumer()
    for item in items:
        assert producer.push(item)
    for item in expected:
        got = consumer.pop()
        assert isinstance(got, np.generic)
        assert got.tobytes() == item.tobytes()
    for item in expected:  # NumPy scalars of the dtype too
        assert producer.push(item)
    assert consumer.pop_batch().tobytes() == expected.tobytes()
    assert producer.push_batch(np.repeat(expected, 2)[::2]) == 3  # not contiguous
    got = consumer.pop_batch()
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()


def test_the_default_item_is_a_signal():
    ring = ba.Ring(4)
    signals = ba.make_signals(ba.App("a").kind("k", 3), key=[1, 2], value=[0.5, 1.5], time=[7, 8])
    assert ring.producer().push_batch(signals) == 2
    assert ring.consumer().pop_batch().tolist() == signals.tolist()


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("O", "holds Python objects"),
        ([("a", "u8"), ("b", "O")], "holds Python objects"),
        ("f4", r'has 4 bytes: .* gets 8 by a last field such as \("", "V4"\)'),
        ([("a", "u8"), ("b", "u1")], r"has 9 bytes: .* gets 16 .*V7"),
        ("V65544", "has 65544 bytes: an item has a multiple of 8, up to 65,536"),
        ("V65537", "has 65537 bytes"),
        (("f8", (4,)), "is an array itself"),
    ],
)
def test_dtypes_that_cannot_be_copied_as_bytes_are_refused_with_a_fix(dtype, message):
    with pytest.raises(TypeError, match=message):
        ba.Ring(8, dtype)


@pytest.mark.parametrize("capacity", [0, -8, 3, 100, 2**31])
def test_a_capacity_that_is_no_power_of_two_is_refused_with_one_that_is(capacity):
    with pytest.raises(ValueError, match="give a power of two"):
        ba.Ring(capacity)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match='producers is \'two\': give "one" or "many"'):
        ba.Ring(8, producers="two")
    with pytest.raises(ValueError, match='full is \'block\': give "wait", "refuse" or "drop"'):
        ba.Ring(8, full="block")
    for name in ("", ".hidden", "a/b", "a b", "\u00e9", "x" * 201):
        with pytest.raises(ValueError, match="name is"):
            ba.Ring.create(name, 8)


def test_items_that_do_not_fit_are_refused_and_nothing_is_pushed():
    ring = ba.Ring(8, "u8")
    producer = ring.producer()
    with pytest.raises(TypeError):
        producer.push(1.5)
    with pytest.raises(OverflowError):
        producer.push(-1)
    with pytest.raises(TypeError, match="takes an array of uint64; this one is of float64"):
        producer.push_batch(np.zeros(3))
    with pytest.raises(TypeError, match="one dimension"):
        producer.push_batch(np.zeros((2, 2), "u8"))
    with pytest.raises(TypeError, match="not list"):
        producer.push_batch([1, 2])
    with pytest.raises(TypeError, match="takes an item of"):
        producer.push(np.zeros(1, ITEM)[0])
    assert producer.push(np.int32(5))  # a number that fits is a number
    assert producer.push_batch(np.zeros(0, "u8")) == 0
    assert ring.statistics().pushed == 1
    with pytest.raises(ValueError, match="max is 0"):
        ring.consumer().pop_batch(0)


# --- fork ---


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_fork_every_call_is_refused_with_a_word_about_spawn(name):
    with ba.Ring(8, "u8") as ring, ba.Ring.create(name, 8, "u8") as shared:
        for each in (ring, shared):
            producer, consumer = each.producer(), each.consumer()
            producer.push(1)
            pid = os.fork()
            if pid == 0:
                said = Counter()
                for call in (functools.partial(producer.push, 2), consumer.pop, each.statistics, each.producer):
                    try:
                        call()
                    except RuntimeError as error:
                        said["spawn" in str(error)] += 1
                each.close()
                del producer, consumer
                os._exit(0 if said == Counter({True: 4}) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert consumer.pop() == 1  # the child's end changed nothing here
            assert producer.push(3)
            if each is shared:
                assert each.peer() == "alive"


# --- between processes ---

spawn = multiprocessing.get_context("spawn")


def produce(name, n, batch, pause):
    with ba.Ring.attach(name, ITEM, timeout=30) as ring, ring.producer() as producer:
        for first in range(0, n, batch):
            assert producer.push_batch(make(1, first, min(batch, n - first))) == min(batch, n - first)
            time.sleep(pause)


def consume(ring, answers):
    with ring, ring.consumer() as consumer:
        batches = list(consumer)
        items = np.concatenate(batches)
        answers.put((whole(items), bool((items["number"] == np.arange(len(items))).all()), len(items)))


def test_a_spawned_producer_and_this_consumer_pass_every_item_once_and_in_order(name):
    n = 300_000
    with ba.Ring.create(name, 1024, ITEM) as ring, ring.consumer() as consumer:
        assert ring.peer() == "never came"
        process = spawn.Process(target=produce, args=(name, n, 777, 0))
        process.start()
        items = np.concatenate(list(consumer))
        process.join()
        assert process.exitcode == 0
        assert whole(items)
        assert (items["number"] == np.arange(n)).all()
        counts = ring.statistics()
        assert (counts.pushed, counts.popped, counts.queued) == (n, n, 0)
        assert ring.peer() == "left"
    with pytest.raises(FileNotFoundError):
        ba.Ring.attach(name, ITEM)


def test_a_shared_ring_goes_to_a_spawned_process_as_an_argument(name):
    answers = spawn.Queue()
    ring = ba.Ring.create(name, 64, ITEM)
    process = spawn.Process(target=consume, args=(ring, answers))
    with ring, ring.producer() as producer:
        process.start()
        for first in range(0, 5000, 50):
            producer.push_batch(make(2, first, 50))
        until(lambda: ring.peer() == "alive")
    assert answers.get(timeout=30) == (True, True, 5000)
    process.join()
    with pytest.raises(TypeError, match=r"use Ring.create\(name"):
        pickle.dumps(ba.Ring(8))


CHILD = """
import sys, time
import numpy as np
import bitactor as ba
ring = ba.Ring.attach(sys.argv[1], "u8")
if sys.argv[2] == "producer":
    handle = ring.producer()
    handle.push_batch(np.arange(100, dtype="u8"))
else:
    handle = ring.consumer()
print("ready", flush=True)
time.sleep(60)
"""


def child(name, role):
    process = subprocess.Popen([sys.executable, "-c", CHILD, name, role], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_after_kill_9_of_the_producer_the_consumer_gets_what_was_published_and_then_an_error(name):
    with ba.Ring.create(name, 256, "u8") as ring, ring.consumer() as consumer:
        process = child(name, "producer")
        assert ring.peer() == "alive"
        assert consumer.pop() == 0
        end(process)
        assert consumer.pop_batch().tolist() == list(range(1, 100))
        begin = time.monotonic()
        with pytest.raises(ba.PeerDiedError, match="has died"):
            consumer.pop(timeout=30)
        assert time.monotonic() - begin < 5
        assert ring.peer() == "died"
        again = child(name, "producer")  # another process takes the free side, and the stream goes on
        assert consumer.pop_batch(timeout=5).tolist() == list(range(100))
        end(again)


def test_kill_9_of_the_producer_is_noticed_by_a_consumer_that_waits_already(name):
    with ba.Ring.create(name, 256, "u8") as ring, ring.consumer() as consumer:
        process = child(name, "producer")
        consumer.pop_batch()
        threading.Timer(0.2, process.send_signal, (signal.SIGKILL,)).start()
        with pytest.raises(ba.PeerDiedError):
            consumer.pop(timeout=30)
        end(process)


@pytest.mark.parametrize("full", ["wait", "refuse", "drop"])
def test_after_kill_9_of_the_consumer_the_producer_fills_the_ring_and_then_gets_an_error(name, full):
    with ba.Ring.create(name, 16, "u8", full=full) as ring, ring.producer() as producer:
        process = child(name, "consumer")
        end(process)
        assert producer.push_batch(np.arange(20, dtype="u8")) == 16
        with pytest.raises(ba.PeerDiedError):
            producer.push(1)
        assert ring.statistics().queued == 16


@pytest.mark.parametrize("full", ["refuse", "drop"])
def test_a_full_shared_ring_refuses_or_drops_with_a_count(name, full):
    with ba.Ring.create(name, 16, "u8", full=full) as ring, ring.producer() as producer:
        assert producer.push_batch(np.arange(20, dtype="u8")) == 16
        assert producer.push(21) is False
        counts = ring.statistics()
        assert (counts.refused, counts.dropped) == ((5, 0) if full == "refuse" else (0, 5))
        assert (counts.pushed, counts.queued) == (16, 16)


def test_a_role_is_one_processs_at_a_time(name):
    with ba.Ring.create(name, 256, "u8") as ring:
        process = child(name, "consumer")
        with pytest.raises(RuntimeError, match="another process has the consumer"):
            ring.consumer()
        producer = ring.producer()
        with pytest.raises(RuntimeError, match="between processes there is one of each"):
            ring.producer()
        producer.close()
        ring.producer().push(1)  # the same process may take it again
        end(process)
        assert ring.consumer().pop() == 1  # free again after a death


def test_a_side_that_leaves_hands_over_and_a_side_that_closes_ends(name):
    with ba.Ring.create(name, 16, "u8") as ring, ring.consumer() as consumer:
        first = ba.Ring.attach(name, "u8")
        first.producer().push_batch(np.arange(3, dtype="u8"))
        first.leave()
        assert ring.peer() == "left"
        second = ba.Ring.attach(name, "u8")
        second.producer().push(3)
        assert consumer.pop_batch().tolist() == [0, 1, 2, 3]
        with pytest.raises(TimeoutError):
            consumer.pop(timeout=0.03)
        second.close()
        assert consumer.pop() is None
        assert second.statistics().pushed == 4
        with pytest.raises(ba.ClosedError):
            second.consumer()
    with pytest.raises(ValueError, match="closing its handles"):
        ba.Ring(8).leave()


def test_a_consumer_that_closes_stops_the_producer(name):
    with ba.Ring.create(name, 16, "u8") as ring:
        producer = ring.producer()
        with ba.Ring.attach(name, "u8") as other, other.consumer():
            producer.push(1)
        with pytest.raises(ba.ClosedError):
            producer.push(2)


def test_a_shared_ring_that_is_lost_without_close_is_a_death_to_the_other_side(name):
    with ba.Ring.create(name, 16, "u8") as ring, ring.consumer() as consumer:
        other = ba.Ring.attach(name, "u8")
        other.producer().push(7)
        with pytest.warns(ResourceWarning, match="was not closed"):
            del other
        assert consumer.pop() == 7
        with pytest.raises(ba.PeerDiedError):
            consumer.pop(timeout=10)


def test_create_and_attach_say_what_is_wrong(name):
    with pytest.raises(FileNotFoundError, match=r"Ring.create\(name"):
        ba.Ring.attach(name)
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError):
        ba.Ring.attach(name, timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    with ba.Ring.create(name, 16, "u8"):
        with pytest.raises(FileExistsError, match="Ring.unlink"):
            ba.Ring.create(name, 16, "u8")
        for other in ("f8", ba.SIGNAL_DTYPE):  # the same size with another meaning too
            with pytest.raises(TypeError, match="made for another dtype"):
                ba.Ring.attach(name, other)
        assert Path(f"/dev/shm/bitactor-{name}").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileNotFoundError):
        ba.Ring.unlink(name)


def test_foreign_and_damaged_segments_are_refused(name):
    path = Path(f"/dev/shm/bitactor-{name}")
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(ValueError, match="not a ring of this version"):
        ba.Ring.attach(name)
    path.unlink()
    with ba.Ring.create(name, 16, "u8"):
        with path.open("r+b") as file:
            file.seek(17)  # within the capacity
            file.write(b"\x7f")
        with pytest.raises(RuntimeError, match="contradicts itself"):
            ba.Ring.attach(name, "u8")


def test_pop_batch_takes_no_more_memory_than_the_ring_holds():
    ring = ba.Ring(4, "V65536")
    ring.producer().push(b"\x01" * 65536)
    assert POP_ITEMS * 65536 > 2**28
    assert ring.consumer().pop_batch().nbytes == 65536
