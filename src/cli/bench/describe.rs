//! What a run ran on: without it a figure says nothing.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::super::output;
use super::{Bench, raw};

/// The machine, the file system, the versions, the settings.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    cores: usize,
    cpu: String,
    /// Load average of the last minute as the run began: others' work makes figures worse.
    load: Option<f64>,
    file_system: String,
    sqlite: &'static str,
    legwork: &'static str,
    settings: String,
    build: &'static str,
    quick: bool,
}

impl Description {
    pub(super) fn of(bench: &Bench) -> Description {
        Description {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: cpu(),
            load: load(),
            file_system: file_system(bench.place.dir()),
            sqlite: rusqlite::version(),
            legwork: env!("CARGO_PKG_VERSION"),
            settings: format!(
                "durability synced, WAL, wal_autocheckpoint {}, journal_size_limit {}",
                raw::AUTOCHECKPOINT,
                raw::SIZE_LIMIT
            ),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            quick: bench.quick,
        }
    }

    /// The head of the table for people; warnings go beside it.
    pub(super) fn print(&self) -> io::Result<()> {
        let load = self.load.map_or(String::new(), |load| format!(", load {load:.2}"));
        output::print(format_args!(
            "legwork {} ({} build), SQLite {}, {}\n{} cores, {}{load}, {}\n\n",
            self.legwork,
            self.build,
            self.sqlite,
            self.settings,
            self.cores,
            self.cpu,
            self.file_system
        ))?;
        if cfg!(debug_assertions) {
            eprintln!("warning: a debug build; its figures say nothing, use a release build");
        }
        if matches!(self.file_system.as_str(), "tmpfs" | "ramfs") {
            eprintln!("warning: memory is no disk, a sync costs nothing there; use --dir");
        }
        if self.quick {
            eprintln!("note: --quick does too little for figures to hold");
        }
        Ok(())
    }
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned())
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted(&mounts, dir).unwrap_or("an unknown file system").to_owned()
}

/// The type of the file system that `dir`, a canonical path, lies on. `mounts` has the format of
/// proc(5) mountinfo.
fn mounted<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?.replace("\\040", " ");
            dir.starts_with(&point).then_some((point.len(), right.split(' ').next()?))
        })
        // The deepest; of several at one point the last lies on top, and `max_by_key` takes it.
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_names_the_file_system() {
        let mounts = "\
21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /tmp rw - tmpfs tmpfs rw
31 21 0:41 / /with\\040blank rw - xfs /dev/sdb rw
32 21 0:42 / /tmp rw - btrfs /dev/sdc rw
";
        assert_eq!(mounted(mounts, Path::new("/home/x")), Some("ext4"));
        assert_eq!(mounted(mounts, Path::new("/with blank/x")), Some("xfs"));
        assert_eq!(mounted(mounts, Path::new("/tmp/x")), Some("btrfs"), "the last mount is on top");
        assert_eq!(mounted("", Path::new("/")), None);
    }
}
