"""Snapshots of a lane in JetStream: files in an object store, and a key whose value says which one is the latest.

An object is written once, under a name of its own for (lane, record, fingerprint), and its layout is that of JetStream
object stores, so that the `nats` tool finds it. The pointer moves by compare-and-set, and only forward: whoever was
replaced and comes later with an older snapshot loses. What the pointer no longer names is removed after it has moved.

    pointer = newest, newest.before..., at most `keep`, sequences falling;  each names an object that was whole before

Opened on the connection's loop; the methods of the store's face (`latest`, `load`, `write`) are for other threads, one
at a time.
"""

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import nats.errors

from bitactor import faults
from bitactor.log import streams
from bitactor.log.contract import CorruptionError, LogError, LogFullError
from bitactor.log.objects_read import download
from bitactor.log.snapshots import SUFFIX, Snapshot, SnapshotStore, load
from bitactor.telemetry import get_logger

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bitactor.log.nats import Connection

FORMAT: Final = 1
CHUNK_BYTES: Final = 256 << 10
_WINDOW: Final = 16  # chunks sent and not yet acknowledged
_ATTEMPTS: Final = 6  # of an upload; each begins anew, under another name of its chunks
_WRITE_S: Final = 60.0  # for the pointer, and for what has to be asked along the way
_PIECE: Final = 4 << 20
_POINTERS_BYTES: Final = 16 << 20

_log = get_logger("bitactor.log")


class SnapshotOvertakenError(LogError):
    """The pointer names a snapshot that is as new, or newer: this one is of a former owner. Nothing changed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot in the store. sequence, position: the log's next record and the signals before it."""

    sequence: int
    position: int
    fingerprint: str
    object: str  # its name
    chunks_of: str  # the subject's last token
    bytes: int
    chunks: int
    digest: str  # SHA-256 of the file, hexadecimal


class ObjectSnapshots:
    """What recovery and snapshots want of a store (bitactor.log.snapshots.SnapshotStore), over JetStream."""

    @classmethod
    async def open(
        cls,
        connection: "Connection",
        prefix: str,
        *,
        lane: int,
        directory: Path | str,
        keep: int,
        replicas: int,
        size_bytes_max: int,
    ) -> Self:
        """Open the store of that lane, or make what all lanes share. On the connection's loop.

        directory: this process's own, for the files of this lane; what is in it may be lost. size_bytes_max: of all
        lanes' snapshots together, on each server. LogSettingsError when the servers give less than asked for.
        """
        store = cls(connection, prefix, lane, Path(directory), keep)
        deadline = streams.from_now(streams.OPEN_S)
        bucket = streams.configuration(
            f"OBJ_{store.bucket}", [f"$O.{store.bucket}.C.>", f"$O.{store.bucket}.M.>"],
            replicas=replicas, size_bytes_max=size_bytes_max,
        )  # fmt: skip
        await streams.ensure(connection, {**bucket, "allow_rollup_hdrs": True}, deadline=deadline)
        pointers = streams.bucket(store.bucket, replicas=replicas, size_bytes_max=_POINTERS_BYTES)
        await streams.ensure(connection, pointers, deadline=deadline)
        return store

    def __init__(self, connection: "Connection", prefix: str, lane: int, directory: Path, keep: int) -> None:
        self.bucket = f"{prefix}-snapshots"
        self.lane = lane
        self.directory = directory
        self.keep = keep
        self._connection = connection
        self._files = SnapshotStore(directory, keep=1)
        self._named: dict[Path, Stored] = {}

    # --- the face of a store

    def latest(self) -> list[Path]:
        """Where the snapshots will lie once loaded, newest first, as the pointer names them. LogError: no answer."""
        found = self._connection.wait(self.pointer())[0]
        self._named = {self._path(one): one for one in found}
        return list(self._named)

    def load(self, path: Path) -> Snapshot:
        """Fetch a snapshot that `latest` named, unless the file is here, and check every byte of it.

        CorruptionError: of every copy that could be read, or what came is damaged; what came lies at `path` then.
        FormatError, LogError: no answer, OSError.
        """
        if (stored := self._named.get(path)) is not None and not _is(path, stored):
            self._connection.wait(self._fetch(path, stored))
        return load(path)

    def write(self, meta: Mapping[str, Any], sections: "Iterable[tuple[str, Buffer]]") -> Path:
        """Write a snapshot: to a file, to the store, to the pointer; returns when the servers have all of it.

        meta: as SnapshotStore.write wants it, with `position` and `app`. SnapshotOvertakenError; LogFullError: the
        store has no room; LogError, OSError: it could not be written, and what was the latest still is.
        """
        path = self._files.write(meta, sections)
        stored = self._connection.wait(self._put(path, meta))
        self._named[path] = stored
        return path

    def _path(self, stored: Stored) -> Path:
        return self.directory / f"{stored.sequence:020d}{SUFFIX}"

    # --- on the loop

    async def pointer(self) -> tuple[list[Stored], int]:
        """What the pointer names, newest first, and the pointer's own revision (0: there is none yet)."""
        last = await streams.last(self._connection, f"KV_{self.bucket}", self._key, streams.from_now(_WRITE_S))
        if last is None:
            return [], 0
        try:
            said = json.loads(last[0])
            if said["format"] != FORMAT:
                raise ValueError(f"format {said['format']!r}, and {FORMAT} is the one known here")
            found = [Stored(**one) for one in said["snapshots"]]
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptionError(self._key, f"the pointer to the latest snapshot makes no sense: {error}") from None
        return found, last[1]

    @property
    def _key(self) -> str:
        return f"$KV.{self.bucket}.lane-{self.lane}"

    async def _put(self, path: Path, meta: Mapping[str, Any]) -> Stored:
        sequence, fingerprint = int(meta["sequence"]), str(meta["app"]["fingerprint"])
        found, _ = await self.pointer()
        self._refuse_if_overtaken(sequence, found)
        chunks_of, size, chunks, digest = await self._upload(path, sequence)
        faults.point("snapshot.uploaded")
        name = f"lane-{self.lane}/{sequence:020d}-{fingerprint[:16]}"
        stored = Stored(sequence, int(meta["position"]), fingerprint, name, chunks_of, size, chunks, digest)
        stored = await self._name(stored)
        await self._point_at(stored)
        await self._collect(stored)
        return stored

    async def _upload(self, path: Path, sequence: int) -> tuple[str, int, int, str]:
        """Send the file, and again from its beginning when servers fail on the way."""
        why = ""
        for _ in range(_ATTEMPTS):
            chunks_of = f"{self.lane}-{sequence}-{secrets.token_hex(8)}"
            try:
                return chunks_of, *await self._send(path, chunks_of)
            except (nats.errors.Error, TimeoutError) as error:
                why = str(error) or "time is over"
                await self._purge(f"$O.{self.bucket}.C.{chunks_of}")
            except LogFullError:
                await self._purge(f"$O.{self.bucket}.C.{chunks_of}")
                raise
            await asyncio.sleep(0.5)
        raise LogError(streams.unanswered(self._connection, f"snapshot {path.name}", why))

    async def _send(self, path: Path, chunks_of: str) -> tuple[int, int, str]:
        """Send the file in chunks, some at once, all of them in order. nats.errors.Error: no; begin anew."""
        subject = f"$O.{self.bucket}.C.{chunks_of}"
        digest, size, last, sent = hashlib.sha256(), 0, 0, 0
        waiting: list[asyncio.Task[dict[str, Any]]] = []
        await streams.connected(self._connection, streams.from_now(streams.OPEN_S))
        with path.open("rb") as file:
            try:
                while piece := await asyncio.to_thread(_piece, file, digest):
                    for at in range(0, len(piece), CHUNK_BYTES):
                        chunk = piece[at : at + CHUNK_BYTES]
                        waiting.append(asyncio.create_task(self._publish(subject, chunk, {})))
                        size, sent = size + len(chunk), sent + 1
                        if len(waiting) >= _WINDOW:
                            last = self._after(last, await waiting.pop(0))
                while waiting:
                    last = self._after(last, await waiting.pop(0))
            finally:
                for one in waiting:
                    one.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
        return size, sent, digest.hexdigest()

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> dict[str, Any]:
        return await self._connection.publish_and_hear(subject, data, headers, streams.TRY_S * 5)

    def _after(self, last: int, answer: dict[str, Any]) -> int:
        """The message's number, which must be behind the chunk before it."""
        if (error := answer.get("error")) is not None:
            refused = streams.ApiError(f"a snapshot of lane {self.lane}", error)
            if streams.is_full(refused):
                raise LogFullError(
                    f"the snapshots in {self.bucket} take all the bytes that they may ({refused.description}): raise "
                    "nats.snapshot_bytes_max"
                )
            raise nats.errors.Error(str(refused))
        if answer["seq"] <= last:
            raise nats.errors.Error("chunks were stored in another order than sent")
        return int(answer["seq"])

    async def _name(self, stored: Stored) -> Stored:
        """Give the object its name, as object stores do; if it is taken, that object holds the same state and stays."""
        subject = f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(stored.object.encode()).decode()}"
        digest = base64.urlsafe_b64encode(bytes.fromhex(stored.digest)).decode()
        info = {
            "name": stored.object,
            "bucket": self.bucket,
            "nuid": stored.chunks_of,
            "size": stored.bytes,
            "chunks": stored.chunks,
            "digest": f"SHA-256={digest}",
            "options": {"max_chunk_size": CHUNK_BYTES},
        }
        stream, deadline = f"OBJ_{self.bucket}", streams.from_now(_WRITE_S)
        if await streams.put(self._connection, stream, subject, json.dumps(info).encode(), 0, deadline):
            return stored
        _log.info("a snapshot of this state was stored before", snapshot=stored.object)
        await self._purge(f"$O.{self.bucket}.C.{stored.chunks_of}")
        last = await streams.last(self._connection, stream, subject, deadline)
        if last is None:
            raise LogError(f"the snapshot {stored.object} was removed while it was stored")
        there = json.loads(last[0])
        digest = base64.urlsafe_b64decode(there["digest"].removeprefix("SHA-256=")).hex()
        return replace(
            stored, chunks_of=there["nuid"], bytes=there["size"], chunks=there["chunks"], digest=digest
        )  # fmt: skip

    async def _point_at(self, stored: Stored) -> None:
        """Move the pointer forward to this one. SnapshotOvertakenError when it is there already, or beyond."""
        deadline = streams.from_now(_WRITE_S)
        while True:
            found, revision = await self.pointer()
            if found and found[0] == stored:
                return
            self._refuse_if_overtaken(stored.sequence, found)
            kept = [stored, *found][: self.keep]
            value = {"format": FORMAT, "snapshots": [asdict(one) for one in kept]}
            if await streams.put(
                self._connection, f"KV_{self.bucket}", self._key, json.dumps(value).encode(), revision, deadline
            ):
                return

    def _refuse_if_overtaken(self, sequence: int, found: list[Stored]) -> None:
        if found and found[0].sequence >= sequence:
            raise SnapshotOvertakenError(
                f"lane {self.lane} has a snapshot of record {found[0].sequence} already; this one is of {sequence}"
            )

    async def _collect(self, newest: Stored) -> None:
        """Remove this lane's older objects that the pointer does not name, also what uploads left that ended."""
        try:
            found, _ = await self.pointer()
            named = {one.chunks_of for one in found} | {one.object for one in found}
            for subject in await self._subjects():
                kind, token = subject.split(".")[2:4]
                name = token if kind == "C" else base64.urlsafe_b64decode(token).decode()
                if name not in named and self._is_older(name, newest.sequence):
                    await self._purge(subject)
        except (LogError, ValueError) as error:
            _log.warning("old snapshots are not removed yet", lane=self.lane, error=error)

    def _is_older(self, name: str, sequence: int) -> bool:
        """Whether it is an object, or the chunks, of this lane and of a record before `sequence`."""
        lane, _, rest = name.removeprefix("lane-").partition("/" if name.startswith("lane-") else "-")
        return lane == str(self.lane) and int(rest.partition("-")[0]) < sequence

    async def _subjects(self) -> list[str]:
        answer = await streams.ask(
            self._connection, f"STREAM.INFO.OBJ_{self.bucket}", {"subjects_filter": f"$O.{self.bucket}.>"},
            deadline=streams.from_now(_WRITE_S),
        )  # fmt: skip
        return sorted(answer["state"].get("subjects") or ())

    async def _purge(self, subject: str) -> None:
        await streams.ask(
            self._connection,
            f"STREAM.PURGE.OBJ_{self.bucket}",
            {"filter": subject},
            deadline=streams.from_now(_WRITE_S),
        )

    async def _fetch(self, path: Path, stored: Stored) -> None:
        """Bring the object here. CorruptionError; what came is at `path` then."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await download(
            self._connection, f"OBJ_{self.bucket}", f"$O.{self.bucket}.C.{stored.chunks_of}", path,
            size=stored.bytes, digest=stored.digest,
        )  # fmt: skip


def _piece(file: BinaryIO, digest: Any) -> bytes:
    piece = file.read(_PIECE)
    digest.update(piece)
    return piece


def _is(path: Path, stored: Stored) -> bool:
    """Whether that file is here, whole."""
    try:
        if path.stat().st_size != stored.bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == stored.digest
    except OSError:
        return False
