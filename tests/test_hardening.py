"""The built extension is hardened; one that is linked or compiled without it is told from it."""

import shutil
import subprocess
from pathlib import Path

import pytest
from audit import elf

import bitactor._core

pytestmark = pytest.mark.skipif(not shutil.which("readelf"), reason="readelf (binutils) is not installed")
SOURCE = """
#include <string.h>
void take(char *);
int f(const char *from, unsigned long n) { char to[64]; memcpy(to, from, n); take(to); return to[3]; }
"""
HARD = ("-O2", "-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")
SOFT = ("-O2", "-fno-stack-protector", "-U_FORTIFY_SOURCE")
LINKED_HARD = ("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack")


OBJECTS = sorted(path for folder in bitactor._core.__path__ for path in Path(folder).glob("*.so"))
ENGINE = next(path for path in OBJECTS if path.name.startswith("_engine."))
as_shipped = pytest.mark.skipif(
    b"__gcov_" in ENGINE.read_bytes(), reason="built to count lines, without optimisation: the compiler checks no calls"
)


@as_shipped
def test_every_extension_module_is_linked_hard_and_some_show_checked_calls():
    assert len(OBJECTS) == 7
    assert elf.weak(OBJECTS) == {}


@as_shipped
def test_the_module_with_the_engine_has_stack_protector_and_checked_calls():
    assert set(elf.lacks(ENGINE)) <= {"cet"}


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
@pytest.mark.parametrize(
    ("compiled", "linked", "lacking"),
    [
        (HARD, LINKED_HARD, set()),
        (HARD, ("-Wl,-z,norelro", "-Wl,-z,now"), {"relro"}),
        (HARD, ("-Wl,-z,relro", "-Wl,-z,lazy"), {"now"}),
        (HARD, (*LINKED_HARD, "-Wl,-z,execstack"), {"stack"}),
        (HARD, (*LINKED_HARD, "-Wl,-rpath,/opt/elsewhere"), {"path"}),
        (SOFT, LINKED_HARD, {"protector", "fortify"}),
    ],
)
def test_what_an_object_lacks_is_named_for_each_way_to_lack_it(tmp_path, compiled, linked, lacking):
    (tmp_path / "a.c").write_text(SOURCE)
    command = ["gcc", "-shared", "-fPIC", *compiled, *linked, "a.c", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = elf.lacks(tmp_path / "a.so")
    assert set(found) - {"cet"} == lacking, found
    assert bool(elf.weak([tmp_path / "a.so"])) == bool(lacking)
