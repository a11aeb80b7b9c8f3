#!/usr/bin/env python3
"""legwork's command line beside pueue, task-spooler and nq, on this machine.

    cargo build --release --features cli
    apt-get install task-spooler nq && cargo install pueue
    .ci/compare_queues.py target/release/legwork

For each: the time to add 2,000 commands that wait, a process for each as scripts do it; to list them; to run
200 commands that do nothing, two at a time where it can; and what is left of one that runs and of ten
that wait when all its processes are killed with -9 and it is started again. Prints the table of the guide.
"""

import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

WAITING = 2000
RUN = 200
ROUNDS = 3
# Longer than any of them takes for one command, in seconds.
PATIENCE = 20
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Tool:
    """One queue on a directory of its own."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.env = dict(os.environ)

    def call(self, *words, **more):
        done = subprocess.run(words, env=self.env, cwd=self.dir, **({**QUIET, "timeout": PATIENCE, **more}))
        if done.returncode:
            raise SystemExit(f"{words}: exit code {done.returncode}")
        return done

    def read(self, *words):
        return self.call(*words, stdout=subprocess.PIPE).stdout.decode()

    def processes(self):
        """Its processes, by the directory that they work in or were told."""
        mine = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"QUEUE_UNDER_TEST={self.dir}".encode() in environ.split(b"\0"):
                mine.append(int(entry.name))
        return mine

    def kill_all(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + 30
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)

    def start(self):
        pass

    def hold(self):
        """From here on what is added waits."""

    def release(self):
        """What waits may run; returns when all of it has."""

    def version(self):
        return ""


class Legwork(Tool):
    name = "legwork"
    program = "legwork"

    def __init__(self, directory):
        super().__init__(directory)
        self.env["LEGWORK_DB"] = str(self.dir / "jobs.db")

    def version(self):
        return self.read(self.program, "--version").split()[1]

    def add(self, *words):
        self.call(self.program, "run", "--", *words)

    def list(self):
        return self.read(self.program, "list", "--limit", "10000")

    def release(self):
        self.call(self.program, "work", "--until-empty", "--workers", "2", timeout=None)

    def survives(self):
        marks = self.dir / "marks"
        self.add("sh", "-c", f"echo run >> {marks}; exec sleep 1000")
        for _ in range(10):
            self.add("sh", "-c", f"echo done >> {marks}")
        worker = subprocess.Popen([self.program, "work", "--workers", "1"], env=self.env, cwd=self.dir, **QUIET)
        wait_for(marks)
        self.kill_all()
        worker.wait()
        worker = subprocess.Popen([self.program, "work", "--workers", "2"], env=self.env, cwd=self.dir, **QUIET)
        return ran(marks, self, worker)


class Pueue(Tool):
    name = "pueue"

    def __init__(self, directory):
        super().__init__(directory)
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "HOME"):
            self.env[name] = str(self.dir)

    def version(self):
        return self.read("pueue", "--version").split()[1]

    def start(self):
        self.call("pueued", "-d")
        eventually(lambda: subprocess.run(["pueue", "status"], env=self.env, **QUIET).returncode == 0)
        self.call("pueue", "parallel", "2")

    def hold(self):
        self.call("pueue", "pause")

    def add(self, *words):
        self.call("pueue", "add", "--", *words)

    def list(self):
        return self.read("pueue", "status")

    def release(self):
        self.call("pueue", "start")
        self.call("pueue", "wait", "--all", "--quiet", timeout=None)

    def survives(self):
        marks = self.dir / "marks"
        self.call("pueue", "parallel", "1")
        self.add(f"echo run >> {marks}; exec sleep 1000")
        wait_for(marks)
        for _ in range(10):
            self.add(f"echo done >> {marks}")
        self.kill_all()
        self.start()
        subprocess.run(["pueue", "start"], env=self.env, **QUIET)
        return ran(marks, self, None)


class TaskSpooler(Tool):
    name = "task-spooler"

    def __init__(self, directory):
        super().__init__(directory)
        self.env["TS_SOCKET"] = str(self.dir / "socket")
        self.env["TS_MAXFINISHED"] = "100000"
        self.env["TMPDIR"] = str(self.dir)

    def version(self):
        return self.read("tsp", "-V").split()[2].lstrip("v")

    def hold(self):
        self.call("tsp", "-n", "sleep", "1000")
        self.held = self.read("tsp").splitlines()[1].split()[0]

    def add(self, *words):
        self.call("tsp", "-n", *words)

    def list(self):
        return self.read("tsp")

    def release(self):
        self.call("tsp", "-S", "3")
        last = self.read("tsp").strip().splitlines()
        last = max(int(line.split()[0]) for line in last[1:])
        subprocess.run(["tsp", "-w", str(last)], env=self.env, **QUIET)

    def survives(self):
        marks = self.dir / "marks"
        self.add("sh", "-c", f"echo run >> {marks}; exec sleep 1000")
        wait_for(marks)
        for _ in range(10):
            self.add("sh", "-c", f"echo done >> {marks}")
        self.kill_all()
        self.call("tsp")
        return ran(marks, self, None)


class Nq(Tool):
    name = "nq"

    def __init__(self, directory):
        super().__init__(directory)
        self.env["NQDIR"] = str(self.dir)

    def version(self):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "nq"], stdout=subprocess.PIPE)
        return done.stdout.decode().split("-")[0]

    def hold(self):
        self.call("nq", "sh", "-c", f"while [ -e {self.dir}/held ]; do sleep 0.02; done")

    def add(self, *words):
        self.call("nq", *words)

    def list(self):
        # It has no list; this is what its manual says.
        return self.read("sh", "-c", "cd $NQDIR && ls ,*")

    def release(self):
        (self.dir / "held").unlink()
        self.call("nq", "-w", timeout=None)

    def survives(self):
        marks = self.dir / "marks"
        self.add("sh", "-c", f"echo run >> {marks}; exec sleep 1000")
        wait_for(marks)
        for _ in range(10):
            self.add("sh", "-c", f"echo done >> {marks}")
        self.kill_all()
        return ran(marks, self, None)


def eventually(is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_so()


def wait_for(file):
    if not eventually(file.exists):
        raise SystemExit(f"{file} does not come")


def ran(marks, tool, process):
    """How often the one that ran was started, and how many of those that waited have run."""
    eventually(lambda: marks.read_text().count("done") >= 10 and marks.read_text().count("run") >= 2, 15)
    text = marks.read_text()
    tool.kill_all()
    if process:
        process.wait()
    again = "run again" if text.count("run") > 1 else "lost or failed"
    return f"{again}; {text.count('done')} of 10"


def timed(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def on_fresh(kind, measure):
    directory = tempfile.mkdtemp(prefix="queues-", dir=".")
    directory = os.path.abspath(directory)
    tool = kind(directory)
    tool.env["QUEUE_UNDER_TEST"] = directory
    pathlib.Path(directory, "held").touch()
    try:
        tool.start()
        return measure(tool)
    finally:
        tool.kill_all()
        shutil.rmtree(directory, ignore_errors=True)


def waiting(tool):
    tool.hold()

    # What it takes; a queue that is full lets the next command wait.
    taken = 0
    began = ended = time.monotonic()
    try:
        while taken < WAITING:
            tool.add("true")
            taken += 1
            ended = time.monotonic()
    except subprocess.TimeoutExpired:
        pass
    listed = statistics.median(timed(tool.list) for _ in range(5))
    return taken, ended - began, listed


def running(tool):
    tool.hold()
    for _ in range(RUN):
        tool.add("true")
    return timed(tool.release)


def main():
    Legwork.program = os.path.abspath(sys.argv[1])
    programs = {Legwork: Legwork.program, Pueue: "pueue", TaskSpooler: "tsp", Nq: "nq"}
    kinds = [kind for kind, program in programs.items() if shutil.which(program)]
    for kind in programs.keys() - kinds:
        print(f"{kind.name} is not installed", file=sys.stderr)
    # In turns, so that what else the machine does is shared by all.
    rounds = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            rounds[kind].append((*on_fresh(kind, waiting), on_fresh(kind, running)))
    print(f"| | version | add {WAITING} | list them | run {RUN} | killed: the one that ran; those that waited |")
    print("|---|---|---|---|---|---|")
    for kind in kinds:
        taken, add, listed, run = (statistics.median(column) for column in zip(*rounds[kind]))
        added = f"{add:.1f} s" if taken == WAITING else f"full at {taken:.0f}"
        survived = on_fresh(kind, lambda tool: tool.survives())
        version = on_fresh(kind, lambda tool: tool.version())
        print(
            f"| {kind.name} | {version} | {added} ({1e3 * add / taken:.1f} ms each) "
            f"| {1e3 * listed:.0f} ms | {run:.2f} s | {survived} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
