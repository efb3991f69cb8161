"""A service without durability, for validate_deployment.sh to time: one pod, certificates and token in /tmp."""

import os
import socket
import subprocess
from pathlib import Path

PROGRAM = "/opt/bitactor/bin/bitactor"
HOME = Path("/tmp/serve")
APP = """
import bitactor as ba

app = ba.App("timed")
reading = app.kind("reading", 1, value="f8")


@app.actor(reading, state={"count": "u8"})
def readings(state, signal):
    state.count += 1
"""


def main():
    """Make what it needs, then be the service."""
    os.umask(0o077)
    HOME.mkdir(exist_ok=True)
    os.chdir(HOME)
    address = socket.gethostbyname(socket.gethostname())
    (HOME / "app.py").write_text(APP)
    subprocess.run([PROGRAM, "certs", "ca"], check=True)
    subprocess.run([PROGRAM, "certs", "server", address], check=True)
    made = subprocess.run([PROGRAM, "certs", "token", "/tmp/token"], check=True, capture_output=True, text=True)
    (HOME / "identities.toml").write_text(made.stdout)
    Path("/tmp/ca.pem").write_text((HOME / "certs/ca.pem").read_text())
    settings = {
        "BITACTOR_CACHE_DIR": "/tmp/cache",
        "BITACTOR_DATA_DIR": "/tmp/data",
        "BITACTOR_LOG__KIND": "none",
        "BITACTOR_INGEST__HOST": "0.0.0.0",
        "BITACTOR_TLS__CERT_FILE": "certs/server.pem",
        "BITACTOR_TLS__KEY_FILE": "certs/server.key",
        "BITACTOR_AUTH__FILE": "identities.toml",
    }
    os.execve(PROGRAM, [PROGRAM, "serve", "app.py"], {**os.environ, **settings})


if __name__ == "__main__":
    main()
