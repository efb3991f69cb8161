"""What every log counts since it was opened. One thread, the writer, counts; any thread reads."""

from bitactor.log.contract import LogFigures
from bitactor.log.durations import SecondsCounter


class LogCounters:
    """As LogFigures has them; `read` gives these."""

    def __init__(self) -> None:
        self.records = self.bytes = self.refused = self.truncated = self.checkpoints = 0
        self.append_seconds = SecondsCounter()
        self.sync_seconds = SecondsCounter()
        self.checkpoint_seconds = SecondsCounter()

    def read(self) -> LogFigures:
        """All so far."""
        return LogFigures(
            self.records,
            self.bytes,
            self.refused,
            self.truncated,
            self.checkpoints,
            self.append_seconds.read(),
            self.sync_seconds.read(),
            self.checkpoint_seconds.read(),
        )
