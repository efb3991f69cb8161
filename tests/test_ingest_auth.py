"""Identities and certificates as files: what is read, what is refused, and that nothing secret is shown."""

import hashlib
import ssl
import stat
import subprocess
import sys

import pytest

from bitactor.ingest import auth, certs, tls
from bitactor.ingest.watch import Watched
from bitactor.protocol.frames import kind_set

TOKEN = b"correct-horse-battery-staple"
DIGEST = hashlib.sha256(TOKEN).hexdigest()
FILE = f"""
[[identity]]
name = "collector"
token_sha256 = "{DIGEST}"
kinds = ["trade"]
producers = ["eu-*", "us-1"]

[[identity]]
name = "dashboard"
certificate = "URI:spiffe://example/dashboard"
read = true
"""


def written(tmp_path, text):
    file = tmp_path / "identities.toml"
    file.write_text(text)
    return file


def test_identities_are_told_apart_by_token_and_by_certificate(tmp_path):
    known = auth.load(written(tmp_path, FILE))
    collector = known.by_token(TOKEN)
    assert (collector.name, collector.read, collector.admin) == ("collector", False, False)
    assert known.by_token(TOKEN + b"x") is None and known.by_token(b"") is None
    subject = {"subject": ((("commonName", "whoever"),),), "subjectAltName": (("URI", "spiffe://example/dashboard"),)}
    assert known.by_certificate(subject).name == "dashboard"
    assert known.by_certificate({"subject": ((("commonName", "URI:spiffe://example/dashboard"),),)}) is None
    assert known.by_certificate(None) is None and known.by_certificate({}) is None


def test_an_identity_may_have_two_tokens_while_one_replaces_the_other(tmp_path):
    other = hashlib.sha256(b"the next token of the collector").hexdigest()
    file = written(tmp_path, FILE.replace(f'"{DIGEST}"', f'["{DIGEST}", "{other}"]'))
    watched = auth.watched(file)
    assert watched.value.by_token(TOKEN) is watched.value.by_token(b"the next token of the collector")
    file.write_text(FILE.replace(DIGEST, other))
    assert watched.changed()
    watched.reload()
    assert watched.value.by_token(TOKEN) is None
    file.write_text("broken")
    before = watched.value
    with pytest.raises(auth.AuthError):
        watched.reload()
    assert watched.value is before and not watched.changed()


def test_an_identity_may_send_only_its_kinds_as_its_producers(tmp_path):
    collector, dashboard = auth.load(written(tmp_path, FILE))._all
    declared = {"trade": 1, "quote": 7}
    assert collector.kind_set(declared) == kind_set([1])
    assert dashboard.kind_set(declared) == kind_set([])
    assert auth.Identity("all", frozenset({"*"})).kind_set(declared) == kind_set([1, 7])
    assert collector.may_produce("eu-west-3") and collector.may_produce("us-1")
    assert not collector.may_produce("us-12") and not collector.may_produce("EU-1")
    assert not dashboard.may_produce("eu-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[identity]\n", r"identities.toml: .*line 1"),
        ("x = 1\n", r"unknown 'x'; it holds \[\[identity\]\] tables and nothing else"),
        ("identity = 3\n", r"holds \[\[identity\]\] tables"),
        ("[[identity]]\nread = true\n", "identity 1 needs a name"),
        ("[[identity]]\nname = 'a'\n", "identity 'a' needs token_sha256 or certificate"),
        ("[[identity]]\nname = 'a'\ntoken = 'x'\n", "identity 'a': unknown token; known are admin"),
        ("[[identity]]\nname = 'a'\ntoken_sha256 = 'secret-in-clear'\n", "64 hex digits: the SHA-256"),
        ("[[identity]]\nname = 'a'\ncertificate = ''\n", "certificate is a common name"),
        ("[[identity]]\nname = 'a'\ncertificate = 'c'\nkinds = '*'\n", r"kinds is a list of texts, such as \['\*'\]"),
        ("[[identity]]\nname = 'a'\ncertificate = 'c'\nread = 'yes'\n", "read is true or false"),
        (FILE + FILE.replace("collector", "other"), "two identities have the same name 'dashboard'"),
        (FILE + f"[[identity]]\nname = 'b'\ntoken_sha256 = '{DIGEST}'\n", "the same token_sha256; each needs"),
        (FILE + "[[identity]]\nname = 'b'\ncertificate = 'URI:spiffe://example/dashboard'\n", "the same certificate"),
    ],
)
def test_a_wrong_identities_file_is_refused_with_place_and_fix(tmp_path, text, message):
    with pytest.raises(auth.AuthError, match=message) as caught:
        auth.load(written(tmp_path, text))
    assert DIGEST not in str(caught.value) and "secret-in-clear" not in str(caught.value)


def test_tokens_and_their_hashes_are_in_no_repr(tmp_path):
    known = auth.load(written(tmp_path, FILE))
    shown = repr(known) + repr(known.by_token(TOKEN)) + repr(known._all)
    assert "collector" in shown
    assert DIGEST not in shown and repr(bytes.fromhex(DIGEST)) not in shown and TOKEN.decode() not in shown


def test_a_development_token_is_made_once_for_its_owner_only(tmp_path):
    file = tmp_path / "dev" / "token"
    known = auth.development(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = auth.read_token(file)
    everything = known.by_token(token)
    assert everything.may_produce("anything") and everything.read and everything.admin
    assert auth.development(file).by_token(token) == everything
    other = tmp_path / "dev" / "other"
    assert not Watched((other,), lambda: auth.development(other)).changed()  # it was made, which is no change
    file.write_text("short\n")
    with pytest.raises(auth.AuthError, match="holds 5 characters"):
        auth.development(file)


def test_certificates_are_ec_signed_by_the_ca_and_their_keys_private(tmp_path):
    certs.make_ca(tmp_path)
    server = certs.make_server(tmp_path, ["example.test", "10.0.0.1"])
    client = certs.make_client(tmp_path, "collector-1", uris=["spiffe://example/c1"])
    for files in (server, client):
        assert stat.S_IMODE(files.key_file.stat().st_mode) == 0o600
        verified = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", files.cert_file],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.returncode == 0, verified.stderr
    text = subprocess.run(
        ["openssl", "x509", "-in", server.cert_file, "-noout", "-text"], check=True, capture_output=True, text=True
    )
    assert "prime256v1" in text.stdout and "DNS:example.test, IP Address:10.0.0.1" in text.stdout
    assert "TLS Web Server Authentication" in text.stdout
    with pytest.raises(FileExistsError):
        certs.make_ca(tmp_path)
    with pytest.raises(ValueError, match="is no file name"):
        certs.make_client(tmp_path, "../evil")
    with pytest.raises(ValueError, match="at least one host name"):
        certs.make_server(tmp_path, [])


def test_development_certificates_are_kept_until_they_are_about_to_expire(tmp_path):
    first = certs.development(tmp_path)
    content = first.cert_file.read_bytes()
    assert certs.development(tmp_path).cert_file.read_bytes() == content
    first.key_file.unlink()
    first.cert_file.unlink()
    certs.make_server(tmp_path, days=3)
    assert certs.expires(certs.development(tmp_path).cert_file) > certs.expires(tmp_path / "ca.pem").replace(
        year=certs.expires(tmp_path / "ca.pem").year - 9
    )


def test_a_server_context_speaks_tls_1_3_alone_without_tickets(tmp_path):
    files = certs.development(tmp_path)
    context = tls.server_context(tls.TlsFiles(files.cert_file, files.key_file))
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0 and context.verify_mode == ssl.CERT_NONE
    asks = tls.server_context(tls.TlsFiles(files.cert_file, files.key_file, tmp_path / "ca.pem"))
    assert asks.verify_mode == ssl.CERT_OPTIONAL
    needs = tls.server_context(tls.TlsFiles(files.cert_file, files.key_file, tmp_path / "ca.pem", client_required=True))
    assert needs.verify_mode == ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path):
    files = certs.development(tmp_path)
    other = certs.make_client(tmp_path, "other")
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", files.key_file, "-out", encrypted, "-passout", "pass:x"], check=True
    )
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for broken, message in [
        (tls.TlsFiles(tmp_path / "none.pem", files.key_file), "none.pem.*No such file|no such file"),
        (tls.TlsFiles(files.cert_file, other.key_file), "KEY_VALUES_MISMATCH"),
        (tls.TlsFiles(garbage, files.key_file), "cannot use .*garbage.pem"),
        (tls.TlsFiles(files.cert_file, encrypted), "the key is encrypted"),
        (tls.TlsFiles(files.cert_file, files.key_file, garbage), "garbage.pem as the clients' CA"),
        (tls.TlsFiles(files.cert_file, files.key_file, client_required=True), "tls.client_ca_file names the CA"),
    ]:
        with pytest.raises(tls.TlsFilesError, match=message):
            tls.server_context(broken)


def test_a_bad_new_file_keeps_the_context_before_and_a_good_one_replaces_it(tmp_path):
    files = certs.development(tmp_path)
    certificates = tls.watched(tls.TlsFiles(files.cert_file, files.key_file))
    before = certificates.value
    assert not certificates.changed()
    good = files.cert_file.read_bytes()
    files.cert_file.write_text("half a certific")
    assert certificates.changed()
    with pytest.raises(tls.TlsFilesError):
        certificates.reload()
    assert certificates.value is before
    assert not certificates.changed()  # said once
    files.cert_file.unlink()
    files.key_file.unlink()
    certs.make_server(tmp_path, days=30)
    assert certificates.changed() and files.cert_file.read_bytes() != good
    certificates.reload()
    assert certificates.value.context is not before.context and certificates.value.expires < before.expires


def test_files_swapped_through_a_symbolic_link_are_noticed(tmp_path):
    for version in ("a", "b"):
        certs.development(tmp_path / version)
    (tmp_path / "live").symlink_to(tmp_path / "a")
    certificates = tls.watched(tls.TlsFiles(tmp_path / "live/server.pem", tmp_path / "live/server.key"))
    (tmp_path / "next").symlink_to(tmp_path / "b")
    (tmp_path / "next").replace(tmp_path / "live")
    assert certificates.changed()
    certificates.reload()
    assert not certificates.changed()


def test_secrets_are_written_for_their_owner_whatever_the_umask(tmp_path):
    script = (
        "import os, sys, pathlib; os.umask(0); from bitactor.ingest import certs;"
        "certs.development(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "d"], check=True)
    assert stat.S_IMODE((tmp_path / "d" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
