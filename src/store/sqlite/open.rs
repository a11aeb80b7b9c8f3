//! Opening a file: everything that can be wrong with it is found before the first write.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::errors::{code, is_busy, storing};
use super::migrate;
use super::version;
use super::writer;
use crate::beside;
use crate::error::{Error, Result};
use crate::store::Settings;

/// STRICT tables came with 3.37.
pub(super) const OLDEST_SQLITE: i32 = 3_037_000;

/// Statements kept prepared on each connection; the writer has about forty.
pub(super) const STATEMENTS: usize = 64;

/// Opens the write connection, checks the file, turns it to WAL and brings its schema up to date.
pub(super) fn open_writer(settings: &Settings) -> Result<(Connection, PathBuf)> {
    let given = &plain(&settings.path).into_owned();
    check_sqlite(given)?;
    version::warn_of_bugs();
    let is_new = match fs::metadata(given) {
        Ok(meta) if meta.is_dir() => {
            return Err(Error::Foreign { path: given.clone(), why: "it is a directory".into() });
        }
        // A device or a pipe, which SQLite would read.
        Ok(meta) if !meta.is_file() => {
            return Err(Error::Foreign {
                path: given.clone(),
                why: "it is no regular file".into(),
            });
        }
        // SQLite takes a file of one byte for an empty one.
        Ok(meta) if meta.len() == 1 => return Err(not_sqlite(given)),
        Ok(meta) => meta.len() == 0,
        Err(_) if !settings.create => {
            return Err(Error::NoDatabase { path: given.clone(), exists: false });
        }
        Err(_) => true,
    };
    if let Some(of) = beside::part_of(given) {
        let why = format!("SQLite keeps it beside {}, which is the database", of.display());
        return Err(Error::Foreign { path: given.clone(), why });
    }
    let existed = given.exists();
    let directory = directory_of(given);
    if !directory.is_dir() {
        return Err(Error::Foreign {
            path: given.clone(),
            why: format!("its directory {} does not exist", directory.display()),
        });
    }
    if !settings.allow_network_fs {
        refuse_network_fs(given, directory)?;
    }
    let creating = if settings.create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let conn = Connection::open_with_flags(
        given,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | creating,
    )
    .map_err(|error| opening(given, error))?;
    let path = fs::canonicalize(given).unwrap_or_else(|_| given.clone());
    conn.busy_timeout(Duration::ZERO).map_err(storing)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    let found =
        while_busy(Instant::now() + Duration::from_secs(1), || check_content(&conn, &path))?;
    if !settings.create && found == Content::Others {
        return Err(Error::NoDatabase { path: given.clone(), exists: true });
    }
    if !existed {
        // SQLite gives `-wal` and `-shm` the permissions that it finds on the database.
        make_private(&path)?;
    }
    let deadline = Instant::now() + settings.busy_timeout;
    while_busy(deadline, || prepare(&conn, &path, is_new, deadline, settings.busy_timeout))?;
    Ok((conn, path))
}

/// Runs `step` again for as long as another process that opens the file holds it up: until the
/// file is in WAL mode, readers and writers wait for each other.
fn while_busy<T>(deadline: Instant, mut step: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match step() {
            Err(Error::Busy { .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// Turns the file to WAL and brings its schema up to date. May be done again from the beginning.
fn prepare(
    conn: &Connection,
    path: &Path,
    is_new: bool,
    deadline: Instant,
    patience: Duration,
) -> Result<()> {
    if is_new {
        // Only possible before the first table; lets idle moments give freed pages back.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(storing)?;
    }
    turn_to_wal(conn, path, deadline, patience)?;
    configure(conn)?;
    // The schema must be on the disk before anything is acknowledged in it.
    conn.execute_batch("PRAGMA synchronous = FULL").map_err(storing)?;
    if migrate::version(conn)? != migrate::KNOWN {
        patiently(deadline, || conn.execute_batch("BEGIN IMMEDIATE"))
            .map_err(|error| busy_or(error, patience))?;
        if let Err(error) = migrate::migrate(conn) {
            // The transaction is given up with the connection in any case.
            let _ = conn.execute_batch("ROLLBACK");
            return Err(error);
        }
        conn.execute_batch("COMMIT").map_err(storing)?;
    }
    Ok(())
}

/// Opens a connection that can only read.
pub(super) fn open_reader(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        plain(path),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(conn)
}

/// A path that is nothing but a path: SQLite takes `file:...` for a URI, and what begins with a colon for a
/// database in memory.
pub(super) fn plain(path: &Path) -> Cow<'_, Path> {
    let name = path.as_os_str().as_encoded_bytes();
    if name.starts_with(b"file:") || name.starts_with(b":") {
        Cow::Owned(Path::new(".").join(path))
    } else {
        Cow::Borrowed(path)
    }
}

pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn check_sqlite(path: &Path) -> Result<()> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(Error::Foreign {
            path: path.to_owned(),
            why: format!("SQLite {} is too old, 3.37 is needed", rusqlite::version()),
        });
    }
    Ok(())
}

fn not_sqlite(path: &Path) -> Error {
    Error::Foreign { path: path.to_owned(), why: "it is not an SQLite database".into() }
}

pub(super) fn opening(path: &Path, error: rusqlite::Error) -> Error {
    match code(&error) {
        Some(
            rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::PermissionDenied,
        ) => Error::ReadOnly { path: path.to_owned(), why: error.to_string() },
        Some(rusqlite::ErrorCode::NotADatabase) => not_sqlite(path),
        // Such as a file format from the future.
        None | Some(rusqlite::ErrorCode::Unknown) => {
            Error::Foreign { path: path.to_owned(), why: error.to_string() }
        }
        _ => storing(error),
    }
}

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    Legworks,
    /// Tables, but none of legwork's.
    Others,
}

/// Reads what can be read without writing: is it SQLite, is it sound so far, is it ours or older?
fn check_content(conn: &Connection, path: &Path) -> Result<Content> {
    let looked = patiently(Instant::now() + Duration::from_secs(1), || {
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
    });
    let objects = looked.map_err(|error| opening(path, error))?;
    check_length(conn, path)?;
    Ok(match migrate::check(conn)? {
        0 if objects == 0 => Content::Nothing,
        0 => Content::Others,
        _ => Content::Legworks,
    })
}

/// A database has whole pages. SQLite does not mind if the last one is cut off, and reads zeros there. While
/// the `-wal` holds anything, somebody may be making the file longer at this moment, or was cut short doing so.
fn check_length(conn: &Connection, path: &Path) -> Result<()> {
    let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(storing)?;
    let page = page.unsigned_abs().max(1);
    let length = fs::metadata(path).map_or(0, |file| file.len());
    if !length.is_multiple_of(page) && !is_in_use(path) {
        return Err(Error::Corrupt(format!(
            "the file ends in the middle of a page: {length} bytes, in pages of {page}"
        )));
    }
    Ok(())
}

/// Runs `step` until it is not refused for a lock, or the deadline has passed. SQLite's own busy
/// handler is not asked for a change of the journal mode.
fn patiently<T>(
    deadline: Instant,
    mut step: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match step() {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

fn busy_or(error: rusqlite::Error, waited: Duration) -> Error {
    if is_busy(&error) { Error::Busy { waited } } else { storing(error) }
}

fn turn_to_wal(
    conn: &Connection,
    path: &Path,
    deadline: Instant,
    patience: Duration,
) -> Result<()> {
    let mode = |sql: &str| to_the_end(conn, sql);
    let before = mode("PRAGMA journal_mode").map_err(|error| opening(path, error))?;
    if before == "wal" {
        // Whoever only reads has nothing to wait for.
        return can_write(conn, path, Instant::now(), patience);
    }
    can_write(conn, path, deadline, patience)?;
    let after = patiently(deadline, || mode("PRAGMA journal_mode = WAL")).map_err(|error| {
        if is_busy(&error) {
            Error::Foreign {
                path: path.to_owned(),
                why: format!(
                    "it is in journal mode {before} and in use, so it cannot be turned to WAL"
                ),
            }
        } else {
            opening(path, error)
        }
    })?;
    if after != "wal" {
        return Err(Error::Foreign {
            path: path.to_owned(),
            why: format!("it stays in journal mode {after}; WAL is needed"),
        });
    }
    if before != "delete" {
        log::warn!("legwork: {} turned from journal mode {before} to WAL", path.display());
    } else {
        log::info!("legwork: {} turned to WAL", path.display());
    }
    can_write(conn, path, deadline, patience)
}

/// The answer of a pragma that has run to its end. One that writes answers before its commit, and
/// whether that fails is only seen behind the answer.
fn to_the_end(conn: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut answer = String::new();
    while let Some(row) = rows.next()? {
        answer = row.get(0)?;
    }
    Ok(answer)
}

/// A write transaction that is rolled back: changes no byte, fails on whatever cannot be written.
/// It must write something: on a file that it could only open for reading, SQLite takes a mere
/// `BEGIN IMMEDIATE` for `BEGIN`.
///
/// A table: to make one SQLite looks for a free page, and meets what is damaged about that. But to take it
/// back it reads the whole schema again. If the `-wal` holds anything, somebody has the file open or has just
/// had it; then it is a number in the header, written as it is.
fn can_write(conn: &Connection, path: &Path, deadline: Instant, patience: Duration) -> Result<()> {
    let step = || {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let wrote = if is_in_use(path) {
            conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0))
                .and_then(|version| conn.execute_batch(&format!("PRAGMA user_version = {version}")))
        } else {
            conn.execute_batch("CREATE TABLE legwork_can_write (x)")
        };
        // A full disk or an I/O error may have ended it already.
        let undone = if conn.is_autocommit() { Ok(()) } else { conn.execute_batch("ROLLBACK") };
        wrote.and(undone)
    };
    match patiently(deadline, step) {
        Ok(()) => Ok(()),
        // Locked by somebody who can write it: so could we.
        Err(error) if is_busy(&error) && patience > Duration::ZERO => Ok(()),
        Err(error) => Err(opening(path, error)),
    }
}

/// By the metadata of the `-wal` alone.
fn is_in_use(path: &Path) -> bool {
    fs::metadata(beside::wal(path)).is_ok_and(|wal| wal.len() > 0)
}

fn configure(conn: &Connection) -> Result<()> {
    // A WAL that a long reader has let grow is cut back to this; smaller would cost the warm WAL.
    conn.query_row("PRAGMA journal_size_limit = 8388608", [], |_| Ok(())).map_err(storing)?;
    writer::checkpoints(conn, writer::CHECKPOINTS)?;
    // On macOS a plain fsync does not reach the medium.
    conn.execute_batch(
        "PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1; PRAGMA foreign_keys = OFF",
    )
    .map_err(storing)
}

#[cfg(unix)]
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| Error::ReadOnly {
        path: path.to_owned(),
        why: format!("its permissions cannot be set: {error}"),
    })
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> Result<()> {
    Ok(())
}

fn refuse_network_fs(path: &Path, directory: &Path) -> Result<()> {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let Ok(directory) = fs::canonicalize(directory) else { return Ok(()) };
    match network_fs(&mounts, &directory) {
        Some(fs) => Err(Error::NetworkFs { path: path.to_owned(), fs: fs.to_owned() }),
        None => Ok(()),
    }
}

/// The type of the file system that `directory` lies on, if it is a network file system.
/// `mounts` has the format of proc(5) mountinfo.
pub(super) fn network_fs<'a>(mounts: &'a str, directory: &Path) -> Option<&'a str> {
    const NETWORK: [&str; 18] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph-fuse",
        "fuse.cephfs",
        "fuse.gvfsd-fuse",
        "fuse.juicefs",
        "fuse.rclone",
        "fuse.s3fs",
    ];
    let mut best: (usize, &str) = (0, "");
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        let Some(kind) = right.split(' ').next() else { continue };
        let point = unescape(point);
        // Later mounts lie over earlier ones at the same point.
        if directory.starts_with(&point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    NETWORK.contains(&best.1).then_some(best.1)
}

/// Blanks stand as octal escapes in mountinfo.
fn unescape(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:40 / /mnt/share rw,relatime - nfs4 server:/x rw,vers=4.2
31 30 8:2 / /mnt/share/local rw - ext4 /dev/sdb1 rw
32 21 0:41 / /mnt/with\\040blank rw - cifs //server/x rw
33 21 0:39 / /mnt/far rw,nosuid,nodev,relatime - fuse.sshfs host:/x rw,user_id=0,group_id=0
34 21 0:42 / /mnt/near rw,nosuid,nodev,relatime - fuse /x rw,user_id=0,default_permissions
";

    #[test]
    fn the_deepest_mount_decides() {
        for (path, fs) in [
            ("/home/x", None),
            ("/mnt/share/db", Some("nfs4")),
            ("/mnt/share/local/db", None),
            ("/mnt/shared", None),
            ("/mnt/with blank/x", Some("cifs")),
            ("/mnt/far/x", Some("fuse.sshfs")),
            ("/mnt/near/x", None),
        ] {
            assert_eq!(network_fs(MOUNTS, Path::new(path)), fs, "{path}");
        }
    }
}
