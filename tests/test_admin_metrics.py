"""Metrics: every figure equals what the engine counted, promtool finds nothing, docs and alerts name what exists."""

import shutil
import subprocess
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bitactor._core._engine import histogram_floors
from bitactor.admin import metrics
from bitactor.protocol.errors import Code
from bitactor.runtime.reports import SECONDS_BOUNDS, ClusterStatistics, LaneStatistics, Seconds
from bitactor.statistics import Ticks
from tests.admin_service import Stub, ask, served, trades

NONE = "\u2013"  # what the page shows for no label
ROOT = Path(__file__).parent.parent
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool here: Debian's package prometheus has it")


@pytest.fixture(scope="module")
def service():
    stub = Stub(shards=2)
    signals = trades(20_000)
    signals["value"][:7] = -1  # the handler raises
    stub.apply(signals)
    yield stub
    stub.engine.close()


@pytest.fixture(scope="module")
def scraped(service):
    with served(service) as admin:
        return ask(admin.port, "/metrics").body.decode()


def samples(text):
    found = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_counters_are_those_of_the_engine_and_nothing_is_lost_unseen(service, scraped):
    found, counted = samples(scraped), service.engine.statistics()
    dropped = {dict(labels)["reason"]: value for labels, value in found["bitactor_signals_dropped_total"].items()}
    assert found["bitactor_signals_accepted_total"][()] == counted.accepted == 20_000
    assert found["bitactor_signals_processed_total"][()] == counted.processed == 19_993
    assert dropped == counted.dropped and dropped["raised"] == 7
    assert counted.processed + found["bitactor_signals_queued"][()] + sum(dropped.values()) == 20_000
    actor = (("actor", "vwap"),)
    assert found["bitactor_actor_errors_total"][actor] == 7 and found["bitactor_actor_keys"][actor] == 100
    refused = found["bitactor_ingest_refused_total"]
    assert {row: n for row, n in refused.items() if n} == {(("reason", "crc"),): 2, (("reason", "auth_failed"),): 1}
    assert {(("reason", code.name.lower()),) for code in Code} < refused.keys()  # at 0 from the start, for rates
    assert (("reason", "certificate_bad"),) in refused
    assert found["bitactor_log_durable_lag_signals"][()] == 1000
    assert found["bitactor_ready"][()] == found["bitactor_live"][()] == found["bitactor_started"][()] == 1
    assert sum(found["bitactor_shard_processed_total"].values()) == counted.processed
    assert [dict(labels)["version"] for labels in found["bitactor_build_info"]] and found[
        "process_resident_memory_bytes"
    ]


def test_histograms_are_cumulative_and_end_with_all(service, scraped):
    found, log = samples(scraped), service.log
    buckets = {dict(k)["le"]: v for k, v in found["bitactor_log_append_seconds_bucket"].items()}
    assert list(buckets.values()) == np.cumsum(log.append_seconds.counts).tolist()
    assert found["bitactor_log_append_seconds_count"][()] == 11 and buckets["+Inf"] == 11
    assert found["bitactor_log_append_seconds_sum"][()] == log.append_seconds.sum
    assert found["bitactor_log_fsync_seconds_sum"][()] == log.sync_seconds.sum
    ticks = service.engine.statistics().actors[0].ticks
    rows = [(dict(labels), count) for labels, count in found["bitactor_actor_ticks_per_signal_bucket"].items()]
    of = {int(row["le"].replace("+Inf", "-1")): count for row, count in rows if row["actor"] == "vwap"}
    assert of[-1] == ticks.samples > 50
    floors = np.array(histogram_floors())
    counts = np.array(ticks.counts)
    for bound in metrics.TICK_BOUNDS:
        assert of[bound] == counts[floors <= bound].sum(), bound


def test_tick_buckets_are_exact_whatever_was_counted():
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    rng = np.random.default_rng(seed)
    floors = histogram_floors()
    for _ in range(50):
        counts = rng.integers(0, 50, len(floors)) * (rng.random(len(floors)) < rng.random())
        ticks = Ticks(int(counts.sum()), 0.0, 0, 0, 0, 1, tuple(counts.tolist()))
        cumulative, total = metrics.tick_buckets(ticks)
        assert cumulative[-1] == counts.sum() and len(cumulative) == len(metrics.TICK_BOUNDS) + 1
        for bound, count in zip(metrics.TICK_BOUNDS, cumulative, strict=False):
            assert count == counts[np.array(floors) <= bound].sum()
        low = sum(f * n for f, n in zip(floors, counts.tolist(), strict=True))
        high = sum((f - 1) * n for f, n in zip([*floors[1:], floors[-1] + 1], counts.tolist(), strict=True))
        assert low <= total <= max(low, high)


def test_no_label_is_a_key_a_name_or_a_producer(service, scraped):
    allowed = {"actor", "reason", "shard", "le", "version", "python", "machine"}
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            if sample.name.startswith("bitactor"):
                assert sample.labels.keys() <= allowed, sample
    names = [definition.name for definition in metrics.METRICS]
    assert len(names) == len(set(names))
    assert len(scraped) < 60_000


def test_a_value_that_is_not_there_is_left_out_instead_of_being_zero(service):
    seconds = Seconds(SECONDS_BOUNDS, (0,) * (len(SECONDS_BOUNDS) + 1), 0.0)
    view = metrics.View(service.health(), service.statistics())
    gone = [d for d in metrics.METRICS if d.name == "bitactor_certificate_expiry_timestamp_seconds"]
    assert metrics._family(gone[0], None) is None
    assert "bitactor_certificate_expiry" in metrics.Exposition().text(view).decode()
    assert metrics._buckets(seconds)[0][-1] == ("+Inf", 0.0)


def test_a_replica_tells_of_its_lanes_and_a_service_alone_does_not(service, scraped):
    assert "bitactor_lane" not in scraped and "bitactor_replicas" not in scraped
    lanes = {"3": LaneStatistics(17, 4000, 12, 1.5), "7": LaneStatistics(2, 0, 0, None)}
    of_replica = replace(service.statistics(), cluster=ClusterStatistics(3, 1, 5, 40, 2, lanes))
    found = samples(metrics.Exposition().text(metrics.View(service.health(), of_replica)).decode())
    assert found["bitactor_lane_position_signals"] == {(("lane", "3"),): 4000, (("lane", "7"),): 0}
    assert found["bitactor_lane_generation"] == {(("lane", "3"),): 17, (("lane", "7"),): 2}
    assert found["bitactor_lane_lag_signals"][(("lane", "3"),)] == 12
    assert found["bitactor_lane_snapshot_age_seconds"] == {(("lane", "3"),): 1.5}  # the other has none yet
    alone = [
        ("bitactor_replicas", 3), ("bitactor_lanes_owned", 2), ("bitactor_lanes_without_owner", 1),
        ("bitactor_lane_moves_total", 5), ("bitactor_emits_waiting", 40), ("bitactor_nats_reconnects_total", 2),
    ]  # fmt: skip
    assert [(name, found[name][()]) for name, _ in alone] == alone


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics(scraped):
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=scraped, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_table_in_the_documentation_is_the_list_of_metrics():
    rows = [f"| `{n}` | {t} | {label or NONE} | {help_} |" for n, t, label, help_ in metrics.documentation()]
    page = (ROOT / "docs/admin.md").read_text()
    written = [line for line in page.splitlines() if line.startswith("| `bitactor_")]
    assert written == rows
