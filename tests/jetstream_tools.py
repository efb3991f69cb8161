"""JetStream for tests: servers shared by a module, and an event loop in a thread of its own."""

import asyncio
import contextlib
import itertools
import threading

from bitactor.config import Nats
from bitactor.log.jetstream import JetStreamLog
from bitactor.log.nats import connect
from bitactor.validation.nats import NatsServers

_numbers = itertools.count()


def unique():
    """A prefix of streams that nobody has used on any servers of this process."""
    return f"t{next(_numbers)}"


class LoopThread:
    """An event loop that runs in a thread until it is left."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test loop", daemon=True)
        self._thread.start()
        return self

    def __call__(self, work, timeout_s=120):
        """What the coroutine gives, run on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    async def _end(self):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.loop.shutdown_default_executor()

    def __exit__(self, *_):
        self(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class JetStream:
    """Servers, a loop and connections to them."""

    def __init__(self, directory, nodes=1, **options):
        self.servers = NatsServers(directory, nodes, **options)
        self.loop = LoopThread()
        self.connections = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.servers)
            stack.enter_context(self.loop)
            stack.callback(self._close)
            self._stack = stack.pop_all()
        return self

    def connect(self, **settings):
        """One more connection; closed at the end."""
        settings = {"urls": self.servers.urls, **settings}
        connection = self.loop(connect(Nats(**settings), name="test"))
        self.connections.append(connection)
        return connection

    def open(self, prefix, connection=None, *, lane=0, size_bytes_max=64 << 20, **options):
        """A log of that prefix, on the first connection if none is given."""
        if connection is None:
            connection = self.connections[0] if self.connections else self.connect()
        options = {"replicas": min(self.servers.nodes, 3), **options}
        return self.loop(JetStreamLog.open(connection, prefix, lane=lane, size_bytes_max=size_bytes_max, **options))

    def _close(self):
        for connection in self.connections:
            self.loop(connection.close())

    def __exit__(self, *_):
        self._stack.close()
