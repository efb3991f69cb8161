"""The served app, described for the log."""

import json
from typing import Any, Final

from bitactor.actors import App
from bitactor.schema import fingerprint
from bitactor.signals import PARTITIONS, check_lane

APP_FORMAT: Final = 1
STEP_SIGNALS: Final = 8192


def reads_wall_time(app: App) -> bool:
    """Whether wall time moves something in it, so that a log without signals still needs heartbeats."""
    return any(actor.idle_ns or actor.reads_wall for actor in app.actors)


def describe(app: App, lanes: int = 1) -> dict[str, Any]:
    """What an app record says of the app: everything that results depend on, and the formats around it.

    lanes: into how many the state is split; ValueError when 64 partitions do not split so.
    """
    check_lane(0, lanes)
    said: dict[str, Any] = {
        "format": APP_FORMAT,
        "name": app.name,
        "app": app.fingerprint,
        "kinds": [[kind.name, kind.number, kind.value, kind.aux] for kind in app.kinds],
        "actors": [
            {
                "name": actor.name,
                "fingerprint": actor.fingerprint,
                "kinds": [kind.number for kind in actor.kinds],
                "emits": [kind.number for kind in actor.emits],
                "fields": [[f.name, f.type, f.count, f.offset] for f in actor.layout.fields],
                "stride": actor.layout.stride,
                "init": actor.layout.init.hex(),
                "partition_keys_max": actor.partition_keys_max,
                "idle_ns": actor.idle_ns,
            }
            for actor in app.actors
        ],
        "lanes": lanes,
        "partitions": PARTITIONS,
        "step_signals": STEP_SIGNALS,
    }
    said["fingerprint"] = fingerprint("app record", canonical(said))
    return said


def canonical(said: dict[str, Any]) -> str:
    """JSON in one spelling: sorted keys, no blanks."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
