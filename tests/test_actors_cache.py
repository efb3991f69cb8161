"""Compiled handlers on disk: used when they are what they say and nobody else could have written them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bitactor.actors import cache

PROGRAM = """import bitactor as ba
app = ba.App("cached")
trade = app.kind("trade", 1)
@app.actor(trade, state={"sum": "f8"})
def total(state, signal):
    state.sum += signal.value
"""
CODE = b"\x7fELF of a handler" * 100


def compile_in_a_fresh_process(path, **environment):
    """Compile the handler in `path`; give (was it read from the cache, standard error)."""
    code = f"import runpy; a = runpy.run_path({str(path)!r})['total'].compile(); assert a.address; print(a.from_cache)"
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "BITACTOR_CACHE_DIR")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip() == "True", run.stderr


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("BITACTOR_CACHE_DIR", str(path))
    return path


def test_the_second_process_reads_what_the_first_compiled(tmp_path, program):
    folder = str(tmp_path / "cache")
    assert compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=folder) == (False, "")
    assert compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=folder) == (True, "")
    assert Path(folder).stat().st_mode & 0o777 == 0o700


def test_a_changed_handler_is_compiled_anew_and_a_moved_one_is_not(tmp_path, program):
    folder = str(tmp_path / "cache")
    compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=folder)
    program.write_text("# a line above\n\n" + PROGRAM)
    assert compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=folder)[0]
    program.write_text(PROGRAM.replace("+= signal.value", "-= signal.value"))
    assert not compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=folder)[0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_file_that_is_not_what_it_says_is_ignored_and_written_anew(tmp_path, program, damage):
    folder = tmp_path / "cache"
    compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=str(folder))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    file.write_bytes({"flip": bytes(flipped), "cut": whole[:200], "empty": b"", "foreign": b"x" * 500}[damage])
    assert compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=str(folder)) == (False, "")
    assert file.read_bytes()[:50] == whole[:50]
    assert compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=str(folder))[0]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_directory_that_others_can_write_is_not_used_and_a_warning_says_what_to_do(tmp_path, program, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    found, said = compile_in_a_fresh_process(program, BITACTOR_CACHE_DIR=str(folder))
    assert not found
    assert "RuntimeWarning" in said and "chmod 700" in said
    assert list(folder.iterdir()) == []


def test_a_file_that_others_can_write_is_not_loaded(folder):
    cache.save("handler.o", CODE)
    assert cache.load("handler.o") == CODE
    (folder / "handler.o").chmod(0o666)
    assert cache.load("handler.o") is None


def test_a_link_is_not_followed(folder, tmp_path):
    cache.save("handler.o", CODE)
    (folder / "handler.o").rename(tmp_path / "elsewhere.o")
    (folder / "handler.o").symlink_to(tmp_path / "elsewhere.o")
    assert cache.load("handler.o") is None


@pytest.mark.parametrize("environment", [{}, {"BITACTOR_CACHE_DIR": "/proc/none"}, {"HOME": "/dev/null"}])
def test_without_a_home_or_on_a_read_only_root_handlers_compile_in_memory(program, environment):
    assert compile_in_a_fresh_process(program, **environment) == (False, "")


def test_an_empty_variable_is_as_good_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("BITACTOR_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory() == tmp_path / "bitactor"


def test_parallel_writers_and_readers_meet_whole_files_only(folder):
    wrong = []

    def work(number):
        for _ in range(100):
            cache.save("handler.o", CODE * (number + 1))
            found = cache.load("handler.o")
            if found is None or len(found) % len(CODE) or found[: len(CODE)] != CODE:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [path.name for path in folder.iterdir()] == ["handler.o"]


def test_a_write_that_fails_leaves_nothing_behind(folder, monkeypatch):
    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    cache.save("handler.o", CODE)
    assert list(folder.iterdir()) == []
