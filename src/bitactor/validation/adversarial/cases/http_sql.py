"""SQL over HTTP: statements that reach out of their tables, or take all time, all memory, every place."""

from typing import TYPE_CHECKING, Final

from bitactor.validation.adversarial.registry import case, expect

if TYPE_CHECKING:
    from bitactor.validation.adversarial.rawhttp import Answer, Web
    from bitactor.validation.adversarial.site import Site

SQL_FILES: Final = "AV:N/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H"
PATH: Final = "/api/v1/query"


def _rejected(web: "Web", sql: str) -> "Answer":
    answer = web.post(PATH, {"sql": sql})
    expect(answer.status in {400, 408}, f"{sql[:100]!r}: {answer.status} {answer.body[:160]!r}")
    return answer


@case(
    cwe=22, vector=SQL_FILES, surface="admin", short=True, precondition="a token that may read",
    steps=(
        "read files by read_text, read_blob, read_csv and glob, in every place of a SELECT; a path as a "
        "table; query; getenv"
    ),
    expected="400; no file is opened",
)  # fmt: skip
def sql_reads_files(site: "Site") -> str:
    """SQL that reads files."""
    for sql in (
        "select content from read_text('/etc/passwd')", "select * from '/etc/passwd'", "select (from read_blob('/etc/*'))",
        "with a as (from glob('/*')) from a", "select * from totals where key in (select 1 from read_csv('/etc/passwd'))",
        "select getenv('HOME')", "select * from query('select * from read_text(''/etc/passwd'')')",
    ):  # fmt: skip
        answer = _rejected(site.place.admin, sql)
        expect(b"root:" not in answer.body, f"{sql}: a file came back")
    return "400 for all"


@case(
    cwe=89, vector=SQL_FILES, surface="admin", precondition="as above",
    steps="copy, attach, install, set, insert, create secret, two statements, none", expected="400; nothing is run",
)  # fmt: skip
def sql_other_statements(site: "Site") -> str:
    """SQL that is no SELECT."""
    for sql in (
        "copy (select 1) to '/tmp/bitactor-evil'", "attach '/tmp/evil.db'", "install httpfs", "set enable_external_access=true",
        "select 1; select 2", "insert into totals values (1)", "create secret s (type s3)", "",
    ):  # fmt: skip
        _rejected(site.place.admin, sql)
    return "400 for all"


@case(
    cwe=200, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:L/I:N/A:N", surface="admin", precondition="as above",
    steps=(
        "ask for duckdb_settings, information_schema, duckdb_logs, a Python variable by its name, another "
        "schema"
    ),
    expected="400 or nothing of the host",
)  # fmt: skip
def sql_looks_around(site: "Site") -> str:
    """SQL that looks at what runs it."""
    for sql in (
        "from duckdb_settings()", "from information_schema.tables", "from connection", "select * from main.totals", "from duckdb_logs()",
    ):  # fmt: skip
        _rejected(site.place.admin, sql)
    return "400 for all"


@case(
    cwe=400, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H", surface="admin", precondition="as above",
    steps="a query that never ends; meanwhile an honest producer sends",
    expected="408 after 10 s; the producer is acknowledged meanwhile",
)  # fmt: skip
def sql_without_end(site: "Site") -> str:
    """SQL that takes for ever."""
    import threading

    web = site.place.admin
    answers: list[Answer] = []
    sql = "select count(*) from range(10000000000000) where hash(range) = 1"
    thread = threading.Thread(target=lambda: answers.append(web.post(PATH, {"sql": sql})))
    thread.start()
    for _ in range(5):
        site.witness.send()
    thread.join()
    expect(answers[0].status == 408, f"status {answers[0].status} {answers[0].body[:160]!r}")
    return f"status 408, {answers[0].code}"


@case(
    cwe=789, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H", surface="admin", precondition="as above",
    steps="a list of 10**10 members, repeat of 10**10 characters, an aggregate of 10**9 texts",
    expected="400, 408 or 413; the service's memory stays",
)  # fmt: skip
def sql_takes_memory(site: "Site") -> str:
    """SQL that takes all memory."""
    before = site.own.resident_bytes()
    statuses = []
    for sql in (
        "select range(10000000000)",
        "select repeat('a', 10000000000)",
        "select list(range::varchar || 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') from range(100000000)",
    ):
        statuses.append(site.place.admin.post(PATH, {"sql": sql}).status)
    expect(all(status in {400, 408, 413} for status in statuses), f"statuses {statuses}")
    grown = site.own.resident_bytes() - before
    expect(grown < 128 << 20, f"the service grew by {grown >> 20} MiB")
    return f"statuses {statuses}; the service grew by {grown >> 20} MiB"


@case(cwe=770, vector="AV:N/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H", surface="admin", precondition="as above",
      steps="30 queries at once", expected="some are answered, the others get 503, or 408 on a busy machine")  # fmt: skip
def sql_too_many(site: "Site") -> str:
    """Many queries at once."""
    import threading
    from collections import Counter

    found: Counter[int] = Counter()

    def ask() -> None:
        answer = site.place.admin.post(PATH, {"sql": "select count(*) from totals"})
        found[answer.status] += 1

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(set(found) <= {200, 408, 503} and found[200] > 0 and found[503] > 0, f"statuses {dict(found)}")
    return f"statuses {dict(found)}"
