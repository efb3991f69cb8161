"""What parts about the service share: the app served with all of its log kept, producers, an end that is checked."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bitactor.validation import history
from bitactor.validation.campaign import DefectFoundError, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import Findings, Sent
from bitactor.validation.producers import Producer
from bitactor.validation.service import Served, wait_until
from bitactor.validation.streams import stream

# All records are kept, so that the log can be replayed from its beginning.
KEEP_ALL: Final[dict[str, Any]] = {"snapshot_every_s": 1.0, "snapshot_keep": 1000, "outputs_window": 1 << 20}
STREAM: Final = 1_000_000  # signals that a producer has to send at most
PAUSE_S: Final = 0.001  # between frames: signals are in flight all the time, and the log stays small enough to replay
LONG_PAUSE_S: Final = 0.01  # where signals flow for minutes, so that the streams last


@dataclass(slots=True)
class World:
    """A service under test and who sends to it."""

    served: Served
    producers: list[Producer]
    run: Run

    def finish(self, more: int) -> None:
        """Let each producer send `more` signals beyond what it has sent, and wait until all are acknowledged."""
        for producer in self.producers:
            producer.end_after(more)
        for producer in self.producers:
            producer.finished()

    def judge(self, more: Sequence[Sent] = ()) -> Findings:
        """Stop the service in order and check the history of its data directory. DefectFoundError if it fails.

        more: what others sent to it.
        """
        if (status := self.served.stop()) != 0:
            raise DefectFoundError(f"SIGTERM ended it with status {status}: {self.served.errors()}")
        return history.check(self.served.data, self.run.app, [*history.known_of(self.producers), *more])

    def wait_for_acks(self, more: int, timeout_s: float = 120) -> None:
        """Wait until `more` signals are acknowledged, over all producers."""
        wanted = sum(one.acked for one in self.producers) + more

        def enough() -> bool:
            for one in self.producers:
                if one.failure is not None:
                    raise DefectFoundError(f"{one.label}: {one.failure!r}")
            if all(one.acked == one.total for one in self.producers):
                raise DefectFoundError(f"producers have nothing left of {STREAM:,} signals each: slow them down")
            return sum(one.acked for one in self.producers) >= wanted

        wait_until(enough, f"{more} more acknowledgements", timeout_s)


@contextlib.contextmanager
def world(
    run: Run, names: str = "abc", *, directory: Path | None = None, frame_max: int = 100, module: str = "bitactor",
    ca_file: Path | None = None, pause_s: float = PAUSE_S, **flags: Any,
) -> Iterator[World]:  # fmt: skip
    """A service that is not started yet and producers that already try to send to it; both end with the block."""
    where = directory or run.directory
    with Served(where, run.app_file, module=module, **{**KEEP_ALL, **flags}) as served:
        producers = [
            Producer(
                served.data, served.port, name, stream(run.app, name, STREAM, run.seed % 2**32),
                seed=run.seed, frame_max=frame_max, ca_file=ca_file,
            )
            for name in names
        ]  # fmt: skip
        for producer in producers:
            producer.pause_s = pause_s
            producer.start()
        try:
            yield World(served, producers, run)
        finally:
            for producer in producers:
                producer.stop()


def promises(section: str, command: str) -> tuple[Criterion, ...]:
    """The criteria that every part about the service shares; `tell` measures them."""
    zero = Threshold("==", 0)
    return (
        Criterion(f"{section}.lost", "Acknowledged signals lost", zero, "signals", command),
        Criterion(f"{section}.doubled", "Signals applied twice", zero, "signals", command),
        Criterion(f"{section}.order", "Signals out of order, or never sent", zero, "signals", command),
        Criterion(f"{section}.state", "States or outputs unlike an uninterrupted run's", zero, "", command),
    )


def tell(run: Run, section: str, findings: Findings) -> None:
    """Measure the promises; what else is wrong fails the order."""
    said = f"{findings.acked:,} acknowledged, {findings.logged:,} in {findings.records:,} records"
    wrong = "; ".join(findings.problems[:3])
    run.count(f"{section}.signals", {"acknowledged": findings.acked}, {"in the log": findings.logged})
    run.measure(f"{section}.lost", findings.lost, wrong or said)
    run.measure(f"{section}.doubled", findings.duplicated, wrong)
    other = len(findings.problems) if not (findings.lost or findings.duplicated or findings.state_differs) else 0
    run.measure(f"{section}.order", max(findings.reordered + findings.foreign, other), wrong)
    run.measure(f"{section}.state", findings.state_differs, wrong or f"{findings.outputs:,} outputs compared too")
