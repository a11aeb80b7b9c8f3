#!/usr/bin/env python3
"""Two programs with SQLites of their own work on one file side by side: each gives the other work,
both work at once, and one goes on when the other is killed. A SQLite with the WAL-reset bug is told
of, by a log line, by `status` and by `doctor`; one without it is not.

    .ci/two_programs.py LEGWORK OTHER_LEGWORK

They are two builds of `legwork`, such as one with the feature `bundled` and one without.
"""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

# Far longer than anything here takes: whatever is not there by then never comes.
SOON = 60
# Threads of each worker.
THREADS = 2

LEDGER = 'echo "$SIDE $LEGWORK_JOB_ID" >> ledger'
# Long enough that there is always one under way while others wait.
COMMAND = f"{LEDGER}; sleep 0.03"
# Keeps its worker's thread busy until all threads of both programs are.
MEETING = f"{LEDGER}; until [ -e go ]; do sleep 0.01; done"


class Failed(Exception):
    """The programs do not do as they should."""


def expect(what: str, seen, wanted) -> None:
    if seen != wanted:
        raise Failed(f"{what}: {seen!r}, not {wanted!r}")


def until(what: str, is_so):
    """Waits for it; what it returned."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        if found := is_so():
            return found
        time.sleep(0.01)
    raise Failed(f"not within {SOON} s: {what}")


def has_wal_reset_bug(version: str) -> bool:
    number = tuple(int(part) for part in version.split("."))
    corrected = (3, 50, 7) <= number < (3, 51) or (3, 44, 6) <= number < (3, 45)
    return number < (3, 51, 3) and not corrected


class Side(NamedTuple):
    """One of the programs, at work in a directory that holds the database and the ledger."""

    name: str
    program: Path
    place: Path

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LEGWORK_DB": str(self.place / "jobs.db"), "SIDE": self.name}

    def call(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [self.program, *words], cwd=self.place, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * SOON,
        )
        if code is not None and done.returncode != code:
            raise Failed(f"{self.name}: {words[:6]} ended with {done.returncode}, not {code}:\n"
                         f"{done.stdout}{done.stderr}")
        return done

    def json(self, *words: str, code: int | None = 0) -> dict:
        return json.loads(self.call("--json", *words, code=code).stdout)

    def run(self, script: str, *options: str) -> int:
        return int(self.call("run", *options, "--", "sh", "-c", script).stdout)

    def wait(self, *ids: int, code: int = 0) -> None:
        self.call("wait", "--timeout", f"{SOON}s", *map(str, ids), code=code)

    def show(self, job: int) -> dict:
        return self.json("show", str(job))

    def state(self, job: int) -> str:
        return self.show(job)["job"]["state"]

    def log(self) -> Path:
        return self.place / f"{self.name}.log"


class Worker:
    """`legwork work` of a side; killed at the latest when it is left."""

    def __init__(self, side: Side):
        self.side = side
        with side.log().open("a") as log:
            self.process = subprocess.Popen(
                [side.program, "work", "--workers", str(THREADS)], cwd=side.place,
                env=side.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def __enter__(self):
        try:
            until(f"{self.side.name} works", lambda: self.instance() is not None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def instance(self) -> int | None:
        """Its number in the file, once it works."""
        if self.process.poll() is not None:
            raise Failed(f"{self.side.name} does not work: exit code {self.process.returncode}")
        if not (self.side.place / "jobs.db").exists():
            return None
        processes = self.side.json("status")["processes"]
        own = [p["id"] for p in processes if p["pid"] == self.process.pid and p["alive"]]
        return own[0] if own else None

    def stop(self) -> None:
        self.process.terminate()
        expect(f"{self.side.name} told to stop", self.process.wait(SOON), 0)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        state = lambda task: (task / "stat").read_text().rpartition(")")[2].split()[0]
        until(f"{self.side.name} is frozen", lambda: all(state(t) == "T" for t in tasks.iterdir()))


def tells_of_its_sqlite(side: Side) -> None:
    """After it has worked."""
    status = side.json("status")
    version = status["sqlite"]
    has_bug = has_wal_reset_bug(version)
    print(f"{side.name}: SQLite {version}, {'with' if has_bug else 'without'} the WAL-reset bug")
    expect(f"{side.name}: wal_reset_bug in the status", status["wal_reset_bug"], has_bug)
    said = [line for line in side.log().read_text().splitlines() if "WAL-reset bug" in line]
    expect(f"{side.name}: log lines of it", bool(said), has_bug)
    expect(f"{side.name}: its version in all of them", all(version in line for line in said), True)
    doctor_tells_of_it(side, version, has_bug)


def doctor_tells_of_it(side: Side, version: str, has_bug: bool) -> None:
    # Its exit code goes by the worst finding, and it may have others to tell of this machine.
    report = side.json("doctor", code=None)
    expect(f"{side.name}: what its doctor says of the file", report["usable"], True)
    code, severity = ("wal_reset_bug", "warning") if has_bug else ("sqlite", "ok")
    codes = {"sqlite", "sqlite_old", "wal_reset_bug"}
    found = [finding for finding in report["findings"] if finding["code"] in codes]
    told = [(finding["code"], finding["severity"]) for finding in found]
    expect(f"{side.name}: what its doctor says of its SQLite", told, [(code, severity)])
    expect(f"{side.name}: its version in it", version in found[0]["says"], True)
    expect(f"{side.name}: advice", bool(found[0]["advice"]), has_bug)


def one_works_for_the_other(works: Side, other: Side) -> None:
    late = other.run("exit 0")
    other.call("wait", str(late), code=69)
    with Worker(works) as worker:
        other.wait(late)
        # Without a time-out: the worker of the other program is known to live.
        well, bad = other.run('echo "said by $SIDE"'), other.run("exit 3")
        other.call("wait", str(well))
        other.call("wait", str(well), str(bad), code=1)
        expect("what it has written", other.show(well)["stdout"], f"said by {works.name}\n")
        other.call("run", "--wait", "--", "sh", "-c", "exit 7", code=1)
        enqueued = other.call("enqueue", "legwork.shell", '{"argv": ["true"]}').stdout
        other.call("wait", enqueued.strip())
        cancels(other)
        revives(other, works)
        worker.stop()
    print(f"{works.name} works for {other.name}: done, failed, cancelled and retried as asked",
          flush=True)


def cancels(other: Side) -> None:
    """A job that the worker of the other program runs, and one that waits."""
    running = other.run("echo $$ > pid; exec sleep 60")
    waiting = other.run("exit 0", "--in", "1h")
    until("it runs", lambda: (other.place / "pid").exists() and other.state(running) == "running")
    for job in (running, waiting):
        other.call("cancel", str(job))
        other.wait(job, code=1)
        expect("cancelled by the other", other.state(job), "cancelled")
    pid = int((other.place / "pid").read_text())
    until("its command is ended", lambda: not Path(f"/proc/{pid}").exists())
    (other.place / "pid").unlink()


def revives(other: Side, works: Side) -> None:
    """What failed for the one is run again at the other's word."""
    job = other.run("[ -e mended ]")
    works.wait(job, code=1)
    (other.place / "mended").touch()
    other.call("retry", str(job))
    works.wait(job)
    (other.place / "mended").unlink()


def enqueue_by_both(sides: tuple[Side, Side], count: int, script: str) -> list[int]:
    """At the same time, half of them each."""
    ids: list[int] = []
    failed: list[Exception] = []

    def enqueue(side: Side) -> None:
        try:
            for _ in range(count // 2):
                ids.append(side.run(script))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=enqueue, args=(side,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    expect("ids given", len(set(ids)), count // 2 * 2)
    return ids


def ledger(place: Path) -> list[tuple[str, int]]:
    """Who has run which job, in this order."""
    path = place / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(side, int(job)) for side, job in map(str.split, lines)]


def both_work(sides: tuple[Side, Side], count: int, killed: Side | None = None) -> None:
    """On many small commands; one side is killed in the middle, if it is to be."""
    place = sides[0].place
    for name in ("ledger", "go"):
        (place / name).unlink(missing_ok=True)
    ids = enqueue_by_both(sides, len(sides) * THREADS, MEETING)
    with Worker(sides[0]) as first, Worker(sides[1]) as second:
        until("all threads are at work", lambda: len(ledger(place)) == len(ids))
        met = Counter(side for side, _ in ledger(place))
        expect("who has how many at work", met, {side.name: THREADS for side in sides})
        ids += enqueue_by_both(sides, count, COMMAND)
        (place / "go").touch()
        workers = {first.side: first, second.side: second}
        held = kill(workers.pop(killed)) if killed else set()
        for side in sides:
            side.wait(*ids)
        for worker in workers.values():
            worker.stop()
    check(ledger(place), ids, killed, held)


def kill(worker: Worker) -> set[int]:
    """Kills it in the middle; which jobs it then had in hand."""
    name, place = worker.side.name, worker.side.place
    until(f"{name} is in the middle", lambda: sum(s == name for s, _ in ledger(place)) > 10)
    instance = worker.instance()
    held: set[int] = set()

    def has_jobs() -> bool:
        worker.freeze()
        # A reader with a SQLite of its own. It waits for nobody: the frozen one may have the lock.
        with sqlite3.connect(f"file:{place / 'jobs.db'}?mode=ro", uri=True) as file:
            rows = file.execute("SELECT id FROM legwork_jobs WHERE instance = ?", [instance])
            held.update(job for (job,) in rows)
            [waiting] = file.execute("SELECT count(*) FROM legwork_jobs").fetchone()
        file.close()
        if not held:
            worker.process.send_signal(signal.SIGCONT)
        elif waiting <= len(held):
            raise Failed("nothing is left to do: this is not the middle")
        return bool(held)

    until(f"{name} has jobs in hand", has_jobs)
    worker.process.kill()
    worker.process.wait()
    return held


def check(done: list[tuple[str, int]], ids: list[int], killed: Side | None, held: set[int]) -> None:
    """Each job ran once; twice only those that the killed one had in hand, then by the other."""
    runs: dict[int, list[str]] = {}
    for side, job in done:
        runs.setdefault(job, []).append(side)
    expect("jobs that ran", sorted(runs), sorted(ids))
    twice = {job: by for job, by in runs.items() if len(by) > 1}
    for job, by in twice.items():
        if not killed or job not in held or len(by) > 2 or set(by) == {killed.name}:
            raise Failed(f"job {job} was run by {by}; in hand at the kill: {sorted(held)}")
    for job in held:
        if all(side == killed.name for side in runs[job]):
            raise Failed(f"job {job} was in hand at the kill and not run by the other")
    shares = sorted(Counter(side for side, _ in done).items())
    shares = ", ".join(f"{count} by {side}" for side, count in shares)
    print(f"{len(ids)} jobs, {shares}", end="")
    if killed:
        print(f"; {killed.name} killed with {len(held)} in hand, {len(twice)} ran again", end="")
    print(flush=True)


def check_file(place: Path) -> None:
    """By a third SQLite, with nobody there."""
    with sqlite3.connect(place / "jobs.db") as file:
        expect("integrity", file.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        expect("jobs left over", file.execute("SELECT count(*) FROM legwork_jobs").fetchone(), (0,))
    file.close()
    print(f"integrity_check by SQLite {sqlite3.sqlite_version}: ok")


def side_by_side(one: Side, other: Side) -> None:
    # The first to enqueue creates the file, so each of them finds one that the other has made.
    second = one.place / "second"
    second.mkdir()
    one_works_for_the_other(other._replace(place=second), one._replace(place=second))
    check_file(second)
    one_works_for_the_other(one, other)
    one_works_for_the_other(other, one)
    for side in (one, other):
        tells_of_its_sqlite(side)
    both_work((one, other), 200)
    both_work((one, other), 100, killed=one)
    both_work((one, other), 100, killed=other)
    check_file(one.place)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", type=Path, help="a build of legwork")
    parser.add_argument("other", type=Path, help="another build of legwork")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        one = Side("one", options.one.resolve(), Path(place))
        other = Side("other", options.other.resolve(), Path(place))
        try:
            side_by_side(one, other)
        except (Failed, subprocess.TimeoutExpired) as failed:
            for side in (one, other):
                if side.log().exists():
                    print(f"--- {side.name}\n{side.log().read_text()[-4000:]}", file=sys.stderr)
            print(failed, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
