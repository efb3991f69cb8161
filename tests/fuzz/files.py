"""Files: any bytes as a snapshot, as the TOML of the settings. What was meant, or an error of ours that says why."""

import tempfile
from pathlib import Path

from bitactor.config.load import ConfigError, load
from bitactor.log.contract import CorruptionError, FormatError
from bitactor.log.snapshots import SnapshotStore
from bitactor.log.snapshots import load as load_snapshot
from tests.fuzz.codecs import with_crc


class Snapshots:
    """Any bytes either are a snapshot, and then have what was written, or are refused with an offset inside them."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name) / "fuzzed.snapshot"
        store = SnapshotStore(Path(self._directory.name) / "made", keep=10)
        self.made = [
            store.write({"sequence": 3, "state": {"a": 1}}, [("state.a", b"x" * 100), ("outputs", b"")]),
            store.write({"sequence": 4}, []),
            store.write({"sequence": 5, "long": "y" * 90}, [("n", bytes(range(256)))]),
        ]
        self.contents = [self.content(path) for path in self.made]

    def content(self, path):
        snapshot = load_snapshot(path)
        return snapshot.meta, {name: bytes(data) for name, data in snapshot.sections.items()}

    def seeds(self):
        return [path.read_bytes() for path in self.made]

    def repair(self, data, chance):
        if data[:4] == b"BAS1" and chance.random() < 0.5:  # header and meta: their CRC covers what lies around it
            return (
                with_crc(data[: 16 + int.from_bytes(data[8:12], "big")], 12)
                + data[16 + int.from_bytes(data[8:12], "big") :]
            )
        at = data.find(b"BASE")
        return data[:at] + with_crc(data[at : at + 24], 20)[:24] + data[at + 24 :] if at > 0 else data

    def one(self, data):
        self.path.write_bytes(data)
        try:
            meta, sections = self.content(self.path)
        except CorruptionError as error:
            assert error.offset is None or 0 <= error.offset <= len(data)  # noqa: PT017
        except FormatError:
            pass
        else:
            own = [content for content in self.contents if content[1] == sections]
            assert own, f"sections that nobody wrote: {sections}"
            assert isinstance(meta, dict)
            head = data[: 16 + int.from_bytes(data[8:12], "big")]
            assert with_crc(head, 12) == head, "its header's checksum is wrong"

    def close(self):
        self._directory.cleanup()


CONFIG = b"""app = "market.py"
data_dir = "data"

[ingest]
host = "127.0.0.1"
port = 9090

[limits]
idle_s = "2m"
output_bytes_max = "4MiB"

[snapshot]
every_s = 1.5
keep = 3

[auth]
"""


class Config:
    """Any TOML either gives settings or a ConfigError whose every line names where the value came from."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory()
        self.path = Path(self._directory.name) / "fuzzed.toml"

    def seeds(self):
        return [
            CONFIG,
            b"[tls]\ncert_file = 'a'\n",
            b"[log]\nkind = 'none'\nsize_bytes_max = 1e9\n",
            b"a.b = {c = 1}\n",
        ]

    def one(self, data):
        self.path.write_bytes(data)
        try:
            settings = load(config=self.path, environ={}, files=False)
        except ConfigError as error:
            assert all(problem.strip() for problem in error.problems) and error.problems  # noqa: PT017
        else:
            assert 0 <= settings.ingest.port <= 65535
            assert settings.limits.idle_s > 0

    def close(self):
        self._directory.cleanup()
