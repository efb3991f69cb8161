"""Which parts a campaign has, in their order. Loads them all."""

from bitactor.validation.campaign import Part


def parts_of(profile: str, *, against_target: bool) -> list[Part]:
    """The parts of `bitactor validate`. Against a target only what a client can measure."""
    del profile, against_target
    from bitactor.validation.parts import (
        byte_order,
        exactly_once,
        kills,
        memory,
        overload,
        rotation,
        saturation,
        sigterm,
        throughput,
    )

    return [
        throughput.PART,
        exactly_once.PART,
        memory.PART,
        saturation.PART,
        byte_order.PART,
        kills.PART,
        sigterm.PART,
        rotation.PART,
        overload.PART,
    ]
