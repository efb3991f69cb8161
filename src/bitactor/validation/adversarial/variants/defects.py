"""All defects, registered: DEFECTS, by name."""

from bitactor.validation.adversarial.variants import rest, wire
from bitactor.validation.adversarial.variants.plant import DEFECTS

__all__ = ["DEFECTS", "rest", "wire"]
