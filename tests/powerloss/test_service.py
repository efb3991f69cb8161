"""After a power cut the real recovery gives what the log says, nothing acknowledged missing, nothing twice.

2,000 images by `make powerloss`.
"""

import secrets

import pytest

from tests.powerloss.recorder import RecordingDisk
from tests.powerloss.service import NotedLog
from tests.powerloss.service_campaign import campaign


@pytest.fixture
def seed():
    made = secrets.randbits(32)
    print(f"seed {made}")
    return made


def test_a_service_recovers_everything_acknowledged_once_and_its_state_is_the_logs(tmp_path, seed):
    assert campaign(100, "full", seed, tmp_path) == {}


def test_with_normal_a_service_loses_the_last_records_alone(tmp_path, seed):
    assert set(campaign(50, "normal", seed, tmp_path)) <= {"lost acknowledged"}


def finds(what, durability, seed, directory, **defects):
    """Whether a campaign finds it, within 500 images."""
    return any(campaign(25, durability, seed + n, directory / str(n), **defects)[what] for n in range(20))


@pytest.mark.parametrize("what", ["lost acknowledged", "does not open"])
def test_with_off_the_same_campaign_fails(tmp_path, seed, what):
    assert finds(what, "off", seed, tmp_path)


class UnsyncedLog(NotedLog):
    """The defect: a snapshot is taken of what the log has not synced."""

    def sync(self):
        pass


class ForgetfulDisk(RecordingDisk):
    """The defect: the log is shortened although the snapshot's name may not be there after a power cut."""

    def sync_directory(self, path):
        if path.name != "snapshots":
            super().sync_directory(path)


class HastyDisk(RecordingDisk):
    """The defect: a snapshot is named before its bytes are durable."""

    def sync(self, file):
        pass


@pytest.mark.parametrize(
    ("durability", "defects"),
    [("normal", {"log": UnsyncedLog}), ("full", {"disk": ForgetfulDisk}), ("full", {"disk": HastyDisk})],
)
def test_the_campaign_finds_snapshots_that_are_not_durable_in_time(tmp_path, seed, durability, defects):
    assert finds("does not open", durability, seed, tmp_path, **defects)
