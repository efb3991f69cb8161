"""Operator, account and user of NATS as JSON Web Tokens, signed here, and the credentials file of such a user."""

import base64
import json
import time

import nkeys

_LIMITED = "subs data payload imports exports conn leaf mem_storage streams consumer"
LIMITS = dict.fromkeys(_LIMITED.split(), -1)
DAYS_S = 86_400


def key(number, prefix):
    """A key pair that is the same each time."""
    return nkeys.from_seed(nkeys.encode_seed(bytes([number]) * 32, prefix))


def _encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(signer, subject, kind, *, name, expires_s=DAYS_S, **claims):
    """A token of that kind (operator, account, user) about subject, signed by signer."""
    now = int(time.time())
    body = {
        "jti": f"{kind}-{name}", "iat": now, "exp": now + expires_s, "iss": signer.public_key.decode(), "name": name,
        "sub": subject.public_key.decode(), "nats": {**claims, "type": kind, "version": 2},
    }  # fmt: skip
    parts = [_encoded(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)]
    text = b".".join(parts)
    return (text + b"." + _encoded(signer.sign(text))).decode()


class Operator:
    """An operator with an account that has JetStream and one of the system: `settings` for NatsServers."""

    def __init__(self, disk_storage=-1):
        self.key = key(1, nkeys.PREFIX_BYTE_OPERATOR)
        self.account, self.system = (key(number, nkeys.PREFIX_BYTE_ACCOUNT) for number in (2, 3))
        accounts = {}
        for one, name, disk in ((self.account, "APP", disk_storage), (self.system, "SYS", 0)):
            limits = (
                {**LIMITS, "disk_storage": disk}
                if disk
                else {n: LIMITS[n] for n in ("subs", "data", "payload", "conn")}
            )
            accounts[one.public_key.decode()] = token(self.key, one, "account", name=name, limits=limits)
        self.settings = {
            "operator": token(self.key, self.key, "operator", name="O"),
            "resolver": "MEMORY",
            "resolver_preload": accounts,
            "system_account": self.system.public_key.decode(),
        }

    def credentials(self, path, permissions=None, *, number=4, expires_s=DAYS_S, signer=None):
        """Write the file of a user of the account; (path, what of it is secret)."""
        user = key(number, nkeys.PREFIX_BYTE_USER)
        allowed = {"pub": permissions["publish"], "sub": permissions["subscribe"]} if permissions else {}
        limits = {name: LIMITS[name] for name in ("subs", "data", "payload")}
        signed = token(
            signer or self.account, user, "user", name="app", expires_s=expires_s, **limits, **allowed
        )  # fmt: skip
        seed = nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER).decode()
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{signed}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
        path.chmod(0o600)
        return path, (seed, signed)
