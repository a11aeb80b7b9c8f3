//! Doorbells: how an engine learns at once of what another process has committed.
//!
//! Each instance has a datagram socket beside its lock file, and a thread that sleeps on it. Whoever
//! commits something that concerns others rings their bells *after* the commit; the one who is rung
//! looks at the file. A ring that finds the socket full is lost, which does no harm: then rings are
//! pending and the look is still to come. A ring before the commit would be a look too early, and
//! nobody would look again: that is why watching the WAL file does not work.

/// Where there are no such sockets, or one could not be made, the engine looks by itself this
/// often.
pub(super) const WITHOUT: std::time::Duration = std::time::Duration::from_millis(250);

#[cfg(unix)]
pub(super) use self::unix::{Bell, Ringer, short};

#[cfg(not(unix))]
pub(super) use self::nowhere::{Bell, Ringer};

#[cfg(unix)]
mod unix {
    use std::fs::{self, File};
    use std::io;
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::{self, JoinHandle};

    /// A bell that hangs; taken down when it is dropped.
    pub(in super::super) struct Bell {
        socket: UnixDatagram,
        path: PathBuf,
        down: Arc<AtomicBool>,
        /// Of the process that hung it.
        process: u32,
        thread: Option<JoinHandle<()>>,
    }

    impl Bell {
        /// Hangs a bell of this name; `rung` is called in its thread with the byte of each ring.
        pub(in super::super) fn hang(
            side: &Path,
            name: &str,
            mut rung: impl FnMut(u8) + Send + 'static,
        ) -> io::Result<Bell> {
            let path = side.join(name);
            let socket = short(side, name, |path| UnixDatagram::bind(path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            let ear = socket.try_clone()?;
            let down = Arc::new(AtomicBool::new(false));
            let taken_down = Arc::clone(&down);
            let thread =
                thread::Builder::new().name("legwork-doorbell".into()).spawn(move || {
                    let mut ring = [0; 1];
                    // A socket that is shut down hears empty datagrams; others may send such, too.
                    loop {
                        match ear.recv(&mut ring) {
                            _ if taken_down.load(Ordering::Acquire) => return,
                            Ok(_) => rung(ring[0]),
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => {
                                log::warn!("legwork: the doorbell is deaf: {error}");
                                return;
                            }
                        }
                    }
                })?;
            Ok(Bell { socket, path, down, process: std::process::id(), thread: Some(thread) })
        }

        /// Whether others still find it.
        pub(in super::super) fn is_in_place(&self) -> bool {
            let listens = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
            listens && fs::symlink_metadata(&self.path).is_ok()
        }
    }

    impl Drop for Bell {
        fn drop(&mut self) {
            if self.process != std::process::id() {
                return;
            }
            if let Err(error) = fs::remove_file(&self.path) {
                log::debug!("legwork: removing {}: {error}", self.path.display());
            }
            self.down.store(true, Ordering::Release);
            if let Err(error) = self.socket.shutdown(Shutdown::Both) {
                // The thread would not end, so it is not waited for.
                log::warn!("legwork: a doorbell stays up: {error}");
            } else if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
                log::error!("legwork: the doorbell's thread had panicked");
            }
        }
    }

    /// Rings other instances' bells.
    #[derive(Default)]
    pub(in super::super) struct Ringer {
        socket: Option<UnixDatagram>,
    }

    impl Ringer {
        /// Rings without ever waiting.
        ///
        /// # Errors
        /// If nobody can have heard it: there is no such bell, or nobody listens.
        pub(in super::super) fn ring(&mut self, side: &Path, name: &str) -> io::Result<()> {
            if self.socket.is_none() {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                self.socket = Some(socket);
            }
            let Some(socket) = &self.socket else { return Ok(()) };
            match short(side, name, |path| socket.send_to(&[1], path)) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            }
        }
    }

    /// Does it with a path that fits into a socket address: that has room for about a hundred
    /// bytes, and a longer one goes by the descriptor of its directory.
    pub(in super::super) fn short<T>(
        side: &Path,
        name: &str,
        with: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        const ROOM: usize = 100;
        let path = side.join(name);
        if path.as_os_str().len() <= ROOM {
            return with(&path);
        }
        let directory = File::open(side)?;
        with(&PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::sync::mpsc;
        use std::time::Duration;

        fn rings_in(side: &Path) {
            let (tell, told) = mpsc::channel();
            let bell = Bell::hang(side, "a.bell", move |_| tell.send(()).unwrap()).unwrap();
            let mut ringer = Ringer::default();
            for _ in 0..3 {
                ringer.ring(side, "a.bell").unwrap();
                told.recv_timeout(Duration::from_secs(30)).unwrap();
            }
            assert!(bell.is_in_place());
            drop(bell);
            // Its thread is gone, and with it the other end.
            assert!(told.recv().is_err());
            assert!(ringer.ring(side, "a.bell").is_err());
        }

        #[test]
        fn a_ring_is_heard_and_a_bell_that_is_taken_down_is_not() {
            rings_in(tempfile::tempdir().unwrap().path());
        }

        #[test]
        fn a_path_that_is_too_long_for_an_address_rings_too() {
            let dir = tempfile::tempdir().unwrap();
            let side = dir.path().join("x".repeat(120));
            fs::create_dir(&side).unwrap();
            rings_in(&side);
        }

        #[test]
        fn ringing_never_waits() {
            let dir = tempfile::tempdir().unwrap();
            // A bell at which nobody listens any more, but which is still there: it fills up.
            let _deaf = UnixDatagram::bind(dir.path().join("a.bell")).unwrap();
            let mut ringer = Ringer::default();
            for _ in 0..10_000 {
                ringer.ring(dir.path(), "a.bell").unwrap();
            }
        }
    }
}

#[cfg(not(unix))]
mod nowhere {
    use std::io;
    use std::path::Path;

    pub(in super::super) struct Bell;

    impl Bell {
        pub(in super::super) fn hang(
            _: &Path,
            _: &str,
            _: impl FnMut(u8) + Send + 'static,
        ) -> io::Result<Bell> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in super::super) fn is_in_place(&self) -> bool {
            false
        }
    }

    #[derive(Default)]
    pub(in super::super) struct Ringer;

    impl Ringer {
        pub(in super::super) fn ring(&mut self, _: &Path, _: &str) -> io::Result<()> {
            Ok(())
        }
    }
}
