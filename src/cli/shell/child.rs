//! A command at work: a process group of its own, its pipes, and its end.
//!
//! The process is not reaped before its group has got its last signal: until then no other group
//! can have its number.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::capture::Capture;
use super::progress::Reports;
use crate::record::Progress;

/// How often to ask whether the command should go on. A command that ends is noticed at once.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A pipe holds 64 KiB; whoever still writes after the command's end does so in vain.
const LAST_READS: usize = 64;

pub(super) struct Child {
    process: std::process::Child,
    group: Pid,
    /// Closes when the process has ended.
    end: PipeReader,
    watcher: Option<JoinHandle<()>>,
    pipes: [Option<File>; 3],
    captures: [Option<Capture>; 2],
    reports: Reports,
    ended: bool,
    reaped: bool,
}

/// How a command has ended.
pub(super) struct End {
    pub(super) status: ExitStatus,
    /// The last line of its stderr.
    pub(super) said: Option<String>,
    /// What is new of its progress.
    pub(super) progress: Option<Progress>,
}

/// Which of the pipes carries what the command says of its progress.
const PROGRESS: usize = 2;

impl Child {
    /// Starts the command; what it writes goes to the captures, and what it says of its progress comes
    /// from this pipe, whose other end it has.
    pub(super) fn start(
        mut command: Command,
        captures: [Capture; 2],
        progress: PipeReader,
    ) -> io::Result<Child> {
        let (end, alive) = io::pipe()?;
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        // With it go the descriptors that were meant for the command alone.
        drop(command);
        let pipes = [
            process.stdout.take().map(OwnedFd::from),
            process.stderr.take().map(OwnedFd::from),
            Some(OwnedFd::from(progress)),
        ];
        let group = Pid::from_child(&process);
        let mut child = Child {
            process,
            group,
            end,
            watcher: None,
            pipes: pipes.map(|pipe| pipe.map(File::from)),
            captures: captures.map(Some),
            reports: Reports::default(),
            ended: false,
            reaped: false,
        };
        // If it cannot be started the drop kills the process.
        let watcher = thread::Builder::new().name("legwork-child".into()).spawn(move || {
            let unreaped = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(group), unreaped), Err(Errno::INTR)) {}
            drop(alive);
        })?;
        child.watcher = Some(watcher);
        Ok(child)
    }

    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Passes on what it writes until it ends, or `stop` says why it should.
    pub(super) fn run<T>(&mut self, mut stop: impl FnMut(&mut Reports) -> Option<T>) -> Option<T> {
        while !self.ended {
            if let Some(why) = stop(&mut self.reports) {
                return Some(why);
            }
            self.pump(LOOK_EVERY);
        }
        None
    }

    /// TERM to the group, stopped or not, and KILL to what is left of it when the command has ended and nobody
    /// holds its pipes any more, or `hurry` says so. Whether the KILL was waited for.
    pub(super) fn terminate(&mut self, mut hurry: impl FnMut(Duration) -> bool) -> bool {
        self.signal(Signal::TERM);
        // One that is stopped hears of it only when it goes on.
        self.signal(Signal::CONT);
        let since = Instant::now();
        let mut killed = false;
        while !(self.ended && self.pipes.iter().all(Option::is_none)) {
            if hurry(since.elapsed()) {
                killed = !self.ended;
                break;
            }
            self.pump(LOOK_EVERY);
        }
        self.signal(Signal::KILL);
        while !self.ended {
            self.pump(LOOK_EVERY);
        }
        killed
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.group, signal) {
            log::debug!("legwork: signalling the group {:?}: {error}", self.group);
        }
    }

    /// How it ended, the last line of its stderr, and what it has said last of its progress. What it has
    /// left running in the background loses its pipes.
    pub(super) fn finish(mut self) -> io::Result<End> {
        for _ in 0..LAST_READS {
            if !self.pump(Duration::ZERO) {
                break;
            }
        }
        let status = self.reap()?;
        let [_, said] = self.captures.each_mut().map(|capture| capture.take()?.end());
        Ok(End { status, said, progress: self.reports.last() })
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait();
        self.reaped = true;
        if let Some(watcher) = self.watcher.take() {
            // It ends with the process.
            let _ = watcher.join();
        }
        status
    }

    /// Takes what has been written, waiting for something at most this long; whether there was
    /// anything.
    fn pump(&mut self, wait: Duration) -> bool {
        let wait = Timespec::try_from(wait).unwrap_or_default();
        let mut at: Vec<Option<usize>> = vec![None];
        let mut fds = vec![PollFd::new(&self.end, PollFlags::IN)];
        if self.ended {
            fds.clear();
            at.clear();
        }
        for (number, pipe) in self.pipes.iter().enumerate() {
            if let Some(from) = pipe {
                fds.push(PollFd::new(from, PollFlags::IN));
                at.push(Some(number));
            }
        }
        // Interrupted: as if nothing had come.
        let _ = poll(&mut fds, Some(&wait));
        let ready: Vec<Option<usize>> = at
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(which, _)| which)
            .collect();
        drop(fds);
        let mut read = false;
        for which in ready {
            match which {
                None => self.ended = true,
                Some(number) => {
                    self.read(number);
                    read = true;
                }
            }
        }
        read
    }

    fn read(&mut self, number: usize) {
        let Some(from) = &mut self.pipes[number] else { return };
        let mut bytes = [0; 64 * 1024];
        match from.read(&mut bytes) {
            Ok(0) => self.pipes[number] = None,
            Ok(read) if number == PROGRESS => self.reports.take(&bytes[..read]),
            Ok(read) => {
                if let Some(capture) = &mut self.captures[number] {
                    capture.take(&bytes[..read]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.pipes[number] = None,
        }
    }
}

impl Drop for Child {
    /// Nobody looks after it any more.
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            let _ = self.reap();
        }
    }
}
