"""What things of one app are called in NATS: subjects, streams, buckets. Pure."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Names:
    """prefix: `nats.stream`; app: the app's name. ValueError for one that has no place in a subject."""

    prefix: str
    app: str

    def __post_init__(self) -> None:
        for what, word in (("nats.stream", self.prefix), ("the app's name", self.app)):
            if not _WORD.fullmatch(word):
                raise ValueError(f"{what} is {word!r}: over NATS it may have letters, digits, _ and -, at most 64")

    @property
    def base(self) -> str:
        """The beginning of every subject."""
        return f"{self.prefix}.{self.app}"

    @property
    def streams(self) -> str:
        """The beginning of the names of all streams and buckets."""
        return f"{self.prefix}-{self.app}"

    @property
    def members(self) -> str:
        """Subject on which each replica says that it is there."""
        return f"{self.base}.members"

    def to(self, incarnation: str, verb: str) -> str:
        """Subject on which one replica is asked something."""
        return f"{self.base}.replica.{incarnation}.{verb}"

    def to_all(self, verb: str) -> str:
        """Subject on which every replica is told something."""
        return f"{self.base}.all.{verb}"
