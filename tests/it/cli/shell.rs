//! Shell jobs: what a command gets, what becomes of it, what is kept of it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::{lives, pids, until};
use crate::common::place;

#[test]
fn a_command_that_succeeds_completes_its_job() {
    let place = place();
    let id = place.line("run -- echo hello").id();
    place.work().good();
    let all = place.show(id);
    assert_eq!(all["job"]["state"], "completed");
    assert_eq!(all["job"]["output"], json!({ "exit_code": 0 }));
    assert_eq!((&all["stdout"], &all["stderr"]), (&json!("hello\n"), &json!(null)));
}

#[test]
fn an_exit_code_becomes_the_error_after_one_attempt() {
    let place = place();
    let failed = place.script("", "echo first >&2; echo; echo last words >&2; exit 3");
    let killed = place.script("", "kill -9 $$");
    let missing = place.line("run -- /no/such/program").id();
    place.work().coded(1);
    let reason = |id| place.show(id)["job"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason(failed), "exit code 3: last words");
    assert_eq!(reason(killed), "killed by signal 9");
    assert!(reason(missing).starts_with("cannot start /no/such/program: "), "{}", reason(missing));
    for id in [failed, killed, missing] {
        assert_eq!(
            (place.state(id).as_str(), &place.show(id)["job"]["attempts"]),
            ("failed", &json!(1))
        );
    }
}

#[test]
fn ok_codes_complete_and_only_retry_codes_are_retried() {
    let place = place();
    let good = place.script("--ok-codes 7,9", "exit 9");
    let again = place.script("--attempts 3 --retry-codes 75,124", "exit 75");
    let final_ = place.script("--attempts 3 --retry-codes 75,124", "exit 1");
    let any = place.script("--attempts 3", "exit 1");
    let late = place.script("--attempts 3 --retry-codes 75,124 --timeout 100ms", "sleep 1000");
    place.work();
    assert_eq!(place.show(good)["job"]["output"], json!({ "exit_code": 9 }));
    let states = [good, again, final_, any, late].map(|id| place.state(id));
    assert_eq!(states, ["completed", "retrying", "failed", "retrying", "retrying"]);
}

#[test]
fn a_command_gets_its_directory_its_variables_and_the_jobs_number() {
    let place = place();
    let script =
        r#"printf '%s|%s|%s|%s|%s' "$PWD" "$KEPT" "$GIVEN" "$LEGWORK_JOB_ID" "$LEGWORK_ATTEMPT""#;
    let dir = place.file("sub");
    std::fs::create_dir(&dir).unwrap();
    let args = ["run", "--env", "KEPT", "--env", "GIVEN=a b=c", "--shell", "--", script];
    let mut command = place.command(args);
    let id =
        super::Ended::of(command.env("KEPT", "as it was").current_dir(&dir).output().unwrap()).id();
    place.work().good();
    let expected = format!("{}|as it was|a b=c|{id}|1", dir.canonicalize().unwrap().display());
    assert_eq!(place.show(id)["stdout"], expected);
    assert_eq!(place.line("run --env LEGWORK_NOT_SET -- true").code, 2);

    let id =
        super::Ended::of(place.command(["run", "--", "true"]).current_dir(&dir).output().unwrap())
            .id();
    std::fs::remove_dir(&dir).unwrap();
    place.work().coded(1);
    let reason = place.show(id)["job"]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("directory") && reason.contains("sub"), "{reason}");
}

#[test]
fn at_the_time_out_the_whole_process_group_goes() {
    let place = place();
    // Neither the script nor its child ends by TERM.
    let id = place.script(
        "--timeout 1s",
        "trap '' TERM; sleep 1000 & echo $$ > pids; echo $! >> pids; wait; sleep 1000",
    );
    place.work().coded(1);
    let pids = pids(&place.file("pids"), 2);
    until("both are gone", || !pids.iter().any(lives));
    let reason = place.show(id)["job"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "timed out after 1s; it did not end by TERM and was killed");
}

#[test]
fn a_command_that_ends_by_term_gets_to_clean_up() {
    let place = place();
    let id = place.script(
        "--timeout 1s",
        "trap 'echo cleaned up; exit 0' TERM; echo started; while :; do sleep 0.05; done",
    );
    place.work().coded(1);
    let all = place.show(id);
    assert_eq!(
        (&all["job"]["state"], &all["stdout"]),
        (&json!("failed"), &json!("started\ncleaned up\n"))
    );
    assert_eq!(all["job"]["reason"], "timed out after 1s");
}

#[test]
fn a_command_that_has_stopped_itself_gets_to_clean_up_too() {
    let place = place();
    let id =
        place.script("--timeout 1s", "trap 'echo cleaned up; exit 0' TERM; kill -STOP $$; sleep 9");
    place.work().coded(1);
    let all = place.show(id);
    assert_eq!(all["stdout"], "cleaned up\n");
    assert_eq!(all["job"]["reason"], "timed out after 1s");
}

#[test]
fn a_cancel_from_another_process_reaches_the_whole_process_group() {
    let place = place();
    let id = place.script("", "sleep 1000 & echo $$ > pids; echo $! >> pids; wait");
    let _worker = place.worker("work");
    let pids = pids(&place.file("pids"), 2);
    assert!(pids.iter().all(lives));
    place.line(&format!("cancel {id}")).good();
    place.line(&format!("wait {id} --timeout 60s")).coded(1);
    assert_eq!(place.state(id), "cancelled");
    until("both are gone", || !pids.iter().any(lives));
}

#[test]
fn what_is_left_in_the_background_does_not_hold_the_job() {
    let place = place();
    let id = place.script("", "sleep 1000 & echo $! > pids; echo done");
    place.work().good();
    assert_eq!(place.show(id)["stdout"], "done\n");
    let pid = pids(&place.file("pids"), 1)[0];
    assert!(lives(&pid), "it was left alone");
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn head_and_tail_of_a_long_output_are_kept_in_private_files() {
    let place = place();
    let id = place.script("", "echo begin; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end");
    place.work().good();
    let stdout = place.show(id)["stdout"].as_str().unwrap().to_owned();
    assert!(stdout.starts_with("begin\nxxx") && stdout.ends_with("xxx\nend\n"));
    assert!(stdout.contains("bytes cut") && stdout.len() < 300_000, "{}", stdout.len());
    let directory = place.file(&format!("test.db-legwork/output/job-{id}"));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }

    place.open().delete(id).unwrap();
    place.work().good();
    assert!(!directory.exists(), "it goes when its job is gone");
    place.line("run -- true").id();
    place.work().good();
    let left = std::fs::read_dir(place.file("test.db-legwork/output")).unwrap().count();
    assert_eq!(left, 0, "a command that says nothing leaves nothing");
}

#[test]
fn lines_to_the_progress_descriptor_become_the_jobs_progress() {
    let place = place();
    let id = place.script(
        "",
        r#"echo "3/12 chapter three" >&$LEGWORK_PROGRESS_FD
           while [ ! -e go ]; do sleep 0.02; done
           head -c 3000000 /dev/urandom >&3
           printf '
%s
%s' "almost" "100%" >&3"#,
    );
    let _worker = place.worker("work");
    let progress = || place.show(id)["job"]["progress"].clone();
    let reached = json!({ "done": 3, "total": 12, "message": "chapter three" });
    until("the progress is seen while it runs", || progress() == reached);
    std::fs::write(place.file("go"), "").unwrap();
    place.line(&format!("wait {id} --timeout 60s")).good();
    assert_eq!(progress(), json!({ "done": 100, "total": 100, "message": "almost" }));
}

#[test]
fn a_command_inherits_its_lock_and_no_other_file_of_the_worker() {
    let place = place();
    let id = place.line("run -- ls -l /proc/self/fd").id();
    place.work().good();
    let shown = place.show(id)["stdout"].as_str().unwrap().to_owned();
    let inherited: Vec<(&str, &str)> = shown
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(name, to)| (name.rsplit(' ').next().unwrap(), to))
        .collect();
    assert!(inherited.iter().any(|(name, to)| *name == "3" && to.starts_with("pipe:")), "{shown}");
    // Others than legwork's may be open in whatever runs the tests.
    let ours: Vec<_> = inherited.iter().filter(|(_, to)| to.contains("test.db")).collect();
    assert!(ours.len() == 1 && ours[0].1.ends_with("/lock"), "{shown}");
}

#[test]
fn a_job_does_not_run_again_while_the_command_of_a_killed_worker_lives() {
    let place = place();
    let id = place.script(
        "",
        "echo $$ >> runs; [ $(wc -l < runs) = 2 ] || while [ ! -e go ]; do sleep 0.02; done",
    );
    let worker = place.worker("work");
    pids(&place.file("runs"), 1);
    worker.signal(rustix::process::Signal::KILL);
    worker.end();
    let _other = place.worker("work");
    let message = || place.show(id)["job"]["progress"]["message"].clone();
    until("it says what it waits for", || {
        message().as_str().is_some_and(|message| message.contains("which still runs"))
    });
    pids(&place.file("runs"), 1);
    std::fs::write(place.file("go"), "").unwrap();
    place.line(&format!("wait {id} --timeout 60s")).good();
    pids(&place.file("runs"), 2);
    assert_eq!(place.show(id)["job"]["attempts"], json!(1));
}

#[test]
fn to_wait_for_an_earlier_command_is_no_run_that_clears_a_suspect() {
    let place = place();
    let id =
        place.script("", "echo $$ >> runs; kill -9 $PPID; while [ ! -e go ]; do sleep 0.02; done");
    for run in 1..=2 {
        // The first death makes it a suspect, the second one blames it.
        let _ = std::fs::remove_file(place.file("go"));
        let mut killed = place.worker("work");
        let pid = pids(&place.file("runs"), run)[run - 1];
        killed.process.take().unwrap().wait().unwrap();
        let waiting = place.worker("work");
        until("it waits for its command", || place.state(id) == "scheduled");
        waiting.signal(rustix::process::Signal::TERM);
        waiting.end().coded(0);
        let crashes = &place.show(id)["job"]["crashes"];
        assert_eq!(crashes, &json!(run - 1), "{}", place.show(id));
        std::fs::write(place.file("go"), "").unwrap();
        until("its command ends", || !lives(&pid));
    }
}

#[test]
fn what_a_command_leaves_in_the_background_does_not_keep_its_job_from_running_again() {
    let place = place();
    let id = place.script("", "sleep 1000 & echo $! >> pids; exit $(($(wc -l < pids) % 2))");
    place.work().coded(1);
    place.line(&format!("retry {id}")).good();
    place.work().good();
    assert_eq!(place.state(id), "completed");
    // Nor does it end with the job.
    place.line(&format!("delete {id}")).good();
    for pid in pids(&place.file("pids"), 2) {
        assert!(lives(&pid));
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn a_command_that_brings_its_workers_down_and_lives_on_is_quarantined() {
    let place = place();
    let id = place.script("", "echo $$ >> pids; kill -9 $PPID; exec sleep 1000");
    let first = place.line("work --crash-limit 1");
    assert_eq!(first.code, -9, "{first:?}");
    let orphan = pids(&place.file("pids"), 1)[0];

    let mut second = place.command(["work", "--crash-limit=1"]).spawn().unwrap();
    let message = || place.show(id)["job"]["progress"]["message"].to_string();
    until("it is put off", || message().contains("waits for its earlier command"));
    assert!(lives(&orphan));
    end(orphan);
    // The second death of a worker that is its own: the first proves nothing.
    assert!(!second.wait().unwrap().success());
    end(pids(&place.file("pids"), 2)[1]);
    place.line("work --until-empty --crash-limit 1").coded(0);
    let job = place.show(id);
    assert_eq!(job["job"]["state"], "failed", "{job}");
    assert!(job["job"]["reason"].as_str().unwrap().contains("quarantined"), "{job}");
}

#[test]
fn a_cancel_reaches_a_command_that_has_outlived_its_worker() {
    let place = place();
    let mut told = 0;
    // A command whose worker was killed, and its process.
    let mut orphan = |script: &str| {
        let id = place.script("", &format!("echo $$ >> pids; {script}"));
        let worker = place.worker("work");
        told += 1;
        let command = pids(&place.file("pids"), told)[told - 1];
        let lock = place.file("test.db-legwork").join(format!("output/job-{id}/lock"));
        until("its group is noted", || lock.metadata().unwrap().len() > 0);
        drop(worker);
        (id, command)
    };

    // Nobody has taken its job over yet.
    let (id, command) = orphan("exec sleep 1000");
    place.line(&format!("cancel {id}")).good();
    until("its command ends", || !lives(&command));
    place.line("work --until-empty").good();
    assert_eq!(place.state(id), "cancelled");

    // Its job is put off by the next worker, and then deleted, or cancelled by a program.
    let (deleted, mut commands) = (orphan("exec sleep 1000"), Vec::new());
    let cancelled = orphan("exec sleep 1000");
    commands.extend([deleted.1, cancelled.1]);
    let next = place.worker("work");
    until("both wait", || {
        [deleted.0, cancelled.0].iter().all(|id| place.state(*id) == "scheduled")
    });
    place.line(&format!("delete {}", deleted.0)).good();
    until("its command ends", || !lives(&commands[0]));
    place.open().cancel(cancelled.0).unwrap();
    assert!(lives(&commands[1]));
    drop(next);
    place.line("work --until-empty").good();
    until("its command ends", || !lives(&commands[1]));

    // Whoever cancels again gets it ended, too.
    let (id, command) = orphan("exec sleep 1000");
    place.open().cancel(id).unwrap();
    assert!(lives(&command));
    place.line(&format!("cancel {id}")).good();
    until("its command ends", || !lives(&command));
    place.work().good();
    place.line(&format!("cancel {id}")).coded(4);

    // It does not end by TERM.
    let (id, command) = orphan("trap '' TERM; while :; do sleep 0.05; done");
    place.line(&format!("cancel {id}")).good();
    until("its command ends", || !lives(&command));
}

#[test]
fn a_group_that_only_has_the_number_of_a_command_is_left_alone() {
    let place = place();
    let id = place.line("run -- true").id();
    place.work().good();
    let mut stranger = std::process::Command::new("sleep");
    let mut stranger = stranger.arg("1000").process_group(0).spawn().unwrap();
    let kept = place.file("test.db-legwork").join(format!("output/job-{id}"));
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("lock"), format!("{}\n", stranger.id())).unwrap();
    let lock = std::fs::File::open(kept.join("lock")).unwrap();
    lock.lock().unwrap();
    let other = place.line("run --in 1h -- true").id();
    place.line(&format!("cancel {other}")).good();
    assert!(lives(&stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    let place = place();
    let id = place.line("run -- true").id();
    place.work().good();
    let kept = place.file("test.db-legwork").join(format!("output/job-{id}"));
    std::fs::create_dir_all(&kept).unwrap();
    for pipe in [kept.join("lock"), place.file("test.db-legwork/worker.log")] {
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let other = place.line("run --in 1h -- true").id();
    place.line(&format!("cancel {other}")).good();
    place.line(&format!("retry {id}")).good();
    place.work().good();
    assert_eq!(place.state(id), "completed");
    let alone = place.line("run --ensure-worker -- true").coded(69);
    assert!(alone.stderr.contains("no worker could be started"), "{alone:?}");
}

/// The command that it is the process group of.
fn end(pid: u32) {
    let group = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    until("it has ended", || !lives(&pid));
}
