"""Connections cut, half-open, delayed, duplicated, truncated and with changed bytes, over TLS and in plain text.

TLS finds changed and doubled bytes itself; in plain text (loopback only) they reach the frames, whose checksums and
sequences have to. Producers of ours send through the proxy, and go on once it lets them; over TLS the shipped client
does too. In plain text it would stop: bytes that are no frame are, to it, a peer's defect and not the network's.
"""

import time
from typing import Any, Final

import bitactor as ba
from bitactor.validation.campaign import Part, Run
from bitactor.validation.chaos.proxy import FAULTS, Proxy
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import Findings, Sent
from bitactor.validation.served import LONG_PAUSE_S, World, promises, tell, world
from bitactor.validation.streams import input_kinds, stream

COMMAND: Final = "bitactor chaos --only network"
CLIENT: Final = "shipped"


def run(run: Run) -> None:
    """Every fault over TLS, then in plain text."""
    findings, hits, connections = Findings(), 0, 0
    missed = []
    for plain in (False, True):
        flags: dict[str, Any] = {"limits_idle_s": 4, "limits_frame_s": 4}
        if plain:
            flags["ingest_plain_text_on_loopback"] = True
        directory = run.directory / ("plain" if plain else "tls")
        with (
            world(run, "ab", directory=directory, pause_s=LONG_PAUSE_S, **flags) as w,
            Proxy(w.served.port, run.seed) as proxy,
        ):
            w.served.start().ready()
            for producer in w.producers:
                producer.port, producer.plain_text, producer.silent_s = proxy.port, plain, 5.0
                producer.lose_connection()
            client = None if plain else _client(w, proxy.port)
            signals = stream(run.app, CLIENT, 400_000, run.seed % 2**32, kinds=input_kinds(run.app)[:1])
            for fault in FAULTS * run.size("network_rounds"):
                run.say(f"{fault}, {'plain text' if plain else 'TLS'}")
                before = proxy.hit[fault]
                proxy.fault = fault
                end = time.monotonic() + run.sizes["network_s"]
                while time.monotonic() < end or (proxy.hit[fault] == before and time.monotonic() < end + 20):
                    if client is not None and client.next - client.acked < 20_000:
                        client.send_batch(signals[client.next : client.next + 50])
                    time.sleep(0.02)
                proxy.fault = ""
                run.happened(fault, f"{proxy.hit[fault] - before} chunks, {'plain text' if plain else 'TLS'}")
                w.wait_for_acks(200)  # they go on
                if proxy.hit[fault] == before:
                    missed.append(f"{fault} ({'plain' if plain else 'TLS'})")
            more = []
            if client is not None:
                client.flush(120)
                more = [Sent(CLIENT, ba.text_key(CLIENT), signals, client.acked)]
                client.close(60)
            w.finish(500)
            hits, connections = hits + proxy.hit.total(), connections + proxy.connections
            findings.add(w.judge(more))
    run.measure(
        "network.missed", len(missed), f"{hits} chunks were hit over {connections} connections; missed: {missed}"
    )
    run.measure("network.hits", hits)
    tell(run, "network", findings)


def _client(w: World, port: int) -> ba.Client:
    dev = w.served.data / "dev"
    return ba.Client(
        f"127.0.0.1:{port}",
        producer=CLIENT,
        token_file=dev / "token",
        ca_file=dev / "ca.pem",
        server_name="localhost",
        connect_s=60,
    )


PART = Part(
    "network",
    "Connections that networks damage",
    (
        Criterion("network.missed", "Faults that never hit anything", Threshold("==", 0), "faults", COMMAND),
        Criterion("network.hits", "Chunks that a fault was done to", Threshold(">=", 12), "chunks", COMMAND),
        *promises("network", COMMAND),
    ),
    run,
)
