"""`bitactor chaos --kubernetes`: what runs in the client's pod, here beside a real service; and what is asked wrongly.

What needs a cluster is step 3b of `make k8s-e2e`.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitactor as ba
from bitactor.validation import app as own
from bitactor.validation.kubernetes import pods, sender
from bitactor.validation.load import signals_at
from bitactor.validation.service import Served

SEED = 20261128


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    directory = tmp_path_factory.mktemp("served")
    with Served(directory, own.__file__) as served:
        served.start().ready()
        secrets = directory / "secrets"
        secrets.mkdir()
        (secrets / "token").write_bytes((served.data / "dev" / "token").read_bytes())
        (secrets / "ca.crt").write_bytes((served.data / "dev" / "ca.pem").read_bytes())
        (secrets / "admin").write_text("none is asked for on loopback")
        yield served


def words(served, verb, label, **more):
    given = {
        "address": f"127.0.0.1:{served.port}", "label": label, "seed": SEED, "app": own.__file__,
        "admin": served.said["admin"].rstrip("/"), "secrets": served.directory / "secrets",
        "server-name": "localhost", "stop": served.directory / f"stop-{label}", **more,
    }  # fmt: skip
    return [verb, *(f"--{name}={value}" for name, value in given.items())]


def sent(served, label, meanwhile):
    """Run `send` as the pod does, as a process of its own, and do something meanwhile."""
    command = [sys.executable, "-I", sender.__file__, *words(served, "send", label, rate=3000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        meanwhile()
        (served.directory / f"stop-{label}").touch()
        return json.loads(process.communicate(timeout=120)[0])


def judged(served, label, count, capsys):
    capsys.readouterr()
    sender.main(words(served, "judge", label, sent=count))
    return json.loads(capsys.readouterr().out)


def killed_and_started(served):
    served.kill()
    served.start().ready()


def test_what_a_killed_service_has_is_a_replay_of_what_was_sent_and_planted_defects_are_found(served, capsys):
    ended = sent(served, "through-a-kill", lambda: killed_and_started(served))
    assert ended["sent"] == ended["acked"] > 500
    assert max(end - at for at, end in ended["gaps"]) > 0.1  # the restart
    found = judged(served, "through-a-kill", ended["sent"], capsys)
    assert (found["next"], found["differ"], found["examples"]) == (ended["sent"], 0, [])
    assert found["compared"] == sender.KEYS
    assert found["planted"] == dict.fromkeys(
        ["loss", "loss at the end", "duplicate", "duplicate at the end", "foreign", "reorder"], True
    )


def test_a_signal_that_the_service_has_not_or_has_twice_is_seen(served, capsys):
    ended = sent(served, "other", lambda: None)
    for count in (ended["sent"] - 1, ended["sent"] + 1):
        found = judged(served, "other", count, capsys)
        assert found["differ"] == 1 and "is there" in found["examples"][0]
    foreign = signals_at(sender.template_of(own.app, "other", SEED), 0, 1)
    with ba.Client(
        f"127.0.0.1:{served.port}", producer="who", token_file=served.data / "dev" / "token",
        ca_file=served.data / "dev" / "ca.pem", server_name="localhost",
    ) as client:  # fmt: skip
        client.send_batch(foreign)
        client.flush(30)
    assert judged(served, "other", ended["sent"], capsys)["differ"] == 1


def test_only_actors_whose_state_follows_from_one_producer_are_judged():
    assert [actor.name for actor in sender.judged(own.app)] == ["vwap"]  # notes forget, totals are emitted to
    template = sender.template_of(own.app, "p", 1)
    assert set(template["kind"]) == {own.trade.number}
    assert len(np.unique(template["key"])) == sender.KEYS
    others = sender.template_of(own.app, "q", 1)
    assert not set(template["key"].tolist()) & set(others["key"].tolist())


def test_states_are_compared_as_the_api_shows_them_and_apps_found_as_the_service_finds_them(tmp_path):
    shown = sender.shown({"n": np.uint64(2**63), "x": np.array([1.5, np.inf, -np.inf, np.nan]), "yes": True})
    assert shown == {"n": 2**63, "x": [1.5, "Infinity", "-Infinity", "NaN"], "yes": True}
    assert sender.shown(None) is None
    two = tmp_path / "two.py"
    two.write_text("import bitactor as ba\none, two = ba.App('one'), ba.App('two')\n")
    assert sender.app_of(f"{two}:two").name == "two"
    with pytest.raises(ValueError, match="holds 2 apps"):
        sender.app_of(str(two))


def test_of_a_client_that_failed_its_own_last_line_is_told():
    said = "Traceback\n  File\nbitactor.X: gone\ncommand terminated with exit code 1\n"
    assert pods._last_words(said) == "bitactor.X: gone"
    assert pods._last_words("\n") == "it said nothing"


def test_an_app_of_which_nothing_can_be_judged_is_told():
    app = ba.App("forgets")
    kind = app.kind("reading", 1)

    @app.actor(kind, state={"n": "u8"}, expire_after="1h")
    def readings(state, signal):
        state.n += 1

    with pytest.raises(ValueError, match="each actor of this app"):
        sender.template_of(app, "p", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--kubernetes", "x", "--kills", "3"], "--kills goes not with --kubernetes"),
        (["--kubernetes", "x", "--only", "disk"], "--only goes not with --kubernetes"),
        (["--release", "x"], "--release goes only with --kubernetes"),
        (["--token-secret", "x"], "--token-secret goes only with --kubernetes"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(given, said):
    done = chaos(given)
    assert (done.returncode, done.stderr.strip()) == (2, f"bitactor: {said}")


def test_without_kubectl_or_a_cluster_nothing_is_reported(tmp_path):
    done = chaos(["--kubernetes", "x", "--out", str(tmp_path)], PATH="")
    assert (done.returncode, done.stderr.strip()) == (1, "bitactor: kubectl is not on the PATH")
    assert list(tmp_path.iterdir()) == []


def chaos(given, **environment):
    command = [sys.executable, "-m", "bitactor", "chaos", *given]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent, env=environment or None
    )
