//! What a command inherits beside stdin, stdout and stderr: a pipe for its progress, and its lock.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};

use super::lock::RunLock;

/// Where the command finds the pipe. A single digit: `sh` may know no others in `>&3`.
const PROGRESS: RawFd = 3;
const PROGRESS_VARIABLE: &str = "LEGWORK_PROGRESS_FD";

/// Keeps the number of the command's pipe taken in this process: between fork and exec the command still
/// has all descriptors of its parent, and the one by which std reports a failed exec must not be in its
/// place.
#[derive(Debug)]
pub(super) struct Descriptors {
    _taken: Option<File>,
}

impl Descriptors {
    pub(super) fn reserve() -> Descriptors {
        // The lowest that is free, from 3 on: if it is another one then 3 is taken already.
        Descriptors { _taken: File::open("/dev/null").ok() }
    }

    /// Hands the command a pipe, and the lock if there is one; where to read what it says.
    pub(super) fn pass(
        &self,
        command: &mut Command,
        lock: Option<&RunLock>,
    ) -> io::Result<PipeReader> {
        let (reader, writer) = io::pipe()?;
        let mut mappings = vec![FdMapping { parent_fd: writer.into(), child_fd: PROGRESS }];
        if let Some(lock) = lock {
            mappings.push(kept(lock.descriptor()?)?);
        }
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        command.env(PROGRESS_VARIABLE, PROGRESS.to_string());
        Ok(reader)
    }
}

/// A descriptor that has the same number there, whatever it is.
fn kept(descriptor: OwnedFd) -> io::Result<FdMapping> {
    // While the first copy is there the second has another number.
    let descriptor =
        if descriptor.as_raw_fd() == PROGRESS { descriptor.try_clone()? } else { descriptor };
    let child_fd = descriptor.as_raw_fd();
    Ok(FdMapping { parent_fd: descriptor, child_fd })
}
