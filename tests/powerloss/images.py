"""Disks as they may look after power loss, built from a trace. Pure, but for writing an image's files.

What was synced is there. Of a file's operations since its last sync each may have reached the disk or not, in any
choice, a write sector by sector; sectors that never arrived in a file that grew are zeros or noise. Of the operations
on names since the last sync of the directory each may be there or not.
"""

SECTOR = 512
MODES = ("none", "all", "some", "torn", "reordered")


class Image:
    """The durable part of a trace up to an operation, and what is pending on top of it."""

    def __init__(self):
        self.names, self.pending_names = {}, []
        self.data, self.pending = {}, {}

    def step(self, operation):
        """Take one more operation of the trace."""
        what, *more = operation
        if what == "create":
            self.pending_names.append(operation)
            self.data[more[1]], self.pending[more[1]] = bytearray(), []
        elif what in ("write", "truncate"):
            self.pending[more[0]].append(operation)
        elif what == "sync":
            for each in self.pending[more[0]]:
                apply(self.data[more[0]], each)
            self.pending[more[0]].clear()
        elif what == "lost":
            self.pending[more[0]].clear()
        elif what in ("remove", "rename"):
            self.pending_names.append(operation)
        elif what == "names":
            for each in self.pending_names:
                if directory_of(each[1]) == more[0]:
                    apply_name(self.names, each)
            self.pending_names = [each for each in self.pending_names if directory_of(each[1]) != more[0]]

    def build(self, dice):
        """Name -> bytes of one disk that may be found after power loss now."""
        mode = dice.choice(MODES)
        names = dict(self.names)
        for each in self.pending_names:
            if mode == "all" or (mode != "none" and dice.random() < 0.5):
                apply_name(names, each)
        return {name: self.content(file, mode, dice) for name, file in names.items()}

    def latest(self):
        """Name -> bytes as processes see the files, whatever is on the disk."""
        names = dict(self.names)
        for each in self.pending_names:
            apply_name(names, each)
        return {name: self.content(file, "all", None) for name, file in names.items()}

    def content(self, file, mode, dice):
        data, pending = bytearray(self.data[file]), self.pending[file]
        if mode == "none" or not pending:
            return data
        torn, noise = (None, False) if mode == "all" else (dice.randrange(len(pending)), dice.random() < 0.3)
        for number, each in enumerate(pending):
            if mode == "all" or (mode == "torn" and number < torn) or (mode == "some" and dice.random() < 0.5):
                apply(data, each)
            elif (mode == "torn" and number == torn) or mode == "reordered":
                apply_torn(data, each, dice, noise)
        return data


def lay(files, directory):
    """Write an image's files into a new directory."""
    (directory / "snapshots").mkdir(parents=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)


def directory_of(name):
    return name.rpartition("/")[0]


def apply_name(names, operation):
    what, *more = operation
    if what == "create":
        names[more[0]] = more[1]
    elif what == "remove":
        names.pop(more[0], None)
    elif more[0] in names:
        names[more[1]] = names.pop(more[0])


def apply(data, operation):
    if operation[0] == "truncate":
        size = operation[2]
        data[size:] = bytes(max(0, size - len(data)))
        return
    _, _, offset, written = operation
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written


def apply_torn(data, operation, dice, noise):
    """Apply some of the sectors that a write touches, or a truncation, or not."""
    if operation[0] == "truncate":
        if dice.random() < 0.5:
            apply(data, operation)
        return
    _, file, offset, written = operation
    share = dice.choice([0.1, 0.5, 0.9])
    end = offset + len(written)
    for sector in range(offset // SECTOR, (end + SECTOR - 1) // SECTOR):
        first, last = max(offset, sector * SECTOR), min(end, (sector + 1) * SECTOR)
        if dice.random() < share:
            apply(data, ("write", file, first, written[first - offset : last - offset]))
        elif noise and first >= len(data):
            apply(data, ("write", file, first, dice.randbytes(last - first)))
