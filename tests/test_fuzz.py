"""Each fuzz target runs shortly, and finds a bug that is planted into what it feeds; so do the C targets."""

import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest

from bitactor.admin import access
from bitactor.ingest import auth
from bitactor.log import snapshots
from bitactor.protocol import frames
from tests import plain
from tests.fuzz import __main__ as fuzzing
from tests.fuzz.mutate import fuzz

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_a_target_holds_for_some_inputs_and_for_all_that_were_kept(name):
    assert fuzzing.run(name, rounds=60 if name == "admin-http" else 300, seed=11) > 0


def lenient_frame(data, kinds=None, real=plain.frame):
    """Forgets the reserved word at 36."""
    return real(data[:36] + bytes(4) + data[40:], kinds)


def lenient_message(data, real=plain.message):
    """Takes every version."""
    return real(data[:4] + b"\x01" + data[5:])


def lenient_record(data, kinds=None, real=plain.record):
    """Forgets the reserved word at 52."""
    return real(data[:52] + bytes(4) + data[56:], kinds)


def permissive(self, declared):
    """Lets every identity send every kind."""
    return frames.kind_set(declared.values())


def trusting_host(header):
    """Does not expect a header that is no host."""
    return urlsplit(f"//{header}").hostname or ""


class Agreeable(int):
    """A checksum that is never wrong."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = int.__hash__


DEFECTS = {
    "frames": (plain, "frame", lenient_frame),
    "messages": (plain, "message", lenient_message),
    "records": (plain, "record", lenient_record),
    "session": (auth.Identity, "kind_set", permissive),
    "snapshot": (snapshots, "crc32c", lambda data, crc=0, real=snapshots.crc32c: Agreeable(real(data, crc))),
    "config": (sys.modules["bitactor.config.load"], "_line_of", lambda text, name: 1 // (len(text) % 7)),
    "admin-http": (access, "_host", trusting_host),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_bug_that_is_planted_is_found(name):
    where, what, defect = DEFECTS[name]
    target = fuzzing.TARGETS[name]()
    try:
        with mock.patch.object(where, what, defect), pytest.raises(Exception) as caught:
            fuzz(target, rounds=4000, seed=3)
        assert any(note.startswith("seed 3, input ") for note in caught.value.__notes__)
    finally:
        getattr(target, "close", lambda: None)()


def build(directory, target, replaced=()):
    """Compile a C target as its main is without clang, from sources of which one may be changed."""
    sources = directory / "src"
    shutil.copytree(ROOT / "core" / "src", sources, dirs_exist_ok=True)
    for name, old, new in replaced:
        text = (sources / name).read_text()
        assert old in text, f"{name} has changed: plant another bug"
        (sources / name).write_text(text.replace(old, new))
    names = ("frame", "record", "byteorder", "crc32c", "cpu")
    program = directory / target
    command = [
        "cc",
        "-O0",
        "-std=gnu11",
        f"-I{ROOT}/core/include",
        f"-I{ROOT}/core/fuzz",
        f"{ROOT}/core/fuzz/{target}.c",
    ]
    command += [str(sources / f"{name}.c") for name in names] + ["-o", str(program)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("target", "source", "old", "new"),
    [
        ("fuzz_frame", "frame.c", "if (ba_get_be32(bytes + AT_RESERVED)) return BA_FRAME_FLAGS;", ";"),
        ("fuzz_record", "record.c", "if (ba_get_be32(bytes + AT_RESERVED)) return BA_RECORD_FLAGS;", ";"),
    ],
)
def test_a_bug_that_is_planted_into_the_core_is_found_by_its_target(tmp_path, target, source, old, new):
    # meson runs the targets on the sources as they are.
    bad = build(tmp_path, target, [(source, old, new)])
    said = subprocess.run([bad, "20000"], check=False, capture_output=True, text=True)
    assert said.returncode != 0, said.stdout
