"""`bitactor certs` writes what a server and its clients then use, and overwrites nothing."""

import hashlib
import ssl
import stat

import pytest

from bitactor.cli import run as frame
from bitactor.ingest import auth
from bitactor.ingest.tls import TlsFiles
from bitactor.protocol.messages import Welcome
from tests.ingest_tools import Peer, Serving, client_context


@pytest.fixture
def bitactor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = frame.main(list(arguments))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def test_certificates_of_the_command_line_serve_and_identify(bitactor, tmp_path):
    assert bitactor("certs", "ca")[:2] == (0, "wrote certs/ca.pem\nwrote certs/ca.key\n")
    assert bitactor("certs", "server", "localhost", "127.0.0.1")[0] == 0
    status, out, _ = bitactor("certs", "client", "collector-1", "--uri", "spiffe://example/c1")
    assert status == 0 and 'in the auth file:  certificate = "collector-1"' in out
    directory = tmp_path / "certs"
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in directory.glob("*.key"))
    files = TlsFiles(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    with Serving(files=files) as running, Peer(running.port, client_context(directory, "collector-1")) as peer:
        assert isinstance(peer.hello(token=b""), Welcome)


def test_a_token_of_the_command_line_is_the_one_that_the_auth_file_knows(bitactor, tmp_path):
    status, out, _ = bitactor("certs", "token", "token")
    assert status == 0
    (tmp_path / "identities.toml").write_text(out)
    secret = auth.read_token(tmp_path / "token")
    assert auth.load(tmp_path / "identities.toml").by_token(secret).name == "token"
    assert hashlib.sha256(secret).hexdigest() in out and secret.decode() not in out
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("before", "arguments", "status", "message"),
    [
        ([], ["server", "localhost"], 1, "certs has no CA: bitactor certs ca --dir certs"),
        ([["ca"]], ["ca"], 1, "ca.key exists; remove it and all that it signed"),
        ([["ca"], ["server", "a"]], ["server", "b"], 1, "server.key exists and is left alone"),
        ([["ca"]], ["client", "../x"], 2, "is no file name"),
        ([["token", "t"]], ["token", "t"], 1, "t exists and is left alone"),
    ],
)
def test_nothing_is_overwritten_and_what_is_missing_is_named(bitactor, before, arguments, status, message):
    for made in before:
        assert bitactor("certs", *made)[0] == 0
    got, _, errors = bitactor("certs", *arguments)
    assert (got, errors.count("\n")) == (status, 1) and message in errors, errors


def test_a_client_certificate_may_be_known_by_its_uri(bitactor, tmp_path):
    bitactor("certs", "ca")
    bitactor("certs", "client", "c", "--uri", "spiffe://example/c1", "--days", "1")
    context = ssl.create_default_context(cafile="certs/ca.pem")
    context.load_cert_chain("certs/c.pem", "certs/c.key")
    text = ssl._ssl._test_decode_cert(str(tmp_path / "certs/c.pem"))
    assert auth.certificate_names(text) == ["c", "URI:spiffe://example/c1"]
