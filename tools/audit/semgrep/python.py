"""What the rules of python.yaml must find (ruleid) and must let pass (ok); read by semgrep, never run."""

# ruleid: code-from-data
import pickle
import asyncio
import hmac
import json
import logging
import os
import random
import secrets
import ssl
import subprocess
import tarfile
import tempfile
import urllib.request

import numpy as np
import yaml

log = logging.getLogger()


def data(file, text):
    # ruleid: code-from-data
    eval(text)
    # ruleid: code-from-data
    exec(text)
    # ruleid: code-from-data
    np.load(file, allow_pickle=True)
    # ok: code-from-data
    np.load(file, allow_pickle=False)
    # ruleid: code-from-data
    yaml.load(text)
    # ok: code-from-data
    yaml.safe_load(text)
    # ok: code-from-data
    json.loads(text)


def programs(name):
    # ruleid: shell
    subprocess.run("ls " + name, shell=True)
    # ruleid: shell
    os.system("ls " + name)
    # ok: shell
    subprocess.run(["ls", name], check=True)


async def program(name):
    # ruleid: shell
    await asyncio.create_subprocess_shell("ls " + name)
    # ok: shell
    await asyncio.create_subprocess_exec("ls", name)


def default():
    # ruleid: tls-before-1-3
    context = ssl.create_default_context()
    return context


def older():
    # ruleid: tls-before-1-3
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def given_away():
    # ruleid: tls-before-1-3
    urllib.request.urlopen("https://a", context=ssl.create_default_context(), timeout=1)


def newest():
    # ok: tls-before-1-3
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context


def new(file):
    # ok: tls-before-1-3
    context = ssl.create_default_context(cafile=file)
    context.check_hostname = True
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def peers(context, get):
    # ruleid: tls-unverified
    context.check_hostname = False
    # ruleid: tls-unverified
    context.verify_mode = ssl.CERT_NONE
    # ruleid: tls-unverified
    get("https://a", verify=False)
    # ok: tls-unverified
    context.verify_mode = ssl.CERT_REQUIRED


def temporary():
    # ruleid: temporary-name
    tempfile.mktemp()
    # ok: temporary-name
    tempfile.mkstemp()


def chance(self, sign):
    # ruleid: secret-by-chance
    token = random.randbytes(32)
    # ruleid: secret-by-chance
    self.session_id = str(random.random())
    # ok: secret-by-chance
    token = secrets.token_bytes(32)
    # ok: secret-by-chance
    pause = random.uniform(0.5, 1)
    return token, pause


def compared(token, known, kind):
    # ruleid: secret-compared-in-steps
    if token == known:
        return True
    # ok: secret-compared-in-steps
    if token == "":
        return False
    # ok: secret-compared-in-steps
    if kind == known:
        return False
    # ok: secret-compared-in-steps
    return hmac.compare_digest(token, known)


def refused(length, ingest):
    # ruleid: input-by-assert
    assert length < 10
    # ruleid: input-by-assert
    assert length >= 0, "short"
    # ok: input-by-assert
    assert ingest is not None
    # ok: input-by-assert
    assert isinstance(ingest, dict)
    if length < 1:
        # ok: input-by-assert
        raise ValueError("short")


def told(token, token_file, settings):
    # ruleid: secret-told
    log.info("from %s", token)
    # ruleid: secret-told
    print(f"token {token}")
    # ruleid: secret-told
    raise ValueError(f"bad token {settings.token}")
    # ok: secret-told
    log.info("from %s", token_file)


def answers(url):
    # ruleid: answer-without-end
    urllib.request.urlopen(url)
    # ok: answer-without-end
    urllib.request.urlopen(url, timeout=3)


def archives(file, folder):
    with tarfile.open(file) as tar:
        # ruleid: archive-unpacked-anywhere
        tar.extractall(folder)
        # ok: archive-unpacked-anywhere
        tar.extractall(folder, filter="data")
