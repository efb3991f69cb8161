"""What a peer may use, and what was counted of it. Loop thread; figures may be read from any thread."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds for connections, of which each is checked before anything is allocated for what it bounds.

    handshake_s: from the connection to a whole hello, TLS included. frame_s: from a message's first byte to its last,
    and how long a peer may leave its output unread. idle_s: without a byte. rate_signals_per_s: an identity's; 0: any.
    window_signals: how far a producer may be ahead of its acks; at least a frame. output_bytes_max: not yet sent, a
    connection; above it nothing more is read from the peer.
    """

    connections_max: int = 1024
    connections_per_peer_max: int = 256
    handshake_s: float = 10
    idle_s: float = 120
    frame_s: float = 30
    window_signals: int = 1 << 20
    rate_signals_per_s: float = 0
    output_bytes_max: int = 4 << 20


@dataclass(slots=True)
class Counters:
    """Of one server, since it was made. connections, authenticated, receive_bytes: now.

    refused: by the name of the error code, or of the handshake's failure. frames, signals: admitted; signals counts
    new ones only. bytes: received, decrypted. receive_bytes: allocated for receiving. paused: connections not read
    just now, by what they wait for. handshakes: TLS ones that succeeded.
    """

    connections: int = 0
    connections_total: int = 0
    authenticated: int = 0
    handshakes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    signals: int = 0
    messages: int = 0
    bytes: int = 0
    acks: int = 0
    receive_bytes: int = 0
    paused: Counter[str] = field(default_factory=Counter)
    reloads: int = 0
    reload_failures: int = 0


class Bucket:
    """Signals a second, with a second's worth of them at once; the last frame may run into debt."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._free_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until something may be taken; 0 or less: now."""
        return self._free_at - now

    def take(self, count: int, now: float) -> None:
        """Take so many, whatever the delay."""
        self._free_at = max(self._free_at, now - 1.0) + count / self.rate


def peer_of(address: object) -> str:
    """What counts as one peer: an IPv4 address, or the /64 network of an IPv6 address; "" without an address."""
    if not isinstance(address, tuple) or not address:
        return ""
    parsed = ip_address(address[0].partition("%")[0])
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
