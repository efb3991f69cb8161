"""The service of the tests in a process of its own, and its producers: bitactor.validation's, with the tests' app."""

from pathlib import Path

import bitactor as ba
from bitactor.validation import producers, service
from tests.service_oracle import stream

APP = Path(__file__).parent / "service_app.py"


class Served(service.Served):
    """Serves the tests' app unless told otherwise."""

    def __init__(self, directory, app=APP, **flags):
        super().__init__(directory, app, **flags)


class Producer(producers.Producer):
    """Sends stream(name, total)."""

    def __init__(self, served, name, total, seed, frame_max=300):
        super().__init__(served.data, served.port, name, stream(name, total), seed=seed, frame_max=frame_max)


def number_of(name):
    """A producer's number."""
    return ba.text_key(name)
