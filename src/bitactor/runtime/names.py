"""Texts of keys as admitted so far: those of the tables, and behind them what is not durable yet.

The loop's thread, while the writer's changes the tables. Between a record's effects there and its completion here a
name is in both, so their sizes cannot be added: how many there are is counted where they are admitted.
"""

from typing import TYPE_CHECKING

from bitactor.protocol.errors import Code, ProtocolError
from bitactor.signals import text_key

if TYPE_CHECKING:
    from bitactor.runtime.records import OpenRecord
    from bitactor.runtime.tables import Tables


class Names:
    """At most `most` texts; `tables` has those that are durable."""

    def __init__(self, tables: "Tables", most: int) -> None:
        self._tables = tables
        self._most = most
        # Names and erasures that are not durable yet: key -> (text or None, the record that has it).
        self._ahead: dict[int, tuple[str | None, OpenRecord]] = {}
        self._count = len(tables.names)

    def text_of(self, key: int) -> str | None:
        """The text of a key; None of one that has none."""
        return self._ahead[key][0] if key in self._ahead else self._tables.names.get(key)

    def pending(self, key: int) -> "OpenRecord | None":
        """The record with the last that was admitted of a key; None when all of it is durable."""
        return self._ahead[key][1] if key in self._ahead else None

    def is_new(self, key: int, text: str) -> bool:
        """Whether the pair is to be logged; a known one is not. ProtocolError: it cannot be."""
        if text_key(text) != key:
            raise ProtocolError(Code.NAME_MISMATCH, f"{text!r} is key {text_key(text)}, not {key}")
        known = self.text_of(key)
        if known is not None and known != text:
            message = f"{text!r} and {known!r} have the same key {key}: give one of them another text"
            raise ProtocolError(Code.NAME_CONFLICT, message)
        if known is None and self._count >= self._most:
            raise ProtocolError(Code.NAMES_FULL, f"{self._most} texts have names already: limits.names_max")
        return known is None

    def add(self, key: int, text: str, record: "OpenRecord") -> None:
        """Note a new pair that the record has."""
        self._count += 1
        record.names.append(key)
        self._ahead[key] = (text, record)

    def erase(self, key: int, record: "OpenRecord") -> None:
        """Note that the record erases a key's text, if it has one."""
        self._count -= self.text_of(key) is not None
        record.names.append(key)
        self._ahead[key] = (None, record)

    def completed(self, record: "OpenRecord") -> None:
        """The record is durable and in the tables."""
        for key in record.names:
            if self.pending(key) is record:
                del self._ahead[key]

    def forget_ahead(self) -> None:
        """Nothing that is not durable will be; the writer has nothing under way."""
        self._ahead.clear()
        self._count = len(self._tables.names)
