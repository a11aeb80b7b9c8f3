"""Enqueues from Python: script.py FILE order|refused. `page` is the guide's own program."""

import sqlite3
import sys

import page

path, part = sys.argv[1:]

if part == "order":
    for total in (1999, 0, 5):
        print(page.order(path, total))
    sys.exit()

conn = sqlite3.connect(path, timeout=60, isolation_level=None)
conn.execute("INSERT INTO legwork_enqueue (kind, args, unique_key) VALUES ('k', '{}', 'held')")

# What is not given is good.
REFUSED = {
    "kind": [None, "", "x" * 256, "ü" * 128, "a\nb", "a\0b", "a\x7fb", "a\x85b", b"k", 3],
    "args": [None, "", "{", "{a: 1}", "'x'", "{} {}", "{}\0", b"{}", 5, '"' + "x" * 16_777_216 + '"'],
    "queue": ["", "x" * 256, "a\tb", b"q", 1],
    "priority": ["5", 1.5, "high", b"1"],
    "run_at": [
        "", "now", "tomorrow", "10:00", "2026-13-01", "2026-02-31", "2026-02-03 99:00", "1764000000",
        "2461000.5", "1969-12-31", "2026-01-01T10:00:00\0", b"2026-01-01", 1764000000000, -1, float("inf"), float("-inf"),
    ],
    "delay": ["5", -1, -0.5, 1e300, b"1"],
    "unique_key": ["", "held", "x" * 256, "a\nb", 5],
    "gate": ["", "x" * 256, "a\nb", b"g", 1],
    "expires_after": ["5", 0, -1, 1e300, b"1"],
    "tags": [r'["a\u0000b"]', r'["a\\\u0000b"]', r'["\ud800"]', "", "a", "{}", "[1]", '[""]', '["a\\nb"]', '["%s"]' % ("x" * 256), b"[]", 1],
    "meta": [r'{"a\u0000b": "x"}', r'{"a": "\ud800"}', "", "[]", '{"a": 1}', '{"": "x"}', '{"a": null}', '{"a": "%s"}' % ("x" * 4097), 1],
}

for column, values in REFUSED.items():
    for value in values:
        row = {"kind": "k", "args": "{}", column: value}
        sql = "INSERT INTO legwork_enqueue (%s) VALUES (%s)" % (
            ", ".join(row), ", ".join("?" * len(row))
        )
        try:
            conn.execute(sql, list(row.values()))
        except sqlite3.IntegrityError as error:
            said = str(error)
            named = column if column not in ("unique_key",) else "unique"
            assert said.startswith("legwork: "), (column, value, said)
            assert named.rstrip("s") in said, (column, value, said)
        else:
            raise AssertionError(f"taken: {column} = {value!r:.80}")

for columns, says in [
    ("(kind, args, run_at, delay) VALUES ('k', '{}', 1, 1)", "not both"),
    ("(args) VALUES ('{}')", "kind is missing"),
    ("(kind) VALUES ('k')", "args must be JSON"),
    # No UTF-8: cut off, a lone half, a surrogate, beyond the last character, too long.
    *[
        (f"(kind, args) VALUES (CAST(x'61{wrong}' AS TEXT), '{{}}')", "kind must be")
        for wrong in ("ff", "80", "c3", "eda080", "f4908080", "c080", "e282")
    ],
]:
    try:
        conn.execute("INSERT INTO legwork_enqueue " + columns)
    except sqlite3.IntegrityError as error:
        assert says in str(error), (columns, error)
    else:
        raise AssertionError(f"taken: {columns}")

# A backslash is a character like others, and so are controls in a value.
conn.execute(
    "INSERT INTO legwork_enqueue (kind, args, tags, meta) VALUES ('k', '{}', ?, ?)",
    [r'["C:\\u0000"]', r'{"path": "C:\\u0000", "text": "zwei\nZeilen, größer"}'],
)

# The transaction around a refused row goes on; nothing of the row is left.
conn.execute("BEGIN IMMEDIATE")
try:
    conn.execute("INSERT INTO legwork_enqueue (kind, args) VALUES ('k', '{}'), ('k', '{')")
except sqlite3.IntegrityError:
    pass
assert conn.in_transaction
conn.execute("COMMIT")

for sql in ("UPDATE legwork_enqueue SET kind = 'x'", "DELETE FROM legwork_enqueue"):
    try:
        conn.execute(sql)
    except sqlite3.OperationalError:
        continue
    raise AssertionError(f"taken: {sql}")

assert conn.execute("SELECT count(*) FROM legwork_enqueue").fetchone() == (0,)
print("all refused")
