"""Compiled handlers on disk: object code with a checksum, in a directory that nobody else can write.

A file is `magic, BLAKE2b-256 of the object, object (ELF)`; its name is the fingerprint of everything the code depends
on. It is written under another name and renamed, so parallel writers leave a whole file. A file that is not what it
says is ignored and written anew. Loading is running: a directory that others can write is not used at all.
"""

import hashlib
import os
import stat
import tempfile
import warnings
from pathlib import Path
from typing import Final

_MAGIC: Final = b"bitactor object 1\n"


def directory() -> Path | None:
    """BITACTOR_CACHE_DIR if not empty, or bitactor in the user's cache directory; None when none is to be trusted."""
    named = os.environ.get("BITACTOR_CACHE_DIR")
    if not named:
        home = os.environ.get("HOME")
        base = Path(os.environ.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else ""))
        if not base.is_absolute():
            return None
        named = str(base / "bitactor")
    path = Path(named)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None  # a read-only root, a file in the way: compile in memory
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        warnings.warn(
            f"{path} is not used to cache compiled handlers: it must be a directory of yours that nobody "
            "else can write (chmod 700), since what lies there is run",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return path


def load(name: str) -> bytes | None:
    """The object of that name, or None."""
    path = directory()
    if path is None:
        return None
    try:
        fd = os.open(path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                return None
            data = file.read()
    except OSError:
        return None
    head, rest = data[: len(_MAGIC)], data[len(_MAGIC) :]
    if head != _MAGIC or hashlib.blake2b(rest[32:], digest_size=32).digest() != rest[:32]:
        return None
    return rest[32:]


def save(name: str, code: bytes) -> None:
    """Keep an object. What goes wrong is of no consequence: it is compiled again next time."""
    path = directory()
    if path is None:
        return
    try:
        fd, temporary = tempfile.mkstemp(dir=path, prefix=".writing-")
    except OSError:
        return
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_MAGIC + hashlib.blake2b(code, digest_size=32).digest() + code)
        Path(temporary).replace(path / name)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
