"""The work of `bitactor cluster import`: lane by lane from a data directory into NATS."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from bitactor.actors import App
    from bitactor.config.settings import Settings


async def run(settings: "Settings", app: "App", source: Path) -> tuple[int, int]:
    """States and producers that were taken over. RecoveryError, StateError, LogError say why not."""
    from bitactor.cluster import adopt
    from bitactor.cluster.agreement import agree_on_lanes
    from bitactor.cluster.lane import LaneCore
    from bitactor.cluster.names import Names
    from bitactor.log import nats
    from bitactor.log.nats_sync import SyncWatch

    state, tables = adopt.read(source, app, lambda text: typer.echo(f"bitactor: {text}", err=True))
    client = await nats.connect(settings.nats, name=f"bitactor {app.name} import")
    sync = await SyncWatch.open(client, settings.nats.monitors)
    keys, turn = 0, asyncio.Semaphore()
    try:
        streams = Names(settings.nats.stream, app.name).streams
        await agree_on_lanes(client, streams, settings.cluster.lanes, replicas=settings.nats.replicas)
        for lane in range(settings.cluster.lanes):
            core = LaneCore(
                settings, app, typer.echo, client=client, lane=lane, sync=sync, send=_nowhere, turn=turn
            )  # fmt: skip
            keys += await adopt.into_lane(core, state, tables)
    finally:
        await sync.close()
        await client.close()
    return keys, len(tables.producers)


async def _nowhere(lane: int, items: tuple[bytes, ...]) -> None:
    """Nothing is emitted here."""
