"""Which parts a campaign has, in their order. Loads them all."""

from bitactor.validation.campaign import Part


def chaos_parts() -> list[Part]:
    """The parts of `bitactor chaos`."""
    from bitactor.validation.chaos import clock, cluster, crashes, damage, disk, expiry, network, pauses

    return [module.PART for module in (crashes, disk, network, pauses, clock, expiry, damage, cluster)]


def kubernetes_parts() -> list[Part]:
    """The parts of `bitactor chaos --kubernetes`."""
    from bitactor.validation.kubernetes import part

    return [part.PART]


def parts_of(*, against_target: bool) -> list[Part]:
    """The parts of `bitactor validate`. Against a target only what a client can measure."""
    from bitactor.validation.parts import (
        adversarial,
        byte_order,
        coverage,
        deployment,
        exactly_once,
        kills,
        memory,
        overload,
        power_loss,
        races,
        rotation,
        saturation,
        sigterm,
        source_tests,
        target,
        throughput,
    )

    if against_target:
        return [target.PART]
    modules = (
        *(source_tests, throughput, exactly_once, memory, saturation, byte_order, races),
        *(kills, sigterm, rotation, overload, adversarial, power_loss, deployment, coverage),
    )
    return [module.PART for module in modules]
