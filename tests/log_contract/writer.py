"""A process that appends records until it dies: `writer.py DIRECTORY DURABILITY COUNT LENGTH [LIMIT_BYTES]`.

Prints the sequence of each append after it returned. Every 20 records those more than KEEP (30) back may go. A record
that the disk refuses ends it with status 3 and the error's name, after it tried once more.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from bitactor.log.contract import FatalLogError
from bitactor.log.sqlite import SqliteLog
from tests.log_contract.records import record


def main():
    directory, durability, count, length, *limit = sys.argv[1:]
    log = SqliteLog.open(Path(directory), durability=durability, checkpoint_bytes=1 << 20)
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), int(limit[0])))
    begin, keep = log.end().sequence, int(os.environ.get("KEEP", "30"))
    for sequence in range(begin, begin + int(count)):
        try:
            record(sequence, int(length)).to(log)
            os.write(1, f"{sequence}\n".encode())
            if sequence % 20 == 19:
                log.truncate_before(sequence - keep)
            log.tidy()
        except FatalLogError as error:
            os.write(1, f"{error}\n".encode())
            refuse_all(log, sequence)
            sys.exit(3)
    log.close()


def refuse_all(log, sequence):
    for use in (lambda: record(sequence, 0).to(log), log.tidy, log.end, log.first, lambda: log.read(0), log.sync):
        try:
            use()
        except FatalLogError:
            continue
        sys.exit("a log that failed did something")
    log.close()


if __name__ == "__main__":
    main()
