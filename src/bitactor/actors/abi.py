"""Numbers of the actor ABI (core/include/bitactor/actor.h) that both back ends and the App share."""

from typing import Final

HANDLER: Final = "bitactor_handler"
DONE, EMIT_FULL, RAISED = 0, 1, 2
TOO_MANY_EMITS: Final = 0xFFFFFFFE  # the error code of a signal whose emits do not fit an empty buffer
FAILED: Final = 0xFFFFFFFF  # the engine's: a handler that returned without a status
EMITS_MIN: Final = 4096
