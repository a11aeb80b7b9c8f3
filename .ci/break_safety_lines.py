#!/usr/bin/env python3
"""Breaks the safety lines of the library one by one, each in a copy of the tree, and sees the test
that guards it fail. First all of these tests must pass on the tree as it is.

    .ci/break_safety_lines.py             the five that every change is checked with
    .ci/break_safety_lines.py --all       all of them
    .ci/break_safety_lines.py --only NAME
    .ci/break_safety_lines.py --list

A break is an exact replacement. If its text is not found exactly once the line has moved, and the
list below is to be mended. A build that fails is no catch, nor is a test that does not run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Break(NamedTuple):
    name: str
    file: str
    text: str
    instead: str
    # The arguments of `cargo test` that choose the target, then the one test.
    target: str
    test: str
    always: bool = False


IT = "--test it"

BREAKS = [
    Break(
        "token",
        "src/store/sqlite/finish.rs",
        "  FROM legwork_jobs\n WHERE id = ?1 AND instance = ?2 AND token = ?3\";\npub(super) const REMOVE",
        "  FROM legwork_jobs\n WHERE id = ?1 AND instance = ?2 AND ?3 = ?3\";\npub(super) const REMOVE",
        IT,
        "safety::a_late_end_of_an_abandoned_attempt_does_not_finish_the_next_one",
        always=True,
    ),
    Break(
        "immediate",
        "src/store/sqlite/book.rs",
        'match self.run("BEGIN IMMEDIATE")',
        'match self.run("BEGIN")',
        IT,
        "enqueue::transactions::transactions_of_several_threads_beside_plain_verbs_each_start_their_jobs",
        always=True,
    ),
    Break(
        "sync",
        "src/store/sqlite/book.rs",
        '"PRAGMA synchronous = FULL"',
        '"PRAGMA synchronous = NORMAL"',
        IT,
        "durability::by_default_every_enqueue_and_control_is_synced_before_its_acknowledgement",
        always=True,
    ),
    Break(
        "reply-after-commit",
        "src/store/sqlite/writer/apply.rs",
        "            answers.inserts.push(done);",
        "            if let Ok(ids) = &done {\n"
        "                let _ = op.answer.try_send(Ok(ids.clone()));\n"
        "            }\n"
        "            answers.inserts.push(done);",
        IT,
        "safety::an_enqueue_whose_commit_fails_is_not_acknowledged",
        always=True,
    ),
    Break(
        "lock-inode",
        "src/store/sqlite/lock_file.rs",
        "    let file = file.filter(|_| inode_of(&path) == Some(them.lock_inode));\n",
        "",
        IT,
        "safety::another_file_under_the_name_of_its_lock_file_does_not_prove_an_engine_dead",
        always=True,
    ),
    Break(
        "missing-lock-file",
        "src/store/sqlite/lock_file.rs",
        "        return gone.then_some(Proof::Gone);",
        "        return Some(Proof::Gone);",
        IT,
        "safety::another_file_under_the_name_of_its_lock_file_does_not_prove_an_engine_dead",
    ),
    Break(
        "tripwire",
        "src/store/sqlite/writer/answer.rs",
        "        if self.tripwire.after_commit(self.book.is_synced()).is_err() {",
        "        if false {",
        IT,
        "gone::nothing_is_acknowledged_in_a_file_or_wal_that_was_removed_or_replaced",
    ),
    Break(
        "ring-after-commit",
        "src/store/sqlite/writer/answer.rs",
        "        if answers.ring {",
        "        if answers.ring && self.stopping {",
        IT,
        "safety::jobs_of_another_process_start_by_its_ring_alone",
    ),
    Break(
        "tray-watched",
        "src/store/tray.rs",
        "        if busy { Some(TICK) } else { unknown.then_some(PATIENCE) }",
        "        unknown.then_some(PATIENCE).filter(|_| !busy)",
        "--lib",
        "store::protocol_tests::wake::jobs_of_this_process_wake_its_workers_and_no_end_stays_in_a_tray",
    ),
    Break(
        "tray-closed-empty",
        "src/store/tray.rs",
        "        self.closed = true;\n        self.take_back(|_| true)",
        "        self.closed = true;\n        Vec::new()",
        "--lib",
        "store::protocol_tests::stop::"
        "whenever_an_engine_stops_its_workers_end_and_every_claim_is_finished_or_given_back",
    ),
    Break(
        "cron-seen",
        "src/store/sqlite/cron.rs",
        "        if row != fire.seen {",
        "        if row.name != fire.seen.name {",
        IT,
        "cron::weeks::each_tick_fires_once_through_weeks_of_restarts_sleeps_and_clock_jumps",
    ),
    Break(
        "cron-tick",
        "src/store/sqlite/cron.rs",
        "            if self.has_tick(&row.name, *tick)? {",
        "            if self.has_tick(&row.name, *tick)? && row.fired < 0 {",
        IT,
        "cron::weeks::each_tick_fires_once_through_weeks_of_restarts_sleeps_and_clock_jumps",
    ),
    Break(
        "leap",
        "src/store/sqlite/writer/spare.rs",
        "            cutoff = trust.cutoff();",
        "            cutoff = now;",
        IT,
        "leap::nothing_is_pruned_for_a_day_after_a_leap_and_then_it_is",
    ),
]


def copy_tree(to: Path) -> None:
    """What the next commit would hold, keeping times so that cargo builds only what changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def write(path: Path, text: str) -> None:
    # Later than any build before, whatever the clock's resolution.
    path.write_text(text)
    now = time.time() + 1
    os.utime(path, (now, now))


def cargo_test(copy: Path, shared: Path, target: str, tests: list[str]) -> tuple[str, str]:
    """How the tests went: `passed`, `failed`, or `not run`; and what was printed."""
    command = ["cargo", "test", "--locked", "--all-features", *target.split(), "--", "--exact", *tests]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(shared)}
    done = subprocess.run(
        command, cwd=copy, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    result = re.search(r"^test result: .* (\d+) passed; (\d+) failed;", done.stdout, re.MULTILINE)
    if not result or int(result[1]) + int(result[2]) != len(tests):
        return "not run", done.stdout
    return ("passed" if done.returncode == 0 else "failed"), done.stdout


def check_unbroken(copy: Path, shared: Path, breaks: list[Break]) -> bool:
    for target in sorted({one.target for one in breaks}):
        tests = sorted({one.test for one in breaks if one.target == target})
        went, printed = cargo_test(copy, shared, target, tests)
        if went != "passed":
            print(printed)
            print(f"unbroken: the tests of {target} have {went}", file=sys.stderr)
            return False
        print(f"unbroken: {len(tests)} tests of {target} pass", flush=True)
    return True


def check_break(copy: Path, shared: Path, one: Break) -> bool:
    path = copy / one.file
    whole = path.read_text()
    count = whole.count(one.text)
    if count != 1:
        print(f"{one.name}: its text stands {count} times in {one.file}", file=sys.stderr)
        return False
    began = time.monotonic()
    write(path, whole.replace(one.text, one.instead))
    try:
        went, printed = cargo_test(copy, shared, one.target, [one.test])
    finally:
        write(path, whole)
    if went == "failed":
        print(f"{one.name}: caught by {one.test} ({time.monotonic() - began:.0f} s)", flush=True)
        return True
    if went == "not run":
        print(printed)
    print(f"{one.name}: NOT caught: {one.test} has {went}", file=sys.stderr)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also those that CI leaves out")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this one")
    parser.add_argument("--list", action="store_true", help="show them and end")
    parser.add_argument("--target-dir", type=Path, default=ROOT / "target" / "safety",
                        help="where all of them are built (default: target/safety)")
    options = parser.parse_args()
    if options.list:
        for one in BREAKS:
            print(f"{one.name}{' (CI)' if one.always else ''}: {one.file}, caught by {one.test}")
        return 0
    names = options.only or [one.name for one in BREAKS if one.always or options.all]
    unknown = set(names) - {one.name for one in BREAKS}
    if unknown:
        parser.error(f"there is no break {', '.join(sorted(unknown))}")
    chosen = [one for one in BREAKS if one.name in names]
    shared = options.target_dir.resolve()
    # The same place each time: cargo knows a package by its path.
    copy = shared / "tree"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    copy_tree(copy)
    if not check_unbroken(copy, shared, chosen):
        return 1
    missed = [one.name for one in chosen if not check_break(copy, shared, one)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} breaks caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
