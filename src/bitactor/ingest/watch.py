"""Something made of files, made again when they change. One thread at a time; each call reads small files."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """`value` is what `load` last returned. A load that raises leaves it as it was."""

    def __init__(self, files: tuple[Path, ...], load: Callable[[], T]) -> None:
        """Load for the first time; raises what `load` raises."""
        self.files: Final = files
        self._load: Final = load
        self._seen = self._stamps()
        self.value = load()
        if None in self._seen:  # `load` made what was not there
            self._seen = self._stamps()

    def changed(self) -> bool:
        """Whether a file is another than at the last load, good or bad: so a bad one is tried and reported once."""
        return self._stamps() != self._seen

    def reload(self) -> None:
        """Load again. Raises what `load` raises; the value before then stays in use."""
        self._seen = self._stamps()
        self.value = self._load()

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(file) for file in self.files]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Inode, size and time, through symbolic links, as mounts swap them; None: not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
