"""Settings of the service: what there is to set, where each value came from, and what is wrong with it.

`load` reads flags, environment and TOML file; `Settings(...)` makes settings in code, for tests and for embedding.
"""

try:
    import pydantic as _pydantic  # noqa: F401
except ModuleNotFoundError as _error:
    raise ImportError("bitactor's service needs more packages: pip install 'bitactor[service]'") from _error

from bitactor.config.load import ConfigError as ConfigError
from bitactor.config.load import load as load
from bitactor.config.load import sources as sources
from bitactor.config.settings import Admin as Admin
from bitactor.config.settings import Auth as Auth
from bitactor.config.settings import Engine as Engine
from bitactor.config.settings import Ingest as Ingest
from bitactor.config.settings import Limits as Limits
from bitactor.config.settings import Log as Log
from bitactor.config.settings import Logging as Logging
from bitactor.config.settings import Nats as Nats
from bitactor.config.settings import Outputs as Outputs
from bitactor.config.settings import Settings as Settings
from bitactor.config.settings import Shutdown as Shutdown
from bitactor.config.settings import Snapshot as Snapshot
from bitactor.config.settings import Telemetry as Telemetry
from bitactor.config.settings import Tls as Tls
from bitactor.config.settings import is_loopback as is_loopback
