"""The command line's frame: verbs found and loaded late, one line and a status for each error, settings as flags."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from bitactor.cli import VERBS
from bitactor.cli import run as frame

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BITACTOR_") and name != "BITACTOR_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def bitactor(capsys):
    """Run a command line in this process: (status, output, errors)."""

    def run(*arguments):
        status = frame.main(list(arguments))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def process(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "bitactor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environ,
    )


def test_help_lists_every_verb_without_loading_any(bitactor):
    code = (
        "import sys\nfrom bitactor.cli import run, VERBS\nassert run.main(['--help']) == 0\n"
        "heavy = {'numpy', 'pydantic', 'llvmlite', 'asyncio', 'apsw'} | {verb.module for verb in VERBS.values()}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "LOADED []" in result.stdout
    for name, verb in VERBS.items():
        assert name in result.stdout
        assert verb.help.split()[0] in result.stdout
    assert bitactor() == (0, bitactor("--help")[1], "")


def test_the_page_of_the_command_line_has_every_verb():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in VERBS if f"| `{name}" not in page] == []


def test_help_is_fast_because_people_wait_for_it():
    took = []
    for _ in range(3):
        begin = time.perf_counter()
        process("--help")
        took.append(time.perf_counter() - begin)
    assert min(took) < 1.0, took  # about 0.25 s on an idle machine


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_of_its_own_and_a_module_that_says_what_it_is(verb, bitactor):
    status, out, err = bitactor(verb, "--help")
    assert (status, err) == (0, "")
    assert "Usage: bitactor " + verb in out
    module = import_module(VERBS[verb].module)
    assert hasattr(module, "run") != hasattr(module, "verbs")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["confg"], "bitactor: No such command 'confg'. Did you mean 'config'; see `bitactor --help`\n"),
        (["config", "shw"], "bitactor: No such command 'shw'. Did you mean 'show'; see `bitactor config --help`\n"),
        (["config", "show", "--prt"], "bitactor: No such option: --prt; see `bitactor config show --help`\n"),
        (["config", "check", "--config", "no.toml"], "bitactor: no.toml: No such file or directory\n"),
    ],
)
def test_wrong_arguments_are_one_line_that_says_where_to_look_and_status_2(arguments, told, bitactor):
    assert bitactor(*arguments) == (2, "", told)


def verb_that(raises, monkeypatch):
    def run() -> None:
        raise raises

    module = type(sys)("planted")
    module.run = run
    monkeypatch.setitem(sys.modules, "bitactor_planted", module)
    monkeypatch.setitem(VERBS, "planted", VERBS["version"]._replace(module="bitactor_planted"))


def own_error():
    from bitactor.log.contract import LogLockedError

    return LogLockedError("data: in use by process 7")


@pytest.mark.parametrize(
    ("make", "status", "told"),
    [
        (lambda: frame.Failed("market.py: no such file"), 1, "bitactor: market.py: no such file\n"),
        (lambda: frame.Failed("which app?", 2), 2, "bitactor: which app?\n"),
        (own_error, 1, "bitactor: data: in use by process 7\n"),
        (lambda: FileNotFoundError(2, "No such file", "a.pem"), 1, "bitactor: a.pem: No such file\n"),
        (
            lambda: ModuleNotFoundError("No module named 'uvloop'", name="uvloop"),
            1,
            "bitactor: uvloop is missing: pip install 'bitactor[service]'\n",
        ),
        (lambda: ConnectionRefusedError(111, "Connection refused"), 1, "bitactor: Connection refused\n"),
        (KeyboardInterrupt, 130, ""),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_documented_status(make, status, told, bitactor, monkeypatch):
    verb_that(make(), monkeypatch)
    assert bitactor("planted") == (status, "", told)


def test_a_defect_is_told_as_one_with_its_place_and_debug_shows_the_traceback(bitactor, monkeypatch):
    verb_that(ZeroDivisionError("division by zero"), monkeypatch)
    status, out, err = bitactor("planted")
    assert (status, out, err.count("\n")) == (70, "", 1)
    assert err.startswith("bitactor: internal error: ZeroDivisionError: division by zero (test_cli.py:")
    for arguments in (("--debug", "planted"), ("planted", "--debug")):
        status, _, err = bitactor(*arguments)
        assert status == 70
        assert "Traceback (most recent call last)" in err and "raise raises" in err


def test_a_reader_that_stops_reading_is_no_error_to_tell():
    script = f"{sys.executable} -m bitactor config show | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    assert result.stdout.splitlines()[0].startswith("app")


def test_python_m_bitactor_is_the_same_command_and_its_status_reaches_the_shell():
    assert process("version").stdout.startswith("bitactor 0.")
    assert process("nothing").returncode == 2


def test_without_typer_one_line_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from bitactor.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "bitactor: the command line needs more packages: pip install 'bitactor[service]'\n"


def test_config_show_says_each_value_and_where_it_comes_from_and_no_secret(bitactor, monkeypatch):
    Path("bitactor.toml").write_text("[log]\nkind = 'none'\n")
    monkeypatch.setenv("BITACTOR_TELEMETRY__OTLP_HEADERS", "x=deep")
    monkeypatch.setenv("BITACTOR_ADMIN__PORT", "81")
    status, out, err = bitactor("config", "show", "a.py", "--ingest-plain-text-on-loopback")
    assert (status, err) == (0, "")
    rows = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["app"] == ["a.py", "argument"]
    assert rows["log.kind"] == ["none", "bitactor.toml:2"]
    assert rows["admin.port"] == ["81", "BITACTOR_ADMIN__PORT"]
    assert rows["ingest.plain_text_on_loopback"] == ["true", "--ingest-plain-text-on-loopback"]
    assert rows["snapshot.keep"] == ["2", "default"]
    assert "deep" not in out and "(set, not shown)" in out
    as_json = json.loads(bitactor("config", "show", "--json")[1])
    assert as_json["log.kind"] == {"value": "none", "source": "bitactor.toml:2"}
    assert as_json["engine.shards"] == {"value": None, "source": "default"}
    assert "deep" not in json.dumps(as_json)


def test_config_check_tells_every_problem_on_a_line_of_its_own(bitactor):
    assert bitactor("config", "check") == (0, "good: 0 settings given, the others at their defaults\n", "")
    status, out, err = bitactor("config", "check", "--ingest-host", "0.0.0.0", "--admin-host", "0.0.0.0")
    assert (status, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == ["tls.cert_file", "auth.file", "admin.token_file"]


def test_config_check_reads_identities_and_certificates_as_a_server_does(bitactor):
    Path("identities.toml").write_text("")
    status, _, err = bitactor("config", "check", "--auth-file", "identities.toml")
    assert (status, "identities.toml: no [[identity]] in it" in err, err.count("\n")) == (2, True, 1)
    Path("a.pem").write_text("x")
    Path("a.pem").chmod(0o600)
    status, _, err = bitactor("config", "check", "--tls-cert-file", "a.pem", "--tls-key-file", "a.pem")
    assert (status, err.startswith("bitactor: cannot use a.pem with a.pem: ")) == (2, True)


# Apps.

APP = "import bitactor as ba\n\n{name} = ba.App('market')\nk = {name}.kind('trade', 1)\n"


@pytest.mark.parametrize(
    ("text", "target", "told"),
    [
        (None, "market.py", "market.py: no such file; an app is a Python file"),
        (None, "market", "market: no such file; an app is a Python file such as market.py"),
        ("x = 1\n", "market.py", "market.py defines no bitactor.App"),
        (
            APP.format(name="a") + APP.format(name="b"),
            "market.py",
            "market.py defines 2 apps; choose one, such as market.py:a",
        ),
        (APP.format(name="a"), "market.py:b", "market.py: b is not defined"),
        ("b = 1\n", "market.py:b", "market.py: b is not a bitactor.App"),
        ("def f(:\n", "market.py", "market.py:1: invalid syntax"),
        ("import json\n\n\ndef f():\n    json.loads('x')\n\n\nf()\n", "market.py", "market.py:5: JSONDecodeError: "),
        ("import nothing_like_it\n", "market.py", "market.py:1: ModuleNotFoundError: No module named"),
    ],
)
def test_what_is_wrong_with_an_app_is_told_with_file_and_line(text, target, told):
    from bitactor.cli.apps import load_app

    if text is not None:
        Path("market.py").write_text(text)
    with pytest.raises(frame.Failed) as caught:
        load_app(target)
    assert told in str(caught.value)


def test_an_app_is_found_by_file_or_by_name_and_may_import_what_lies_beside_it():
    from bitactor.cli.apps import load_app

    Path("beside_market.py").write_text("NAME = 'market'\n")
    Path("market.py").write_text("import beside_market\n" + APP.format(name="a"))
    assert load_app("market.py").name == "market"
    assert load_app("market.py:a").name == "market"


def test_an_app_without_a_kind_is_told_as_the_app_s_lack(bitactor):
    Path("market.py").write_text("import bitactor as ba\na = ba.App('a')\n")
    status, out, err = bitactor("serve", "market.py")
    assert (status, out) == (1, "")
    assert err == "bitactor: market.py: app 'a' declares no kind: app.kind(name, number) declares one\n"
    assert not Path("bitactor-data").exists()


def test_an_error_in_a_handler_names_its_file_and_line_through_the_command_line(bitactor):
    handler = "\n\n@a.actor(k, state={'n': 'i8'})\ndef count(state, signal):\n    state.m += 1\n"
    Path("market.py").write_text(APP.format(name="a") + handler)
    status, out, err = bitactor("serve", "market.py")
    assert (status, out) == (1, "")
    assert "market.py" in err and ":9" in err and "Traceback" not in err
