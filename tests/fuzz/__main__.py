"""`python -m tests.fuzz SECONDS [TARGET...] [--seed N]`: so long for each; status 1 and the input when one fails."""

import argparse
import contextlib
import secrets
import sys
import traceback

from tests.fuzz import corpus
from tests.fuzz.codecs import Frames, Messages, Records
from tests.fuzz.files import Config, Snapshots
from tests.fuzz.http import AdminHttp
from tests.fuzz.mutate import fuzz
from tests.fuzz.session import Session

TARGETS = {
    "frames": Frames, "messages": Messages, "records": Records, "session": Session,
    "snapshot": Snapshots, "config": Config, "admin-http": AdminHttp,
}  # fmt: skip


def run(name, seconds=None, rounds=None, seed=0):
    """Fuzz one target, its kept inputs first; how many inputs it took."""
    target = TARGETS[name]()
    try:
        for data in corpus.kept(name):
            target.one(data)
        return fuzz(target, seconds, rounds, seed)
    finally:
        getattr(target, "close", lambda: None)()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    failed = False
    for name in options.targets or TARGETS:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                done = run(name, options.seconds, seed=options.seed)
            print(f"fuzz {name:<10} {done:>9,} inputs, seed {options.seed}: ok", flush=True)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            print(
                f"fuzz {name:<10} FAILED, seed {options.seed}; keep the input: tests/fuzz/corpus/{name}.hex", flush=True
            )
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
