"""The admin API over a real engine, uvicorn and sockets: what it answers, and who may ask."""

import hashlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import bitactor as ba
from bitactor.admin import openapi
from bitactor.admin.access import Right
from bitactor.admin.app import PAGES
from bitactor.config import Settings
from bitactor.ingest.auth import Identities, Identity
from tests.admin_service import Stub, ask, served, trades

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def service():
    stub = Stub()
    stub.names = {ba.text_key(name): name for name in ("AAPL", "MSFT")}
    signals = trades(4000)
    signals["key"][::10] = ba.text_key("AAPL")
    signals["key"][1::10] = ba.text_key("MSFT")
    stub.apply(signals)
    yield stub
    stub.engine.close()


@pytest.fixture(scope="module")
def port(service):
    with served(service) as admin:
        yield admin.port


def test_kinds_and_actors_are_told_as_the_app_declares_them(port):
    kinds = ask(port, "/api/v1/kinds").json()
    assert kinds == {
        "position": 4000,
        "kinds": [
            {"name": "trade", "number": 1, "value": "f8", "aux": "u4"},
            {"name": "alert", "number": 2, "value": "f8", "aux": "u4"},
        ],
    }
    vwap, alerts = ask(port, "/api/v1/actors").json()["actors"]
    assert (vwap["name"], vwap["kinds"], vwap["emits"], alerts["kinds"]) == ("vwap", ["trade"], ["alert"], ["alert"])
    assert [(f["name"], f["type"], f["count"]) for f in vwap["fields"]] == [
        ("notional", "f8", None), ("volume", "u8", None), ("last", "f8", None), ("recent", "f8", 2)
    ]  # fmt: skip
    assert vwap["keys"] == 102 and vwap["tick_budget"] == 100_000 and vwap["expire_after_s"] is None


@pytest.mark.parametrize(("path", "key"), [("7", 7), ("AAPL", ba.text_key("AAPL")), (str(ba.text_key("MSFT")), None)])
def test_the_state_of_a_key_is_the_engines_with_its_position(service, port, path, key):
    key = int(path) if key is None else key
    told = ask(port, f"/api/v1/actors/vwap/state/{path}")
    state = service.engine.state("vwap", key)
    assert told.headers["bitactor-position"] == "4000"
    expected = {"notional": state.notional, "volume": state.volume, "last": state.last, "recent": state.recent.tolist()}
    assert told.json() == {
        "position": 4000, "actor": "vwap", "key": key, "name": service.names.get(key), "state": expected
    }  # fmt: skip
    texts = ask(port, f"/api/v1/actors/vwap/state/{path}?integers=text").json()
    assert texts["key"] == str(key) and texts["state"]["volume"] == str(state.volume)


def test_unknown_names_are_404_and_name_what_there_is(port):
    for path, code, said in [
        ("/api/v1/actors/vwpa/state/1", "unknown_actor", "there are vwap, alerts"),
        ("/api/v1/actors/vwap/state/123456", "unknown_key", "'123456'"),
        ("/api/v1/actors/vwap/state/7?text=true", "unknown_key", "'7'"),
        ("/api/v2/kinds", "not_found", "/openapi.json"),
        ("/static/../app.py", "not_found", "/openapi.json"),
        ("/static/%2e%2e/app.py", "not_found", "/openapi.json"),
    ]:
        reply = ask(port, path)
        assert reply.status == 404 and reply.json()["code"] == code and said in reply.json()["message"], path


def expected_rows(table, order):
    return [[int(table["key"][i]), float(table["last"][i]), int(table["volume"][i])] for i in order]


def test_a_table_is_filtered_sorted_and_cut_as_numpy_would(service, port):
    table = service.engine.table("vwap")
    for query, order in [
        ("", np.arange(102)),
        ("&limit=5", np.arange(5)),
        ("&sort=last", np.argsort(table["last"], kind="stable")),
        ("&sort=-volume&limit=7", np.argsort(-table["volume"].astype("i8"), kind="stable")[:7]),
        ("&filter=volume%3E900&sort=key", np.argsort(table["key"])[np.sort(table["key"]) >= 0]),
        ("&filter=last>=12.5&filter=last<13&sort=-last", np.argsort(-table["last"], kind="stable")),
        ("&filter=key=AAPL", np.flatnonzero(table["key"] == ba.text_key("AAPL"))),
        ("&filter=volume>99999999", []),
        ("&limit=0", []),
    ]:
        keep = np.ones(102, bool)
        if "volume%3E900" in query:
            keep = table["volume"] > 900
        if "last>=" in query:
            keep = (table["last"] >= 12.5) & (table["last"] < 13)
        limit = "" if "limit" in query else "&limit=200"
        told = ask(port, f"/api/v1/actors/vwap/table?columns=last,volume{query}{limit}")
        body = told.json()
        assert told.status == 200 and body["position"] == 4000 and body["keys"] == 102
        assert [(c["name"], c["type"]) for c in body["columns"]] == [
            ("key", "u8"), ("name", "text"), ("last", "f8"), ("volume", "u8")
        ]  # fmt: skip
        assert [[row[0], *row[2:]] for row in body["rows"]] == expected_rows(table, [i for i in order if keep[i]]), (
            query
        )
        for row in body["rows"]:
            assert row[1] == service.names.get(row[0])


def test_the_largest_few_are_those_of_a_full_stable_sort_with_nan_last():
    from bitactor.admin.rows import sorted_first

    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for kind in ("f8", "u8", "i4", "bool"):
        for count in (0, 1, 50, 1000):
            values = rng.integers(0, 12, count).astype(kind)
            if kind == "f8":
                values[rng.random(count) < 0.1] = np.nan
            rows = [(bool(v != v), v, i) for i, v in enumerate(values.tolist())]
            up = [i for _, _, i in sorted(rows, key=lambda r: (r[0], 0 if r[0] else r[1], r[2]))]
            down = [i for _, _, i in sorted(rows, key=lambda r: (r[0], 0 if r[0] else -float(r[1]), r[2]))]
            for limit in (0, 1, 7, 200, 1000):
                assert sorted_first(values, limit, descending=False).tolist() == up[:limit], (kind, count, limit)
                assert sorted_first(values, limit, descending=True).tolist() == down[:limit], (kind, count, limit)


def test_arrow_has_every_row_unless_a_limit_is_asked_for(service, port):
    reply = ask(port, "/api/v1/actors/vwap/table?columns=volume,recent", accept=ARROW)
    assert reply.headers["content-type"] == ARROW and reply.headers["bitactor-position"] == "4000"
    read = pa.ipc.open_stream(io.BytesIO(reply.body)).read_all()
    table = service.engine.table("vwap", ["volume", "recent"])
    assert read.column_names == ["key", "volume", "recent"] and read.schema.metadata[b"position"] == b"4000"
    assert read["key"].to_numpy().tolist() == table["key"].tolist()
    assert read["recent"].to_pylist() == table["recent"].tolist()
    few = ask(port, "/api/v1/actors/vwap/table?columns=volume&sort=-volume&limit=3", accept=ARROW)
    assert pa.ipc.open_stream(io.BytesIO(few.body)).read_all()["volume"].to_pylist() == sorted(table["volume"])[:-4:-1]


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("columns=nope", "unknown_column", "there are key, notional, volume, last, recent"),
        ("sort=recent", "array_column", "recent is an array"),
        ("filter=volume", "bad_filter", "write a comparison, such as volume>=100"),
        ("filter=volume>x", "bad_filter", "'x' is not a value of type u8"),
        ("filter=__class__=1", "unknown_column", "__class__"),
        ("limit=-1", "bad_limit", "give 0 to 10000"),
        ("limit=99999999999999999999", "bad_limit", "give 0 to 10000"),
        ("limit=1e3", "bad_limit", "give 0 to 10000"),
        ("integers=hex", "bad_integers", "number or text"),
    ],
)
def test_a_wrong_table_query_is_400_and_says_what_would_be_right(port, query, code, said):
    reply = ask(port, f"/api/v1/actors/vwap/table?{query}")
    assert reply.status == 400 and reply.json()["code"] == code and said in reply.json()["message"]


def test_numbers_that_json_lacks_are_texts_and_64_bits_are_exact():
    stub = Stub(shards=0)
    signals = trades(3)
    signals["key"] = 2**64 - 1
    signals["value"] = [np.inf, 1.0, np.nan]
    stub.apply(signals)
    with served(stub) as admin:
        reply = ask(admin.port, "/api/v1/actors/vwap/table")
    assert json.loads(reply.body)["rows"][0][0] == 2**64 - 1 and b"18446744073709551615" in reply.body
    assert '"NaN"' in reply.body.decode()
    stub.engine.close()


def test_commands_reach_the_service_and_say_the_position(service, port):
    service.calls.clear()
    assert ask(port, "/api/v1/snapshot", "POST").json()["snapshot"]["sequence"] == 12
    assert ask(port, "/api/v1/producers/forget", "POST", {"id": str(2**63 + 5)}).json()["forgotten"] == 2**63 + 5
    gone = ask(port, "/api/v1/producers/forget", "POST", {"name": "nobody"})
    assert gone.status == 404 and gone.json()["code"] == "unknown_producer"
    assert service.engine.state("vwap", 3) is not None
    assert ask(port, "/api/v1/erase", "POST", {"key": 3}).json()["erased"] == 3
    assert service.engine.state("vwap", 3) is None
    assert service.calls == ["snapshot", ("forget", 2**63 + 5), ("erase", 3)]
    assert ask(port, "/api/v1/erase", "POST", {"key": "AAPL"}).json()["erased"] == ba.text_key("AAPL")
    assert ask(port, "/api/v1/erase", "POST", {"text": "42"}).json()["erased"] == ba.text_key("42")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/api/v1/erase", b"", 415, "bad_type"),
        ("/api/v1/erase", b"{", 400, "bad_body"),
        ("/api/v1/erase", b"[" * 60_000, 400, "bad_body"),
        ("/api/v1/erase", {}, 400, "bad_body"),
        ("/api/v1/erase", {"key": True}, 400, "bad_body"),
        ("/api/v1/erase", {"key": 1.5}, 400, "bad_body"),
        ("/api/v1/erase", {"key": -1}, 400, "bad_key"),
        ("/api/v1/erase", {"key": 2**64}, 400, "bad_key"),
        ("/api/v1/erase", {"key": 1, "text": "a"}, 400, "bad_body"),
        ("/api/v1/erase", {"keys": 1}, 400, "bad_body"),
        ("/api/v1/snapshot", {"now": 1}, 400, "bad_body"),
        ("/api/v1/query", {"sql": 7}, 400, "bad_body"),
        ("/api/v1/query", {"sql": "select 1", "limit": 100_001}, 400, "bad_limit"),
        ("/api/v1/query", {"sql": "x" * 20_000}, 413, "too_large"),
        ("/api/v1/query", {"sql": "x" * 70_000}, 413, "too_large"),
    ],
)
def test_a_wrong_body_changes_nothing_and_is_explained(service, port, path, body, status, code):
    service.calls.clear()
    headers = {"content_type": "application/json"} if body in (b"{", b"[" * 60_000) else {}
    reply = ask(port, path, "POST", body, **headers)
    assert (reply.status, reply.json()["code"]) == (status, code) and reply.json()["message"]
    assert service.calls == []


def test_health_says_why_as_text_and_as_json_and_asks_for_no_token(tmp_path):
    token = tmp_path / "token"
    token.write_text("correct-horse-battery-staple")
    stub = Stub(Settings(admin={"port": 0, "token_file": token}))
    stub.unready("compiling and recovering")
    with served(stub) as admin:
        assert ask(admin.port, "/livez").body == b"live\n"
        ready = ask(admin.port, "/readyz")
        assert ready.status == 503 and ready.body == b"not ready: compiling and recovering\n"
        started = ask(admin.port, "/startupz", accept="application/json")
        assert started.status == 503
        assert started.json() == {"started": False, "reasons": ["compiling and recovering"]}
        assert ask(admin.port, "/readyz", "HEAD").status == 503
        early = ask(admin.port, "/api/v1/kinds", authorization="Bearer correct-horse-battery-staple")
        assert early.status == 503 and early.json()["code"] == "not_ready" and early.headers["retry-after"]
        scraped = ask(admin.port, "/metrics", authorization="Bearer correct-horse-battery-staple").body.decode()
        assert "bitactor_started 0.0" in scraped and "bitactor_signals" not in scraped
    stub.engine.close()


def test_with_a_token_each_identity_may_do_what_its_file_says(tmp_path):
    def digest(token):
        return (hashlib.sha256(token.encode()).digest(),)

    token = tmp_path / "token"
    token.write_text("the-admin-token-of-this-test\n")
    stub = Stub(Settings(admin={"port": 0, "token_file": token}))
    stub.identities = Identities([
        Identity("reader", read=True, tokens_sha256=digest("reader-token-reader-token")),
        Identity("sender", producers=("*",), tokens_sha256=digest("sender-token-sender-token")),
    ])  # fmt: skip
    allowed = {
        None: (401, 401, 401),
        "wrong-token-wrong-token-wrong": (401, 401, 401),
        "sender-token-sender-token": (403, 403, 403),
        "reader-token-reader-token": (200, 200, 403),
        "the-admin-token-of-this-test": (200, 200, 200),
    }
    with served(stub) as admin:
        for one, expected in allowed.items():
            headers = {} if one is None else {"authorization": f"Bearer {one}"}
            replies = [
                ask(admin.port, "/api/v1/kinds", **headers),
                ask(admin.port, "/metrics", **headers),
                ask(admin.port, "/api/v1/erase", "POST", {"key": 1}, **headers),
            ]
            assert tuple(reply.status for reply in replies) == expected, one
            if expected[0] == 401:
                assert replies[0].headers["www-authenticate"].startswith("Bearer")
        for path in ("/", "/openapi.json", "/livez"):
            assert ask(admin.port, path).status == 200
    assert stub.calls == [("erase", 1)]
    stub.engine.close()


def test_off_loopback_without_a_token_it_does_not_start():
    stub = Stub()
    stub.settings = SimpleNamespace(admin=SimpleNamespace(host="0.0.0.0", port=0, token_file=None))
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 is not loopback: set admin\.token_file"), served(stub):
        pass
    stub.engine.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "169.254.0.1:80", "[::2]", "", "localhost@evil"]
)
def test_a_name_that_points_here_by_dns_rebinding_reads_nothing(port, host):
    reply = ask(port, "/api/v1/kinds", host=host)
    assert reply.status == 421 and reply.json()["code"] == "wrong_host"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080", "bitactor.localhost"])
def test_names_of_this_machine_are_let_in(port, host):
    assert ask(port, "/api/v1/kinds", host=host).status == 200


def test_a_page_of_another_site_changes_nothing(service, port):
    service.calls.clear()
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://localhost:{port + 1}", "host": f"localhost:{port}"},
        {"sec_fetch_site": "cross-site"},
    ):
        assert ask(port, "/api/v1/snapshot", "POST", **headers).status == 403
    assert service.calls == []
    same = {"origin": f"http://127.0.0.1:{port}", "host": f"127.0.0.1:{port}", "sec_fetch_site": "same-origin"}
    assert ask(port, "/api/v1/snapshot", "POST", **same).status == 200


def test_every_answer_has_the_headers_that_browsers_need(port):
    for path, method in [
        ("/", "GET"),
        ("/nope", "GET"),
        ("/api/v1/kinds", "GET"),
        ("/livez", "PUT"),
        ("/metrics", "GET"),
    ]:
        headers = ask(port, path, method).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
        assert "no-" in headers["cache-control"]


def test_pages_are_the_files_named_and_are_kept_by_their_tag(port):
    for path, (_, type_) in PAGES.items():
        reply = ask(port, path)
        assert (reply.status, reply.headers["content-type"]) == (200, type_)
        again = ask(port, path, if_none_match=reply.headers["etag"])
        assert again.status == 304 and again.body == b""


def test_the_openapi_document_is_valid_and_every_route_answers_as_it_says(service, port):
    jsonschema = pytest.importorskip("jsonschema")
    validator = pytest.importorskip("openapi_spec_validator", exc_type=ImportError)
    document = ask(port, "/openapi.json").json()
    validator.validate(document)
    asked = {
        "/api/v1/actors/{actor}/state/{key}": ("/api/v1/actors/vwap/state/5", None),
        "/api/v1/actors/{actor}/table": ("/api/v1/actors/vwap/table?limit=3", None),
        "/api/v1/query": ("/api/v1/query", {"sql": "select 1"}),
        "/api/v1/producers/forget": ("/api/v1/producers/forget", {"name": "eu-1"}),
        "/api/v1/erase": ("/api/v1/erase", {"key": 1}),
    }
    service.table[0] = type(service.table[0])(ba.text_key("eu-1"), "eu-1", "c", 1, 5, False)
    assert len(document["paths"]) == len(openapi.OPERATIONS)
    for template, methods in document["paths"].items():
        if "/cluster" in template:  # of replicas alone
            continue
        path, body = asked.get(template, (template, None))
        for method, described in methods.items():
            reply = ask(port, path, method.upper(), body)
            assert reply.status == 200, (template, reply.body)
            schema = described["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(reply.json(), schema)
            assert set(reply.json()) == set(schema["properties"]), template
            wrong = ask(port, path, "DELETE")
            assert wrong.status == 405 and wrong.json()["code"] == "wrong_method" and wrong.headers["allow"]
            jsonschema.validate(wrong.json(), document["components"]["schemas"]["Error"])


def test_every_operation_needs_at_least_the_right_to_read():
    assert all(one.right >= Right.READ for one in openapi.OPERATIONS)
    assert {one.handler for one in openapi.OPERATIONS if one.right is Right.ADMIN} == {
        "forget",
        "snapshot",
        "erase",
        "drain",
    }
