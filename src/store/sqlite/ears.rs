//! Ears: where a process listens to what happens in the others.
//!
//! An ear is a datagram socket in the side directory. Whoever hangs one up rings the engines' doorbells
//! with a byte of its own; an engine that is rung so, or joins later, looks which ears there are, and says
//! what happens to each of them. Nobody waits for an ear: one that is full misses something, one at
//! which nobody listens any more is taken down.

/// What rings a doorbell for the ears' sake.
pub(super) const RING: u8 = 2;

/// What became of something that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Heard,
    /// Nobody has read what was said before.
    Full,
    /// Nobody is there.
    Gone,
}

#[cfg(unix)]
pub(crate) use self::unix::{Ear, Mouth};

#[cfg(not(unix))]
pub(crate) use self::nowhere::{Ear, Mouth};

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::net::Shutdown;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;
    use std::path::{Path, PathBuf};
    use std::thread::{self, JoinHandle};

    use super::super::doorbell::short;
    use super::super::lock_file::make_private_dir;
    use super::{RING, Said};
    use crate::beside;

    const ENDING: &str = ".ear";

    /// Taken down when it is dropped.
    pub(crate) struct Ear {
        socket: UnixDatagram,
        path: PathBuf,
        process: u32,
        thread: Option<JoinHandle<()>>,
    }

    impl Ear {
        /// Hangs an ear up; `heard` is called in its thread with all that is said. A socket holds little:
        /// it is to be emptied at once, however slowly whoever listens takes it in.
        pub(crate) fn hang(
            db: &Path,
            longest: usize,
            mut heard: impl FnMut(&[u8]) + Send + 'static,
        ) -> io::Result<Ear> {
            let side = beside::side(db);
            make_private_dir(&side)?;
            take_dead_ones_down(&side);
            let process = std::process::id();
            let mut number = 0;
            let (socket, name) = loop {
                let name = format!("{process}-{number}{ENDING}");
                match short(&side, &name, |path| UnixDatagram::bind(path)) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => number += 1,
                    socket => break (socket?, name),
                }
            };
            let mut ear = Ear { socket, path: side.join(name), process, thread: None };
            fs::set_permissions(&ear.path, fs::Permissions::from_mode(0o600))?;
            let socket = ear.socket.try_clone()?;
            let thread =
                thread::Builder::new().name("legwork-listener".into()).spawn(move || {
                    let mut buffer = vec![0; longest];
                    // A socket that is shut down hears nothing but empty datagrams; nobody else sends such.
                    loop {
                        match socket.recv(&mut buffer) {
                            Ok(0) => return,
                            Ok(length) => heard(&buffer[..length]),
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => {
                                log::warn!("legwork: nothing more is heard: {error}");
                                return;
                            }
                        }
                    }
                })?;
            ear.thread = Some(thread);
            Ok(ear)
        }

        /// Nobody finds it any more. A child made by fork takes nothing down: it is its parent's.
        pub(crate) fn take_down(&mut self) {
            if self.process != std::process::id() {
                std::mem::forget(self.thread.take());
                return;
            }
            let Some(thread) = self.thread.take() else { return };
            take_down(&self.path);
            if let Err(error) = self.socket.shutdown(Shutdown::Both) {
                // The thread would not end, so it is not waited for.
                log::warn!("legwork: an ear stays up: {error}");
            } else if thread.join().is_err() {
                log::error!("legwork: the listener's thread had panicked");
            }
        }
    }

    impl Drop for Ear {
        fn drop(&mut self) {
            self.take_down();
        }
    }

    /// Those whose process was killed.
    fn take_dead_ones_down(side: &Path) {
        for name in names(side) {
            let dead = UnixDatagram::unbound()
                .and_then(|socket| short(side, &name, |path| socket.connect(path)))
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if dead {
                take_down(&side.join(name));
            }
        }
    }

    fn take_down(path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            log::debug!("legwork: removing {}: {error}", path.display());
        }
    }

    fn names(side: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(side) else { return Vec::new() };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        entries.flatten().filter_map(name).filter(|name| name.ends_with(ENDING)).collect()
    }

    /// Says things to ears, and rings for their sake, without ever waiting.
    pub(crate) struct Mouth {
        side: PathBuf,
        socket: UnixDatagram,
    }

    impl Mouth {
        pub(crate) fn new(db: &Path) -> io::Result<Mouth> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Mouth { side: beside::side(db), socket })
        }

        /// The names of the ears that hang there.
        pub(crate) fn ears(&self) -> Vec<String> {
            names(&self.side)
        }

        pub(crate) fn say(&self, ear: &str, what: &[u8]) -> Said {
            match short(&self.side, ear, |path| self.socket.send_to(what, path)) {
                Ok(_) => Said::Heard,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Said::Full,
                    io::ErrorKind::ConnectionRefused => {
                        take_down(&self.side.join(ear));
                        Said::Gone
                    }
                    _ => {
                        log::debug!("legwork: {ear}: {error}");
                        Said::Gone
                    }
                },
            }
        }

        /// Rings an engine's bell: ears have come or gone.
        pub(crate) fn ring(&self, bell: &str) -> Said {
            match short(&self.side, bell, |path| self.socket.send_to(&[RING], path)) {
                Ok(_) => Said::Heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Full,
                Err(_) => Said::Gone,
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;
        use std::time::Duration;

        use super::*;

        #[test]
        fn what_is_said_is_heard_and_an_ear_that_is_full_or_dead_keeps_nobody() {
            let dir = tempfile::tempdir().unwrap();
            let db = dir.path().join("x.db");
            let (tell, told) = mpsc::sync_channel(0);
            let ear = Ear::hang(&db, 16, move |said| {
                let _ = tell.send(said.to_vec());
            })
            .unwrap();
            let mouth = Mouth::new(&db).unwrap();
            let [name] = &mouth.ears()[..] else { panic!("one ear") };
            assert_eq!(mouth.say(name, b"hello"), Said::Heard);
            assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap(), b"hello");
            while mouth.say(name, b"more") != Said::Full {}

            // As if its process had been killed: the socket is closed and its name is still there.
            let Ear { path, .. } = &ear;
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let other = path.with_file_name("1-0.ear");
            drop(UnixDatagram::bind(&other).unwrap());
            assert_eq!(mouth.say("1-0.ear", b"?"), Said::Gone);
            assert!(!other.exists());
            drop(UnixDatagram::bind(&other).unwrap());
            drop(Ear::hang(&db, 16, |_| {}).unwrap());
            assert_eq!(&mouth.ears(), std::slice::from_ref(name), "the living one is left alone");
            drop(told);
            drop(ear);
            assert!(mouth.ears().is_empty());
        }
    }
}

#[cfg(not(unix))]
mod nowhere {
    use std::io;
    use std::path::Path;

    use super::Said;

    pub(crate) struct Ear;

    impl Ear {
        pub(crate) fn hang(
            _: &Path,
            _: usize,
            _: impl FnMut(&[u8]) + Send + 'static,
        ) -> io::Result<Ear> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn take_down(&mut self) {}
    }

    pub(crate) struct Mouth;

    impl Mouth {
        pub(crate) fn new(_: &Path) -> io::Result<Mouth> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn ears(&self) -> Vec<String> {
            Vec::new()
        }

        pub(crate) fn say(&self, _: &str, _: &[u8]) -> Said {
            Said::Gone
        }

        pub(crate) fn ring(&self, _: &str) -> Said {
            Said::Gone
        }
    }
}
