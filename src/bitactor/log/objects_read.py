"""Bringing an object of JetStream's object store to a file, its digest checked. The loop's thread.

Chunks come in batches from whichever server answers; a copy that does not make the digest is fetched again, as another
server may answer then.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bitactor.log.contract import CorruptionError
from bitactor.log.direct import DirectBatches

if TYPE_CHECKING:
    from bitactor.log.nats import Connection

_ATTEMPTS: Final = 5
_BATCH: Final = 64


async def download(connection: "Connection", stream: str, subject: str, path: Path, *, size: int, digest: str) -> None:
    """Write the chunks under that subject to the file. CorruptionError: in no attempt did they make size and digest.

    LogError without an answer, OSError. What came last lies at `path` in any case.
    """
    direct = DirectBatches(connection, stream)
    try:
        for attempt in range(_ATTEMPTS):
            await asyncio.sleep(0.1 * attempt)
            if await _bring(direct, subject, path, size) == digest:
                return
    finally:
        await direct.close()
    raise CorruptionError(path, f"the object in {stream} does not make its digest: parts are missing or damaged")


async def _bring(direct: DirectBatches, subject: str, path: Path, size: int) -> str:
    """Write what one pass gives, `size` bytes at most; its digest."""
    digest, have, sequence = hashlib.sha256(), 0, 1
    with path.open("wb") as file:
        while have < size and (chunks := await direct.get({"seq": sequence, "next_by_subj": subject, "batch": _BATCH})):
            data = b"".join(chunk for _, chunk in chunks)[: size - have]
            await asyncio.to_thread(_write, file, data, digest)
            have, sequence = have + len(data), chunks[-1][0] + 1
    return digest.hexdigest()


def _write(file: Any, data: bytes, digest: Any) -> None:
    file.write(data)
    digest.update(data)
