"""The service over TLS, killed with -9 while signals are in flight; then its history is checked."""

from bitactor.validation.campaign import Part, Run
from bitactor.validation.criteria import Criterion, Threshold
from bitactor.validation.history import known_of, prove
from bitactor.validation.plots import histogram
from bitactor.validation.served import promises, tell, world

COMMAND = "bitactor validate --only service"


def run(run: Run) -> None:
    """Kill at random moments after readiness, start again, finish, stop, compare."""
    rounds, chance = run.size("kills"), run.random("kills")
    recoveries = []
    with world(run) as w:
        for turn in range(rounds):
            run.say(f"kill {turn + 1} of {rounds}")
            w.served.start()
            recoveries.append(float(w.served.ready()["recovery_s"]))
            w.wait_for_acks(chance.randint(1, 3000))
            w.served.kill()
            run.happened("kill -9", f"round {turn + 1}")
        w.served.start().ready()
        for producer in w.producers:
            producer.keep_latencies = True
        w.finish(5000)
        findings = w.judge()
        tell(run, "service", findings)
        latencies = sorted(seconds * 1e3 for one in w.producers for _, seconds in one.latencies)
        logged = {one.number: one.signals[: one.acked] for one in known_of(w.producers)}
        planted = prove(logged, known_of(w.producers))
    run.measure("service.checker", sum(planted.values()), f"planted: {', '.join(planted)}")
    run.measure("service.kills", rounds)
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else float("nan")
    run.measure("service.ack-p99", p99, f"three producers at full speed, {len(latencies):,} frames, durability disk")
    run.measure("service.recovery", max(recoveries), "the longest; the log is replayed from the newest snapshot")
    run.plot(histogram("service", "From a frame's last byte to its acknowledgement", "ms", latencies))


PART = Part(
    "service",
    "The service, killed under load",
    (
        *promises("service", COMMAND),
        Criterion("service.kills", "Kills survived", Threshold(">=", 1), "kills", COMMAND, at_least="kills"),
        Criterion("service.checker", "Defects planted into the history and found", Threshold("==", 6), "of 6", COMMAND),
        Criterion("service.ack-p99", "99% of acknowledgements within", Threshold("<=", 2000, warn=250), "ms", COMMAND),
        Criterion("service.recovery", "Recovery after a kill", Threshold("<=", 30, warn=5), "s", COMMAND),
    ),
    run,
)
