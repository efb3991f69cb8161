"""The ingest server that the settings ask for: certificates, identities, limits. Development ones on loopback."""

from pathlib import Path
from typing import TYPE_CHECKING

from bitactor.ingest import auth, certs, tls
from bitactor.ingest.limits import Limits
from bitactor.ingest.server import Server
from bitactor.ingest.watch import Watched

if TYPE_CHECKING:
    from bitactor.config import Settings
    from bitactor.ingest.admission import Admission

DEVELOPMENT = "dev"  # directory in data_dir: ca.pem, server.pem, token and more, made at the first start
TOKEN = "token"  # noqa: S105  (the file's name)


def make_server(settings: "Settings", admission: "Admission") -> Server:
    """Not started. OSError or ValueError: files that cannot be read, or do not fit together."""
    given = settings.limits
    return Server(
        admission,
        _identities(settings),
        tls=_tls(settings),
        host=settings.ingest.host,
        port=settings.ingest.port,
        limits=Limits(
            connections_max=given.connections_max,
            connections_per_peer_max=given.connections_per_peer_max,
            handshake_s=given.handshake_s,
            idle_s=given.idle_s,
            frame_s=given.frame_s,
            window_signals=given.window_signals,
            rate_signals_per_s=given.rate_signals_per_s,
            output_bytes_max=given.output_bytes_max,
        ),
    )


def development_directory(settings: "Settings") -> Path:
    """Where certificates and token for loopback are made."""
    return Path(settings.data_dir) / DEVELOPMENT


def _identities(settings: "Settings") -> "Watched[auth.Identities]":
    if settings.auth.file is not None:
        return auth.watched(settings.auth.file)
    file = development_directory(settings) / TOKEN
    return Watched((file,), lambda: auth.development(file))


def _tls(settings: "Settings") -> "Watched[tls.Tls] | None":
    if settings.ingest.plain_text_on_loopback:
        return None
    given = settings.tls
    cert_file, key_file = given.cert_file, given.key_file
    if cert_file is None or key_file is None:
        made = certs.development(development_directory(settings))
        cert_file, key_file = made.cert_file, made.key_file
    return tls.watched(tls.TlsFiles(cert_file, key_file, given.client_ca_file, given.client_required))
