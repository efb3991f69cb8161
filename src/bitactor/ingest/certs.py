"""Development certificates: a CA, and server and client certificates that it signs. EC P-256; keys have mode 0600.

For machines of one team and for tests: there is no revocation and no key ceremony. Files of a directory:
ca.pem, ca.key; <name>.pem, <name>.key. Functions of any thread; they write files and return their paths.
"""

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bitactor.ingest.auth import write_secret

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 397  # what browsers and platforms accept at most
BACKDATED: Final = dt.timedelta(minutes=5)  # clocks differ
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its private key were written (PEM)."""

    cert_file: Path
    key_file: Path


def make_ca(directory: Path, *, common_name: str = "BitActor development CA", days: int = CA_DAYS) -> CertificateFiles:
    """Write a new CA, ca.pem and ca.key. FileExistsError: there is one already; it is left alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(name, name, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _write(directory, "ca", builder.sign(key, hashes.SHA256()), key)


def make_server(
    directory: Path, names: Sequence[str] = LOOPBACK_NAMES, *, file: str = "server", days: int = LEAF_DAYS
) -> CertificateFiles:
    """Write a server certificate for host names and IP addresses, signed by the directory's CA.

    The first name is the common name. ValueError: no names. FileNotFoundError: no CA; make_ca makes one.
    FileExistsError: the key is there already; remove it to make another.
    """
    if not names:
        raise ValueError("a server certificate needs at least one host name or IP address")
    return _leaf(
        directory, file, names[0], [_alternative(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, days
    )


def make_client(
    directory: Path, name: str, *, uris: Iterable[str] = (), file: str | None = None, days: int = LEAF_DAYS
) -> CertificateFiles:
    """Write a client certificate with that common name (an identity's `certificate`) and, if given, URIs.

    file: name of the files, else `name`. Errors as make_server.
    """
    return _leaf(
        directory,
        file or name,
        name,
        [x509.UniformResourceIdentifier(uri) for uri in uris],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        days,
    )


def development(directory: Path) -> CertificateFiles:
    """The server certificate for the loopback names under `directory`; CA and certificate are made if absent.

    One that expires within a week is made anew.
    """
    if not (directory / "ca.key").exists():
        make_ca(directory)
    files = CertificateFiles(directory / "server.pem", directory / "server.key")
    if files.key_file.exists() and files.cert_file.exists():
        if expires(files.cert_file) > dt.datetime.now(dt.UTC) + dt.timedelta(days=7):
            return files
        files.key_file.unlink()
        files.cert_file.unlink()
    return make_server(directory)


def expires(cert_file: Path) -> dt.datetime:
    """When the first of the file's certificates (PEM) stops being valid, in UTC. ValueError: it holds none."""
    return min(cert.not_valid_after_utc for cert in x509.load_pem_x509_certificates(cert_file.read_bytes()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED if days > 0 else now + dt.timedelta(days=days - 1))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _leaf(
    directory: Path,
    file: str,
    common_name: str,
    alternatives: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    days: int,
) -> CertificateFiles:
    ca = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{directory / 'ca.key'} is not an EC key; bitactor certs makes P-256 ones")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, ca.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _write(directory, file, builder.sign(ca_key, hashes.SHA256()), key)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(directory: Path, file: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> CertificateFiles:
    if not _FILE_NAME.fullmatch(file):
        raise ValueError(f"{file!r} is no file name: letters, digits, dots, dashes; give one with file=")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = CertificateFiles(directory / f"{file}.pem", directory / f"{file}.key")
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(files.key_file, secret)
    files.cert_file.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    return files
