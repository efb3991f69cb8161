"""What every test is given: its process logs as before when it ends."""

import logging
import threading

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """What setup changes is put back: verbs that run in the test's process log to a stream that is closed after it."""
    root = logging.getLogger()
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "bitactor.ingest")
    before = root.handlers[:], root.level, threading.excepthook, [logging.getLogger(name).level for name in names]
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    threading.excepthook = before[2]
    for name, level in zip(names, before[3], strict=True):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
