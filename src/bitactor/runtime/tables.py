"""The producer table and the names: what the log says of them, and nothing else. Part of every snapshot.

One thread changes them (recovery's, then the writer's), record by record, after the append; others may read single
rows at any time. `row.next` is the sequence below which everything of that producer is durable and applied; it grows
only by what records hold: `next' = next + count` for a frame with sequence = next and the row's epoch.
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


@dataclass(slots=True)
class Row:
    """A producer: the number and name, the identity that owns it, its epoch, its next expected sequence."""

    id: int
    name: str
    identity: str
    epoch: int
    next: int


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
        rows = {id_: Row(r.id, r.name, r.identity, r.epoch, r.next) for id_, r in self.producers.items()}
        return Tables(rows, self.names.copy())

    def to_sections(self) -> dict[str, bytes]:
        """Named buffers for a snapshot: JSON rows of producers, and the names as texts with their lengths."""
        rows = [[r.id, r.name, r.identity, r.epoch, r.next] for r in self.producers.values()]
        texts = [text.encode() for text in self.names.values()]
        return {
            "producers": json.dumps(rows, separators=(",", ":")).encode(),
            "name_lengths": np.fromiter(map(len, texts), "<u4", len(texts)).tobytes(),
            "name_texts": b"".join(texts),
        }

    @classmethod
    def from_sections(cls, sections: Mapping[str, Any]) -> Self:
        """What to_sections gave. A key is the number of its text, so only texts are kept."""
        rows = [Row(*row) for row in json.loads(bytes(sections["producers"]))]
        ends = np.cumsum(np.frombuffer(sections["name_lengths"], "<u4").astype("u8")).tolist()
        data = bytes(sections["name_texts"])
        texts = [data[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]
        return cls({row.id: row for row in rows}, {text_key(text): text for text in texts})
