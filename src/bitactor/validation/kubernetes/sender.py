"""What runs in the client's pod: sends a stream in which all signals differ, and compares states with a replay of it.

send: at a rate until the stop file is there; prints a line when it begins, and at the end what was sent, what was
acknowledged, and for which times nothing was acknowledged while something waited, in seconds since it began.
judge: connects again, asks for the state of every key that was sent to, and replays the same stream inline, whole and
with defects planted into it; prints what differs.

The file runs by itself with the package of the pod's image. Every signal follows from label, seed and place, so the
history of any length is known without keeping it. Keys are the label's own: nobody else's signals come between.
"""

import argparse
import importlib.util
import itertools
import json
import math
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import bitactor as ba
from bitactor.signals import text_key
from bitactor.validation.load import signals_at
from bitactor.validation.streams import stream

KEYS = 64
TEMPLATE = 1 << 16
PIECES_A_SECOND = 50
GAP_S_MIN = 0.02
ANSWER_S = 120.0
REORDERS = 32  # keys that are tried

Signals = npt.NDArray[Any]
States = dict[str, Any]  # "actor key" -> fields as the admin API gives them, or None


def app_of(target: str) -> ba.App:
    """The app that a file holds, or file:name, as the service was given it. ValueError: none, or not one alone."""
    file, _, name = target.partition(":")
    spec = importlib.util.spec_from_file_location("served_app", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["served_app"] = module
    sys.path.insert(0, str(Path(file).parent))
    spec.loader.exec_module(module)
    named = [getattr(module, name)] if name else list(vars(module).values())
    apps = {id(one): one for one in named if isinstance(one, ba.App)}
    if len(apps) != 1:
        raise ValueError(f"{target} holds {len(apps)} apps")
    return apps.popitem()[1]


def judged(app: ba.App) -> list[Any]:
    """The actors whose state is a function of what one producer sends to a key: no emits, no clock among its causes."""
    emitted = {kind.number for actor in app.actors for kind in actor.emits}
    return [
        actor
        for actor in app.actors
        if not actor.idle_ns and not actor.reads_wall and emitted.isdisjoint(kind.number for kind in actor.kinds)
    ]


def template_of(app: ba.App, label: str, seed: int) -> Signals:
    """The signals that are sent over and over, each time with other times. ValueError: no actor can be judged."""
    kinds = {kind.number: kind for actor in judged(app) for kind in actor.kinds}
    if not kinds:
        raise ValueError(
            "each actor of this app is emitted to, forgets, or reads the clock: its state cannot be replayed"
        )
    template = stream(app, label, TEMPLATE, seed, KEYS, [kinds[number] for number in sorted(kinds)])
    template["key"] += np.uint64(text_key(label) & ~0xFFF)
    return template


class Gaps:
    """The times for which `acked` stood still while something was due, as [begin, end] in seconds since the begin."""

    def __init__(self, client: ba.Client) -> None:
        self.client, self.begun = client, time.monotonic()
        self.found: list[list[float]] = []
        self.over = False
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        last, since = self.client.acked, time.monotonic()
        while not self.over:
            time.sleep(0.002)
            now = time.monotonic()
            if self.client.acked != last or self.client.next == last:
                if now - since > GAP_S_MIN:
                    self.found.append([round(since - self.begun, 3), round(now - self.begun, 3)])
                last, since = self.client.acked, now

    def end(self) -> list[list[float]]:
        """What was found."""
        self.over = True
        self.thread.join()
        return self.found


def send(given: argparse.Namespace) -> dict[str, Any]:
    """Send at a rate until told to stop, and wait until all is acknowledged."""
    template = template_of(app_of(given.app), given.label, given.seed)
    piece = max(1, given.rate // PIECES_A_SECOND)
    with connected(given) as client:
        if client.next:
            raise ValueError(f"a producer {given.label!r} was here before: give another --seed")
        gaps = Gaps(client)
        print(json.dumps({"ready": True}), flush=True)  # noqa: T201
        while not given.stop.exists():
            client.send_batch(signals_at(template, client.next, piece))
            time.sleep(max(0.0, gaps.begun + client.next / given.rate - time.monotonic()))
        sent, acked = client.next, client.flush(300).next
        found = gaps.end()
    return {"sent": sent, "acked": acked, "gaps": found}


def judge(given: argparse.Namespace) -> dict[str, Any]:
    """Compare the service's states with those of the history, and see that the comparison finds planted defects."""
    app = app_of(given.app)
    template = template_of(app, given.label, given.seed)
    with connected(given) as client:
        known = client.next
    history = signals_at(template, 0, given.sent)
    keys = np.unique(template["key"]).tolist()
    there = {f"{actor.name} {key}": asked(given, actor.name, key) for actor in judged(app) for key in keys}
    expected = replay(app, history, keys)
    differ = [
        f"{name}: {there[name]} is there, {expected[name]} follows" for name in there if there[name] != expected[name]
    ]
    planted = {what: replay(app, one, keys) != there for what, one in damaged(history)}
    planted["reorder"] = any(replay(app, one, keys) != there for one in reordered(history))
    return {"next": known, "compared": len(there), "differ": len(differ), "examples": differ[:3], "planted": planted}


def replay(app: ba.App, history: Signals, keys: list[int]) -> States:
    """The states that this history gives, by an engine of the caller's thread."""
    with ba.Engine(app, shards=0) as engine:
        engine.send_batch(history)
        engine.flush()
        return {f"{actor.name} {key}": shown(engine.state(actor.name, key)) for actor in judged(app) for key in keys}


def shown(state: Any) -> Any:
    """A state as the admin API gives it: numbers that JSON lacks are texts."""
    return None if state is None else {name: _plain(state[name]) for name in state}


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def damaged(history: Signals) -> Iterator[tuple[str, Signals]]:
    """The history with a defect each, one after the other: together they would be large."""
    middle = len(history) // 2
    foreign = history.copy()
    foreign["key"][middle] ^= np.uint64(1)
    yield "foreign", foreign
    yield "loss", np.delete(history, middle)
    yield "loss at the end", history[:-1]
    yield "duplicate", np.insert(history, middle, history[middle])
    yield "duplicate at the end", np.append(history, history[-1:])


def reordered(history: Signals) -> Iterator[Signals]:
    """Histories in which the last two signals of a kind and key have changed places: later ones might hide it."""
    for key, kind in itertools.product(np.unique(history["key"])[:REORDERS], np.unique(history["kind"])):
        last = np.flatnonzero((history["key"] == key) & (history["kind"] == kind))[-2:]
        if len(last) > 1:
            other = history.copy()
            other[last] = history[last[::-1]]
            yield other


def connected(given: argparse.Namespace) -> ba.Client:
    """A client that goes on for as long as it takes."""
    return ba.Client(
        given.address, producer=given.label, token_file=given.secrets / "token", ca_file=given.secrets / "ca.crt",
        server_name=given.server_name, connect_s=ANSWER_S,
    )  # fmt: skip


def asked(given: argparse.Namespace, actor: str, key: int) -> Any:
    """What the service says of a key's state; None when it knows none."""
    token = (given.secrets / "admin").read_text().strip()
    url = f"{given.admin}/api/v1/actors/{actor}/state/{key}"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})  # noqa: S310
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)["state"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code != 503 or time.monotonic() > until:
                raise
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def main(words: list[str] | None = None) -> None:
    """As the head of the file says; prints one line of JSON at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("send", "judge"))
    for name in ("address", "label", "app", "admin"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--server-name")
    parser.add_argument("--secrets", type=Path, default=Path("/secrets"))
    parser.add_argument("--stop", type=Path, default=Path("/tmp/stop"))  # noqa: S108  (the pod's own)
    for name in ("seed", "rate", "sent"):
        parser.add_argument(f"--{name}", type=int, default=0)
    given = parser.parse_args(words)
    print(json.dumps((send if given.verb == "send" else judge)(given)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
