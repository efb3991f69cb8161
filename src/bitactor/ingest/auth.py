"""Who may do what: identities out of a TOML file, told apart by token or client certificate.

    [[identity]]
    name = "collector"
    token_sha256 = "9f86d0…"              # in hex, or a list of them; or: certificate = "collector-1"
    kinds = ["trade", "quote"]            # or ["*"]; default: none
    producers = ["eu-*"]                  # globs over producer names; default: none
    read = false                          # outputs and queries
    admin = false                         # the admin interface

`certificate` names the subject of a verified client certificate: its common name, or "DNS:…" or "URI:…" for an
alternative name. Neither tokens nor their hashes appear in a repr, a log line or an error. Any thread; immutable.
"""

import hashlib
import hmac
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from bitactor.ingest.watch import Watched
from bitactor.protocol.frames import kind_set

TOKEN_CHARACTERS_MIN: Final = 20  # what new_token makes has 43
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_KEYS: Final = {"name", "token_sha256", "certificate", "kinds", "producers", "read", "admin"}


class AuthError(ValueError):
    """An identities file that cannot be used; says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody known. kinds, producers: names and globs, "*" for all."""

    name: str
    kinds: frozenset[str] = frozenset()
    producers: tuple[str, ...] = ()
    read: bool = False
    admin: bool = False
    tokens_sha256: tuple[bytes, ...] = field(default=(), repr=False)
    certificate: str | None = None

    def may_produce(self, producer: str) -> bool:
        """Whether this identity may send as the producer of that name."""
        return any(fnmatchcase(producer, glob) for glob in self.producers)

    def kind_set(self, declared: Mapping[str, int]) -> bytes:
        """The set of declared kinds that it may send, as frames are checked against: 8,192 bytes, a bit a kind."""
        return kind_set(number for name, number in declared.items() if "*" in self.kinds or name in self.kinds)


class Identities:
    """All who are known, with at most one identity a token and a certificate."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        """Raise AuthError when a name, a token or a certificate occurs twice."""
        self._all: Final = tuple(identities)
        for what, values in (
            ("name", [one.name for one in self._all]),
            ("token_sha256", [digest for one in self._all for digest in one.tokens_sha256]),
            ("certificate", [one.certificate for one in self._all if one.certificate is not None]),
        ):
            for at, value in enumerate(values):
                if value in values[:at]:
                    which = f" {value!r}" if what != "token_sha256" else ""
                    raise AuthError(f"two identities have the same {what}{which}; each needs its own")

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._all)

    def __repr__(self) -> str:
        return f"<Identities: {', '.join(one.name for one in self._all)}>"

    def by_token(self, token: bytes) -> Identity | None:
        """The identity with that token. The time it takes does not depend on which one, nor on how much agrees."""
        return self.by_digest(hashlib.sha256(token).digest())

    def by_digest(self, digest: bytes) -> Identity | None:
        """The identity with the token of that SHA-256."""
        found = None
        for one in self._all:
            for known in one.tokens_sha256:
                if hmac.compare_digest(known, digest):
                    found = one
        return found

    def by_certificate(self, certificate: Mapping[str, Any] | None) -> Identity | None:
        """The identity of a verified certificate, as ssl's getpeercert gives it; None: none, or nobody's."""
        names = certificate_names(certificate or {})
        for one in self._all:
            if one.certificate is not None and one.certificate in names:
                return one
        return None


def certificate_names(certificate: Mapping[str, Any]) -> list[str]:
    """What a certificate calls its owner: common names as they are, alternatives as "DNS:…" and "URI:…"."""
    common = [value for part in certificate.get("subject", ()) for what, value in part if what == "commonName"]
    # A common name that looks like an alternative would pass for one.
    common = [value for value in common if not value.startswith(("DNS:", "URI:"))]
    return common + [
        f"{what}:{value}" for what, value in certificate.get("subjectAltName", ()) if what in {"DNS", "URI"}
    ]


def load(file: Path) -> Identities:
    """Read an identities file. AuthError: not TOML, a wrong key or value, a duplicate."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuthError(f"{file}: {error}") from None
    rows = document.pop("identity", None)
    if document or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        wrong = f"unknown {', '.join(map(repr, document))}" if document else "no [[identity]] in it"
        raise AuthError(f"{file}: {wrong}; it holds [[identity]] tables and nothing else (`bitactor certs token`)")
    try:
        return Identities(_identity(row, at) for at, row in enumerate(rows, 1))
    except AuthError as error:
        raise AuthError(f"{file}: {error}") from None


def watched(file: Path) -> Watched[Identities]:
    """The newest usable identities of the file. AuthError now, and later of `reload`; OSError when it is not there."""
    return Watched((file,), lambda: load(file))


def _identity(row: dict[str, Any], at: int) -> Identity:
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise AuthError(f"identity {at} needs a name, a text")
    if unknown := row.keys() - _KEYS:
        raise AuthError(
            f"identity {name!r}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KEYS))}"
        )
    digests, certificate = row.get("token_sha256", []), row.get("certificate")
    digests = digests if isinstance(digests, list) else [digests]
    if not digests and certificate is None:
        raise AuthError(f"identity {name!r} needs token_sha256 or certificate")
    if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in digests):
        raise AuthError(f"identity {name!r}: token_sha256 is 64 hex digits: the SHA-256 of the token, not the token")
    if certificate is not None and not (isinstance(certificate, str) and certificate):
        raise AuthError(f"identity {name!r}: certificate is a common name, or DNS:… or URI:…")
    return Identity(
        name=name,
        kinds=frozenset(_texts(row, "kinds", name)),
        producers=tuple(_texts(row, "producers", name)),
        read=_flag(row, "read", name),
        admin=_flag(row, "admin", name),
        tokens_sha256=tuple(map(bytes.fromhex, digests)),
        certificate=certificate,
    )


def _texts(row: dict[str, Any], key: str, name: str) -> list[str]:
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise AuthError(f"identity {name!r}: {key} is a list of texts, such as ['*']")
    return value


def _flag(row: dict[str, Any], key: str, name: str) -> bool:
    value = row.get(key, False)
    if not isinstance(value, bool):
        raise AuthError(f"identity {name!r}: {key} is true or false")
    return value


def new_token() -> str:
    """A token of 256 random bits, 43 characters that are safe in URLs and headers."""
    return secrets.token_urlsafe(32)


def read_token(file: Path) -> bytes:
    """The token that a file holds, without blanks around it. AuthError: empty, or too short to be one."""
    token = file.read_bytes().strip()
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise AuthError(f"{file} holds {len(token)} characters: a token has {TOKEN_CHARACTERS_MIN} or more")
    return token


def development(token_file: Path, name: str = "development") -> Identities:
    """One identity that may do everything, with the token in `token_file`, which is made (0600) if absent."""
    if not token_file.exists():
        token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_secret(token_file, new_token().encode() + b"\n")
    digest = hashlib.sha256(read_token(token_file)).digest()
    everything = frozenset({"*"})
    return Identities([Identity(name, everything, ("*",), read=True, admin=True, tokens_sha256=(digest,))])


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read. FileExistsError: it exists and is left alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
