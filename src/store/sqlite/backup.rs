//! A compact copy of the whole file while it is in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::errors::storing;
use super::{lock_file, open};
use crate::beside;
use crate::error::{Error, Result};

/// See [`Jobs::backup`](crate::Jobs::backup).
pub(super) fn backup(from: &Path, busy_timeout: Duration, to: &Path) -> Result<()> {
    let failed = |why: String| Error::ReadOnly { path: to.to_owned(), why };
    if to.symlink_metadata().is_ok() {
        return Err(failed("it exists already".to_owned()));
    }
    if let Some(why) = unsafe_name(to) {
        return Err(Error::invalid("backup path", why));
    }
    // Under its own name stands only what is whole: whoever is killed meanwhile leaves no such file.
    let partial = &partial(to);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    lock_file::private(&mut options);
    // SQLite fills an empty file; made here so that nobody else can read it. No connection has
    // this file open yet, so closing it drops no locks.
    let file = options.open(partial).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => failed(format!(
            "{} is there: another backup writes it, or was killed while it did, and it can go",
            partial.display()
        )),
        _ => failed(error.to_string()),
    })?;
    drop(file);
    let remove = || {
        if let Err(error) = fs::remove_file(partial) {
            log::warn!("legwork: {} is left behind: {error}", partial.display());
        }
    };
    copy_into(from, busy_timeout, partial).inspect_err(|_| remove())?;
    // Closed again by SQLite: now the copy may be opened to sync it, and its directory entry.
    let sync = |path: &Path| fs::File::open(path).and_then(|file| file.sync_all());
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(partial)
        .and_then(|()| rename(partial, to))
        .inspect_err(|_| remove())
        .and_then(|()| sync(directory.unwrap_or(Path::new("."))))
        .map_err(|error| Error::Io(Box::new(error)))
}

/// Why a database cannot have this name: SQLite takes what stands beside a file for a part of it.
fn unsafe_name(to: &Path) -> Option<String> {
    if let Some(of) = beside::part_of(to) {
        return Some(format!(
            "SQLite takes such a file for a part of {}, and may remove it: take another name",
            of.display()
        ));
    }
    let left = beside::left_of(to)?;
    Some(format!(
        "{} is there, of a file that had this name before: remove it first, or take another name",
        left.display()
    ))
}

fn partial(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Never over another file, where the file system has links.
fn rename(partial: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(partial, to) {
        Ok(()) => fs::remove_file(partial),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => fs::rename(partial, to),
    }
}

fn copy_into(from: &Path, busy_timeout: Duration, to: &Path) -> Result<()> {
    let source = open::open_reader(from, busy_timeout).map_err(storing)?;
    let to = &*open::plain(to);
    let name = to.to_str().ok_or_else(|| {
        Error::invalid("backup path", "it is not UTF-8, which SQLite needs to write there")
    })?;
    source.execute("VACUUM INTO ?1", [name]).map_err(storing)?;
    drop(source);
    let copy = Connection::open(to).map_err(storing)?;
    // The jobs that were running here are claimable there. No process of theirs has died, so they
    // are no suspects by it; those that were stay so.
    copy.execute_batch(
        "INSERT OR IGNORE INTO legwork_unique (key, slot, job)
         SELECT unique_key, 0, id FROM legwork_jobs WHERE state = 4 AND unique_hold = 1;
         UPDATE legwork_jobs SET state = 3, instance = NULL, token = NULL, started_at = NULL,
                cancel_requested = NULL
          WHERE instance IS NOT NULL;
         DELETE FROM legwork_instances;",
    )
    .map_err(storing)?;
    copy.close().map_err(|(_, error)| storing(error))
}
