"""The end-to-end check on a real cluster: `make k8s-e2e`, or python k8s/e2e/run.py [--only 1,2,6] [--json FILE].

Ends with a table of what passed and a JSON file, build/k8s-e2e.json. Status 1 when a step failed. cluster.py says where
it runs; IMAGE, BASE, NATS_CHART, CLUSTER_TOOLS and RATE (signals a second of the steady load) choose.

--plant NAME, NAME,NAME or all: plants faults one after the other (planted.py has the table, --plant list prints it) and
runs what should find each; build/k8s-planted.json, in which rows of other faults stay. Status 1 when one was not found.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime

import alone as standalone
import cluster
import monitoring
import planted
import secured
import steps
from kube import ROOT, Bad, Failed, Service, kubectl


def plan(image):
    """(number, title, what runs)."""
    service = Service(image, mode="cluster")
    alone = standalone.alone(image)
    return [
        ("1", "installed as the report has it", lambda: steps.installed(service)),
        ("2", "real flights through the Service", lambda: steps.flights_sent(service)),
        ("3", "exact under faults", lambda: steps.disturbed(service)),
        ("3b", "bitactor chaos --kubernetes", lambda: steps.struck(service)),
        ("4", "autoscaling", lambda: steps.autoscaled(service)),
        ("4b", "validate_deployment.sh --load --kill", lambda: steps.validated_under_load(service)),
        ("5", "confined", lambda: steps.confined(service)),
        ("5b", "NATS over TLS with a password", lambda: secured.over_tls(image)),
        ("6", "standalone", lambda: standalone.standalone(alone)),
        ("7", "monitored", lambda: monitoring.monitored(alone)),
        ("6b", "standalone becomes replicas", lambda: standalone.migrated(alone)),
        ("8", "removed", lambda: steps.removed(service, alone)),
    ]


def machine():
    """Where it ran, for whoever reads the figures."""
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores of {model or platform.machine()}, Linux {platform.release()}"


def committed():
    """The commit that ran, and whether the tree was as committed; None where there is no repository."""
    said = [
        subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for command in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain"))
    ]
    return {"commit": said[0] or None, "changed": bool(said[1])}


def write(file, version, **figures):
    """The report, in a file; its name."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with open(ROOT / file, "w") as out:
        json.dump({"at": at, "machine": machine(), "kubernetes": version, **committed(), **figures}, out, indent=1)
    return file


def plant(image, version, given):
    """Plant faults; whether one was not found."""
    names = list(planted.PLANTS) if given.plant == "all" else given.plant.split(",")
    file = given.json or "build/k8s-planted.json"
    rows = (
        {row["plant"]: row for row in json.loads((ROOT / file).read_text())["rows"]} if (ROOT / file).exists() else {}
    )
    planted.cleared(wait=True)
    for name in names:
        one, at = planted.PLANTS[name], time.monotonic()
        print(f"\n{name}: step {one.step}: {one.what}", flush=True)
        found, said = planted.planted(name, image)
        print(f"  {'found' if found else 'NOT FOUND'}: {said[:1000]}", flush=True)
        row = {"plant": name, "step": one.step, "what": one.what, "found": found, "said": said[:1000]}
        rows[name] = row | {"seconds": round(time.monotonic() - at, 1), **committed()}
    planted.cleared(wait=False)
    missed = [name for name in names if not rows[name]["found"]]
    written = write(file, version, missed=missed, rows=[rows[name] for name in planted.PLANTS if name in rows])
    print(f"\n{len(names) - len(missed)} of {len(names)} were found; {written}")
    return bool(missed)


def main():
    """Run the steps; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="numbers of steps, with commas")
    parser.add_argument("--plant", default="", help="names of faults to plant, with commas; all; list")
    parser.add_argument("--json", default="")
    given = parser.parse_args()
    if given.plant == "list":
        for name, one in planted.PLANTS.items():
            print(f"{name:<12} step {one.step:<3} {one.what}")
        return False
    version = cluster.connect()
    begun = time.monotonic()
    image = cluster.image()
    print(f"Kubernetes {version}; image {image} ready after {time.monotonic() - begun:.0f} s", flush=True)
    if given.plant:
        return plant(image, version, given)
    rows, failed = [], []
    for number, title, step in plan(image):
        if given.only and number not in given.only.split(","):
            continue
        print(f"\n{number} {title}", flush=True)
        at = time.monotonic()
        try:
            for check, seen in step():
                result = "FAILED" if isinstance(seen, Bad) else "ok"
                rows.append({"step": number, "check": check, "result": result, "seen": seen})
                print(f"  {result:<6} {check}: {seen}", flush=True)
                if result != "ok" and number not in failed:
                    failed.append(number)
        except Exception as error:  # noqa: BLE001 (the other steps still run)
            if not isinstance(error, Failed):
                traceback.print_exc()
            if number not in failed:
                failed.append(number)
            rows.append({"step": number, "check": title, "result": "FAILED", "seen": str(error)})
            print(f"  FAIL  {error}", flush=True)
        rows.append({"step": number, "check": "seconds", "result": "", "seen": round(time.monotonic() - at, 1)})
        rows.append({"step": number, "check": "load", "result": "", "seen": round(os.getloadavg()[1], 1)})
    written = write(given.json or "build/k8s-e2e.json", version, failed=failed, rows=rows)
    print("\nstep  result  check")
    for row in rows:
        if row["result"]:
            print(f"{row['step']:>4}  {row['result']:<6}  {row['check']}: {row['seen']}")
    print(f"\n{'FAILED: steps ' + ', '.join(failed) if failed else 'all passed'}; {written}")
    print(kubectl("get", "namespaces", "-o", "name").replace("\n", " "))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
