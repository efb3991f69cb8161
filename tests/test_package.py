"""What `import bitactor` promises: it is cheap, its names are found when asked for, and it knows where it may run."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import bitactor

INIT = Path(bitactor.__file__)


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def names_for_type_checkers(source):
    """Name -> module of the imports under `if TYPE_CHECKING:`, which must be of the form `from m import n as n`."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom):
                    for alias in statement.names:
                        assert alias.asname == alias.name, f"write `{alias.name} as {alias.name}`: it is a public name"
                        found[alias.name] = statement.module
    return found


def test_every_public_name_is_found_where_the_table_says():
    for name, home in bitactor._HOME.items():
        assert getattr(bitactor, name) is getattr(importlib.import_module(home), name)


def test_type_checkers_and_users_see_the_same_names():
    assert names_for_type_checkers(INIT.read_text()) == bitactor._HOME


def test_dir_and_all_list_the_public_names_and_nothing_else():
    assert bitactor.__all__ == ["__version__", *sorted(bitactor._HOME)]
    assert dir(bitactor) == sorted(bitactor.__all__)


def test_an_unknown_name_suggests_the_nearest_one():
    with pytest.raises(AttributeError, match="no attribute '__versoin__'; did you mean __version__"):
        bitactor.__versoin__  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'zzz'$"):
        bitactor.zzz  # noqa: B018


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("bitactor") == bitactor.__version__


def test_import_is_cheap_and_loads_neither_numpy_nor_a_compiler():
    code = """
import sys, time
begin = time.perf_counter()
import bitactor
print(time.perf_counter() - begin, *sorted({"numpy", "numba", "llvmlite", "asyncio"} & set(sys.modules)))
"""
    runs = [run_python(code).stdout.split() for _ in range(3)]
    assert all(len(run) == 1 for run in runs), runs
    assert min(float(run[0]) for run in runs) < 0.3


@pytest.mark.parametrize(
    "pretend",
    [
        "sys._is_gil_enabled = lambda: False",
        "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1",
    ],
)
def test_a_free_threaded_python_is_refused_at_import_with_a_word_on_what_to_do(pretend):
    result = run_python(f"import sys\n{pretend}\nimport bitactor")
    assert result.returncode == 1
    assert "ImportError: bitactor does not run on free-threaded Python yet" in result.stderr
    assert "Use a build with the GIL" in result.stderr
