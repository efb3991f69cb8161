"""The house rules hold, and each rule finds the defect planted for it (tools/house.py has the rules)."""

from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parent.parent
HOST = "pypi" + ".org"
MACHINE = "/ho" + "me/someone/x"

# (rule, path, a text that breaks it, part of the message, a text that keeps it)
PLANTED = [
    ("short_files", "core/src/a.c", "/* a */\n" * 501, "501 lines", "/* a */\n" * 500),
    ("short_files", "tests/a.py", "# a\n" * 701, "701 lines", "# a\n" * 700),
    ("short_files", "core/tests/test_engine.c", "/* a */\n" * 9, "take its row out", "/* a */\n" * 701),
    ("head_comments", "core/src/a.c", "int a;\n", "without a comment", "/* What for. */\nint a;\n"),
    ("head_comments", "src/bitactor/a.py", "import os\n", "without a comment", '"""What for."""\nimport os\n'),
    ("head_comments", "src/bitactor/_core/a.pyx", "cimport b\n", "without a comment", "# What for.\n"),
    ("head_comments", "tools/a", "#!/bin/sh\nset -e\n", "without a comment", "#!/bin/sh\n# What for.\n"),
    ("plain_words", "docs/a.md", "the jour" + "nal\n", "say log", "the log\n"),
    ("plain_words", "README.md", "blaz" + "ing fast\n", "plain words", "62 M signals/s\n"),
    ("plain_words", "Makefile", f"x:\n\tpip install -i https://{HOST}/simple\n", "registry", "x:\n\tpip install y\n"),
    ("plain_words", "tests/a.py", f"open('{MACHINE}')\n", "path of one machine", "open('build/x')\n"),
    ("plain_words", "CHANGELOG.md", "by Clau" + "de\n", "how it was written", "by the engine\n"),
    ("atomics_through_one_header", "core/src/a.c", "_Atomic int a;\n", "atomic.h", "BA_ATOMIC(int) a; /* _Atomic */\n"),
    ("atomics_through_one_header", "core/tests/a.c", "atomic_load(&a);\n", "atomic.h", "ba_load_acquire(&a);\n"),
    ("atomics_through_one_header", "core/src/a.c", "__sync_synchronize();\n", "atomic.h", 'puts("atomic_load");\n'),
    (
        "allocation_through_one_file",
        "core/src/a.c",
        "p = malloc(3);\n",
        "alloc.h",
        "p = ba_alloc(3); /* malloc(3) */\n",
    ),
    ("allocation_through_one_file", "core/src/a.c", "free (p);\n", "alloc.h", "ba_free(p); ring->free(p);\n"),
    ("core_without_python", "core/src/a.c", "#include <Python.h>\n", "must not include", "#include <pthread.h>\n"),
    (
        "include_edges",
        "core/include/bitactor/wait.h",
        "#include <bitactor/shard.h>\n",
        "must not include bitactor/shard.h",
        "#include <bitactor/atomic.h>\n",
    ),
    ("include_edges", "core/src/a.c", '#include "../tests/check.h"\n', "must not", '#include "store_impl.h"\n'),
    ("include_edges", "core/include/bitactor/stray.h", "#include <stdint.h>\n", "no place", None),
    ("import_edges", "src/bitactor/signals.py", "import bitactor.engine\n", "must not import engine", "import numpy\n"),
    ("import_edges", "src/bitactor/schema.py", "from bitactor import engine\n", "schema must not", "import os\n"),
    ("import_edges", "src/bitactor/actors/a.py", "from ..log import x\n", "must not import log", "from . import b\n"),
    ("import_edges", "src/bitactor/actors/a.py", "def f():\n    from bitactor.engine import E\n", "engine", "\n"),
    (
        "import_edges",
        "src/bitactor/_core/a.pyx",
        "from bitactor.signals cimport x\n",
        "signals",
        "from libc cimport y\n",
    ),
    ("import_edges", "src/bitactor/stray.py", "import os\n", "no place", None),
    (
        "import_edges",
        "src/bitactor/outputs.py",
        "if TYPE_CHECKING:\n    import os\n\nfrom bitactor.engine import E\n",
        "must not import engine",
        "if TYPE_CHECKING:\n    from bitactor.engine import E\n\nimport os\n",
    ),
    ("tests_are_sentences", "tests/a.py", "def test_ring():\n", "as a sentence", "def test_a_full_ring_refuses():\n"),
    ("units_last", "core/src/a.h", "int max_idle_ns;\n", "write idle_ns_max", "int idle_ns_max;\n"),
    ("units_last", "src/bitactor/ring.py", "min_bytes = 3\n", "write bytes_min", "bytes_min = 3  # not min_bytes\n"),
    ("units_last", "src/bitactor/log/a.py", 'x = {"min_bytes": 1}\n', "write bytes_min", 'x = {"max_bytes": 1}\n'),
    ("verbs_exist", "README.md", "`make coffee`\n", "not in the Makefile", "`make test`, and make do\n"),
    ("decisions_have_a_status", "docs/adr/0001-a.md", "# A\n", "needs a status", "# A\n\nStatus: accepted\n"),
    ("decisions_have_a_status", "docs/adr/0001-a.md", "Status: perhaps\n", "needs a status", "**Status:** rejected\n"),
    ("decisions_have_a_status", "docs/adr/a.md", "Status: accepted\n", "NNNN-title", None),
]


@pytest.mark.parametrize(("rule", "path", "bad", "message", "good"), PLANTED)
def test_a_planted_defect_is_found_and_its_repair_is_not(rule, path, bad, message, good):
    check = getattr(house, rule)
    assert message in "; ".join(text for _, text in check(path, bad))
    if good is not None:
        assert list(check(path, good)) == []


def test_every_rule_has_a_planted_defect():
    assert {rule.__name__ for rule in house.RULES} == {row[0] for row in PLANTED}


def test_a_finding_names_the_line_of_the_defect():
    assert [line for line, _ in house.plain_words("a.md", "one\ntwo\na jour" + "nal\n")] == [3]
    assert [line for line, _ in house.units_last("core/a.c", "/* a\n b */\nint max_ns;\n")] == [3]


def test_the_tree_is_walked_without_build_outputs(tmp_path):
    for name in ("a.c", "build/b.c", ".venv/c.py", ".ci/run", "sub/d.py", "e.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert list(house.files(tmp_path)) == ["a.c", ".ci/run", "sub/d.py"]


def test_the_repository_keeps_the_house_rules():
    found = list(house.findings(ROOT))
    assert not found, "\n" + "\n".join(found)


def test_every_page_and_decision_is_in_its_index():
    for folder in (ROOT / "docs", ROOT / "docs/adr"):
        index = (folder / "README.md").read_text()
        missing = [page.name for page in folder.glob("*.md") if page.name != "README.md" and page.name not in index]
        assert not missing, f"{folder.name}/README.md does not list {missing}"
