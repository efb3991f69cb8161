"""Records what a run does to its files: SQLite's through a VFS of apsw, snapshots' through a Disk. Any thread.

The trace is a list of tuples; a file is a number, a new one each time that its name is made:
(create name file) (write file offset bytes) (truncate file size) (sync file) (lost file: a sync failed, and the kernel
forgot what it was about) (remove name) (rename old new) (names directory: those in it were synced) (note what number).
"""

import itertools
from pathlib import Path

import apsw

from bitactor.log.disk import Disk


class Trace:
    """The operations so far, and which file has which name.

    stop_at: from that sync on none succeeds. The process was killed there, or, if `loses`, the first one failed.
    """

    def __init__(self):
        self.operations = []
        self.files = {}
        self.numbers = itertools.count(1)
        self.syncs = 0
        self.stop_at = None
        self.loses = False

    def add(self, *operation):
        self.operations.append(operation)

    def create(self, name):
        number = self.files[name] = next(self.numbers)
        self.add("create", name, number)
        return number

    def remove(self, name):
        if self.files.pop(name, None):
            self.add("remove", name)

    def sync(self, file):
        self.syncs += 1
        if self.stop_at is not None and self.syncs >= self.stop_at:
            if self.loses and self.syncs == self.stop_at:
                self.add("lost", file)
            raise OSError("the sync failed, or the process was killed here")
        self.add("sync", file)


class RecordingFile(apsw.VFSFile):
    """A file of SQLite's whose writes are recorded."""

    def __init__(self, trace, name, flags):
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        existed = path.exists()
        self.trace, self.name = trace, path.name
        super().__init__("", name, flags)
        # SQLite syncs the directory itself with the first sync of a WAL or rollback file that it made.
        self.names_too = not existed and not flags[0] & apsw.SQLITE_OPEN_MAIN_DB
        self.file = trace.files[self.name] if existed else trace.create(self.name)

    def xWrite(self, data, offset):
        self.trace.add("write", self.file, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size):
        self.trace.add("truncate", self.file, size)
        super().xTruncate(size)

    def xSync(self, flags):
        self.trace.sync(self.file)
        if self.names_too:
            self.trace.add("names", "")
            self.names_too = False


class RecordingVfs(apsw.VFS):
    """The usual VFS with recording files. Nothing is really synced: the trace alone says what is durable."""

    def __init__(self, name, trace):
        super().__init__(name, "")
        self.trace = trace

    def xOpen(self, name, flags):
        if name is None:  # a temporary one, gone with the process
            return apsw.VFSFile("", name, flags)
        return RecordingFile(self.trace, name, flags)

    def xDelete(self, filename, syncdir):
        self.trace.remove(Path(filename).name)
        super().xDelete(filename, syncdir)
        if syncdir:
            self.trace.add("names", "")


class RecordingDisk(Disk):
    """Records what snapshots do; names begin with the directory's, as in snapshots/7.snapshot."""

    def __init__(self, root, trace):
        self.root, self.trace, self.open = root, trace, {}

    def name(self, path):
        return str(path.relative_to(self.root))

    def create(self, path):
        file = super().create(path)
        self.open[file] = [self.trace.create(self.name(path)), 0]
        return file

    def write(self, file, data):
        number, offset = self.open[file]
        self.trace.add("write", number, offset, bytes(data))
        self.open[file][1] += len(data)
        super().write(file, data)

    def sync(self, file):
        self.trace.sync(self.open[file][0])

    def rename(self, old, new):
        super().rename(old, new)
        self.trace.files[self.name(new)] = self.trace.files.pop(self.name(old))
        self.trace.add("rename", self.name(old), self.name(new))

    def remove(self, path):
        super().remove(path)
        self.trace.remove(self.name(path))

    def rewrite(self, path):
        if path.exists():
            file = self.trace.files[self.name(path)]
            self.trace.add("write", file, 0, path.read_bytes())
            self.trace.sync(file)

    def sync_directory(self, path):
        if path == self.root or self.root in path.parents:
            self.trace.add("names", "" if path == self.root else self.name(path))
