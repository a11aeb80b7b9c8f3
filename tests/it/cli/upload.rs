//! The life of a deferred upload: `run --ensure-worker` is all the set-up there is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use super::{LEGWORK, lives, pids, until};
use crate::common::{Place, place};

/// Hangs as long as there is a file `hang`, and fails with 75 as long as there is no file `network`.
const UPLOAD: &str = "#!/bin/sh
echo $$ >> pids
echo sending
while [ -e hang ]; do sleep 0.05; done
[ -e network ] || { echo 'no network' >&2; exit 75; }
echo sent
";

const DEFERRED: &str = "run --ensure-worker --attempts 5 --retry-codes 75 -- ./upload.sh";

/// The worker processes of the file, this one not among them; ends with them.
struct Workers<'a>(&'a Place);

impl Workers<'_> {
    fn live(&self) -> Vec<i32> {
        let status = self.0.line("status --json").json();
        let processes = status["processes"].as_array().unwrap();
        let live = processes.iter().filter(|process| process["alive"] == Value::Bool(true));
        let me = i64::from(std::process::id());
        live.map(|process| process["pid"].as_i64().unwrap())
            .filter(|pid| *pid != me)
            .map(|pid| i32::try_from(pid).unwrap())
            .collect()
    }

    fn kill(&self, signal: Signal) {
        for pid in self.live() {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    }
}

impl Drop for Workers<'_> {
    fn drop(&mut self) {
        self.kill(Signal::KILL);
    }
}

fn with_script() -> Place {
    let place = place();
    let script = place.file("upload.sh");
    fs::write(&script, UPLOAD).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    place
}

#[test]
fn an_upload_survives_the_death_of_the_machine_and_goes_on_with_the_next_command() {
    let place = with_script();
    let workers = Workers(&place);
    fs::write(place.file("hang"), "").unwrap();
    assert_eq!(place.line(DEFERRED).good(), "1\n");
    assert_eq!(workers.live().len(), 1, "it takes part before the command returns");
    let upload = pids(&place.file("pids"), 1)[0];

    // The laptop dies: nobody gets to say anything.
    workers.kill(Signal::KILL);
    let group = Pid::from_raw(i32::try_from(upload).unwrap()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    until("everything is dead", || !lives(&upload) && workers.live().is_empty());
    fs::remove_file(place.file("hang")).unwrap();
    let ended = place.line("wait 1").coded(69);
    assert!(ended.stderr.contains("no worker is running"), "{ended:?}");

    // The next command resumes it: without a network it is tried again, uncounted so far.
    assert_eq!(place.line("run --ensure-worker --wait -- true").good(), "2\n");
    until("the upload has met a dead network", || place.state(legwork::JobId(1)) == "retrying");
    let job = place.show(legwork::JobId(1));
    assert_eq!(job["job"]["attempts"], 1);
    let errors: Vec<&str> = job["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["error"].as_str().unwrap())
        .collect();
    assert!(errors.last().unwrap().contains("exit code 75: no network"), "{errors:?}");

    // Whoever follows it sees it through to its end, over the next attempt.
    let follower = place.worker("logs 1 -f --stream stdout");
    fs::write(place.file("network"), "").unwrap();
    let followed = follower.end().coded(0).stdout;
    assert!(followed.ends_with("sending\nsent\n"), "{followed}");
    assert_eq!(place.line("wait 1 --timeout 5m").good(), "1\tcompleted\t\n");
    assert_eq!(place.show(legwork::JobId(1))["stdout"], "sending\nsent\n");
    assert_eq!(workers.live().len(), 1, "one was enough");
}

#[test]
fn a_worker_that_lives_is_enough_and_one_that_cannot_start_is_told() {
    let place = with_script();
    // The file is there before anybody asks about it.
    drop(place.open());
    let worker = place.worker("work");
    let workers = Workers(&place);
    until("the worker lives", || workers.live().len() == 1);
    place.line("run --ensure-worker --wait -- true").good();
    assert_eq!(workers.live().len(), 1);
    drop(worker);

    // Its log cannot be written.
    let side = place.path.with_extension("db-legwork");
    fs::create_dir(side.join("worker.log")).unwrap();
    let ended = place.line("run --ensure-worker -- true").coded(69);
    assert_eq!(ended.stdout, "2\n", "the job is there all the same");
    assert!(ended.stderr.contains("no worker could be started"), "{ended:?}");
    assert!(ended.stderr.contains("worker.log"), "{ended:?}");
}

#[test]
fn of_several_commands_at_once_one_starts_a_worker_and_none_for_what_is_done() {
    let place = place();
    let workers = Workers(&place);
    drop(place.open());
    let commands: Vec<_> = (0..6)
        .map(|_| place.command(["run", "--ensure-worker", "--", "true"]).spawn().unwrap())
        .collect();
    for mut command in commands {
        assert!(command.wait().unwrap().success());
    }
    let live = workers.live();
    assert_eq!(live.len(), 1);
    place.line("run --wait --unique key --unique-until 1d -- true").good();
    workers.kill(Signal::KILL);
    until("it is dead", || workers.live().is_empty());
    for _ in 0..2 {
        let again = "run --ensure-worker --unique key --unique-until 1d -- true";
        assert_eq!(place.line(again).good(), "7\n");
        assert_eq!(workers.live(), [0; 0]);
        place.line("prune --all-finished --yes").good();
    }
}

#[test]
fn a_worker_that_is_stopping_is_not_enough() {
    let place = place();
    let worker = place.worker("work");
    let workers = Workers(&place);
    let long = place.script("", "while [ ! -e go ]; do sleep 0.05; done");
    until("it runs", || place.state(long) == "running");
    workers.kill(Signal::TERM);
    until("it serves nothing any more", || {
        let told = place.line("workers --json").json();
        told["workers"][0]["pools"].as_array().unwrap().iter().all(|pool| pool["workers"] == 0)
    });
    place.line("run --ensure-worker --wait -- true").good();
    assert_eq!(place.state(long), "running");
    fs::write(place.file("go"), "").unwrap();
    until("it is done", || place.state(long) == "completed");
    drop(worker);
}

#[test]
fn a_process_that_does_not_know_the_kind_is_not_enough() {
    let place = place();
    let jobs = place.open();
    let engine = legwork::Engine::builder(&jobs).start().unwrap();
    let workers = Workers(&place);
    let instances = || jobs.instances().unwrap();
    assert!(instances()[0].serves("default") && !instances()[0].runs("legwork.shell", "default"));
    place.line("run --ensure-worker -- true").good();
    assert!(instances().iter().any(|instance| instance.runs("legwork.shell", "default")));
    assert_eq!(workers.live().len(), 1);
    drop(engine);
}

#[test]
fn a_worker_in_the_background_stays_while_anything_is_left_and_then_ends() {
    let place = place();
    place.line("run --in 2s -- true").good();
    place.line("enqueue mail").good();
    let ended = place.line("work --idle-exit 50ms --ensured");
    assert_eq!(ended.coded(0).stdout, "ready\n");
    assert_eq!(place.line("list state:completed").good().lines().count(), 1);
    assert_eq!(place.line("list state:ready").good().lines().count(), 1, "not its kind");
}

#[test]
fn a_worker_that_is_about_to_end_takes_what_is_counted_on_it_for() {
    for round in 0..8 {
        let place = place();
        let workers = Workers(&place);
        let last = place.script("", "while [ ! -e go ]; do sleep 0.01; done");
        let ending = if round % 2 == 0 { "--until-empty" } else { "--idle-exit=20ms" };
        let mut worker = place.command(["work", "--workers=1", ending]).spawn().unwrap();
        until("it runs its last job", || place.state(last) == "running");
        // Some of them come while it ends.
        let run =
            || place.command(["run", "--ensure-worker", "--wait", "--", "true"]).spawn().unwrap();
        let mut commands: Vec<_> = (0..3).map(|_| run()).collect();
        fs::write(place.file("go"), "").unwrap();
        commands.extend((0..3).map(|_| run()));
        for mut command in commands {
            assert!(command.wait().unwrap().success(), "{ending}");
        }
        workers.kill(Signal::TERM);
        worker.wait().unwrap();
    }
}

/// Scripts hold a lock so, and whoever reads a command's output waits for the last descriptor.
#[test]
fn a_worker_in_the_background_keeps_nothing_open_of_those_who_started_it() {
    let place = place();
    let workers = Workers(&place);
    let script = "exec 7>held 8>&1; \"$0\" run --ensure-worker --wait -- true";
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", script]).arg(LEGWORK).env("LEGWORK_DB", &place.path);
    let ended = shell.current_dir(place.dir.path()).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let live = workers.live();
    let held = fs::canonicalize(place.file("held")).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", live[0])).unwrap();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(open.iter().any(|file| file.ends_with("worker.log")), "{open:?}");
    assert!(!open.contains(&held), "{open:?}");
}
