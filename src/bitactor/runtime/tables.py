"""The producer table and the names: what the log says of them, and nothing else. Part of every snapshot.

One thread changes them (recovery's, then the writer's), record by record, after the append; others may read single
rows at any time. `row.next` is the sequence below which everything of that producer is durable and applied; it grows
only by what records hold: `next' = next + count` for a frame with sequence = next and the row's epoch.

In a lane a producer's signals are those of its keys alone: `row.next` is then the sequence below which everything of
the producer *for this lane* is there, and `batches` are what this lane knows of the ranges that were cut into lanes:
(begin, end, bit set of the lanes touched), those that end above `floor`. Below floor everything is in every lane.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from bitactor.signals import text_key

FIRST_EPOCH = 1


class TableError(ValueError):
    """A record that does not follow from those before it: damage that its checksum does not show, or a bug."""


Batch = tuple[int, int, int]  # begin, end, lanes


@dataclass(slots=True)
class Row:
    """A producer: the number and name, the identity that owns it, its epoch, its next expected sequence."""

    id: int
    name: str
    identity: str
    epoch: int
    next: int
    floor: int = 0
    batches: list[Batch] = field(default_factory=list)

    def copy(self) -> "Row":
        """The same, which nothing changes."""
        return Row(self.id, self.name, self.identity, self.epoch, self.next, self.floor, self.batches.copy())

    def note(self, batch: Batch, floor: int) -> None:
        """Remember what a part said of its batch, and forget what lies below the floor."""
        if floor > self.floor:
            self.floor = floor
            self.batches = [known for known in self.batches if known[1] > floor]
        if batch[1] > self.floor and batch not in self.batches:
            self.batches.append(batch)


@dataclass(slots=True)
class Tables:
    """Producers by number, texts by key."""

    producers: dict[int, Row] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def register(self, id_: int, epoch: int, identity: str, name: str) -> None:
        """A producer is new, or taken over: its epoch grows by one, its sequence goes on."""
        row = self.producers.get(id_)
        if row is None:
            self.producers[id_] = Row(id_, name, identity, epoch, 0)
        elif row.name != name or row.identity != identity or epoch <= row.epoch:
            raise TableError(f"producer {name!r} of {identity!r}, epoch {epoch}, does not follow {row}")
        else:
            row.epoch = epoch

    def frame(self, id_: int, epoch: int, sequence: int, count: int) -> None:
        """Go past a frame that follows its producer's last one."""
        row = self.producers.get(id_)
        if row is None or row.epoch != epoch or row.next != sequence:
            raise TableError(f"a frame of producer {id_}, epoch {epoch}, sequence {sequence} does not follow {row}")
        row.next = sequence + count

    def part(self, id_: int, epoch: int, after: int, floor: int, batch: Batch) -> None:
        """Go past a part of a batch in a lane: it begins where the lane's last one of this producer ended, or before.

        What of it lies below row.next is there already and is not in the record.
        """
        row = self.producers.get(id_)
        if row is None or row.epoch != epoch or after > row.next:
            raise TableError(f"a part of producer {id_}, epoch {epoch}, after {after} does not follow {row}")
        row.next = max(row.next, batch[1])
        row.note(batch, floor)

    def forget(self, id_: int) -> None:
        """The producer is gone; should it come back, it begins at 0."""
        self.producers.pop(id_, None)

    def name(self, key: int, text: str) -> None:
        """The text of a key."""
        if self.names.setdefault(key, text) != text:
            raise TableError(f"key {key} is {self.names[key]!r}, and is named {text!r}")

    def erase(self, key: int) -> None:
        """Nothing holds the name of the key from here on."""
        self.names.pop(key, None)

    def copy(self) -> "Tables":
        """The same rows, which no later record changes."""
        return Tables({id_: row.copy() for id_, row in self.producers.items()}, self.names.copy())

    def to_sections(self) -> dict[str, bytes]:
        """Named buffers for a snapshot: JSON rows of producers, and the names as texts with their lengths."""
        rows = [
            [r.id, r.name, r.identity, r.epoch, r.next, *([r.floor, r.batches] if r.floor or r.batches else [])]
            for r in self.producers.values()
        ]
        texts = [text.encode() for text in self.names.values()]
        return {
            "producers": json.dumps(rows, separators=(",", ":")).encode(),
            "name_lengths": np.fromiter(map(len, texts), "<u4", len(texts)).tobytes(),
            "name_texts": b"".join(texts),
        }

    @classmethod
    def from_sections(cls, sections: Mapping[str, Any]) -> Self:
        """What to_sections gave. A key is the number of its text, so only texts are kept."""
        rows = [_row(*row) for row in json.loads(bytes(sections["producers"]))]
        ends = np.cumsum(np.frombuffer(sections["name_lengths"], "<u4").astype("u8")).tolist()
        data = bytes(sections["name_texts"])
        texts = [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
        return cls({row.id: row for row in rows}, {text_key(text): text for text in texts})


def _row(id_: int, name: str, identity: str, epoch: int, next_: int, floor: int = 0, batches: Any = ()) -> Row:
    return Row(id_, name, identity, epoch, next_, floor, [(begin, end, lanes) for begin, end, lanes in batches])
