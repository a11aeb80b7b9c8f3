//! Who may only read, and what the owner alone may.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use legwork::{Engine, Error, Jobs, Pool};
use rusqlite::Connection;

use super::{bytes, many, refused};
use crate::common::{SOON, place};

const PLACE: &str = "LEGWORK_READ_ONLY_PLACE";
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_read_only_file_or_directory_is_refused_and_left_as_it_is() {
    let place = place();
    let root = place.dir.path();
    let (open_dir, closed_dir) = (root.join("open"), root.join("closed"));
    fs::create_dir(&open_dir).unwrap();
    fs::create_dir(&closed_dir).unwrap();
    let files = [open_dir.join("file.db"), closed_dir.join("file.db"), closed_dir.join("own.db")];
    for file in &files {
        many(&Jobs::open(file).unwrap(), 3);
    }
    let plain = [open_dir.join("empty.db"), open_dir.join("delete.db")];
    fs::write(&plain[0], b"").unwrap();
    Connection::open(&plain[1]).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    plain.iter().for_each(|file| mode(file, 0o444));
    mode(root, 0o755);
    mode(&files[0], 0o444);
    mode(&files[1], 0o444);
    mode(&files[2], 0o666);
    mode(&open_dir, 0o777);
    mode(&closed_dir, 0o555);
    let before = files.each_ref().map(|file| bytes(file));

    // Root may write anywhere, so the look is another user's, by a program that this user can
    // reach.
    let program = root.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let mut child = Command::new(&program);
    child.args(["--exact", "--ignored", "files::read_only::as_a_user_who_may_only_read"]);
    child.env(PLACE, root).env("TMPDIR", &open_dir);
    if fs::metadata(root).unwrap().uid() == 0 {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");

    mode(&closed_dir, 0o755);
    assert_eq!(files.each_ref().map(|file| bytes(file)), before);
    assert_eq!(bytes(&plain[0]), b"");
    assert!(!closed_dir.join("new.db").exists());
}

#[test]
#[ignore = "run by a_read_only_file_or_directory_is_refused_and_left_as_it_is"]
fn as_a_user_who_may_only_read() {
    let Some(root) = std::env::var_os(PLACE) else { return };
    let root = Path::new(&root);
    for file in [
        "open/file.db",
        "closed/file.db",
        "closed/own.db",
        "closed/new.db",
        "open/empty.db",
        "open/delete.db",
    ] {
        let error = refused(&root.join(file));
        assert!(matches!(error, Error::ReadOnly { .. }), "{file}: {error:?}");
    }
}

#[test]
fn the_database_its_companions_and_the_lock_files_are_the_owners_alone() {
    let place = place();
    let jobs = place.open();
    let engine = Engine::builder(&jobs).pool(Pool::new(["*"]).workers(1)).start().unwrap();
    many(&jobs, 3);
    let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{}{suffix}", place.path.display());
        assert_eq!(mode_of(Path::new(&name)), 0o600, "{name}");
    }
    let side = place.dir.path().join("test.db-legwork");
    assert_eq!(mode_of(&side), 0o700);
    let beside: Vec<_> = fs::read_dir(&side).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(beside.len(), 2, "a lock file and a doorbell: {beside:?}");
    for path in &beside {
        assert_eq!(mode_of(path), 0o600, "{}", path.display());
    }

    let copy = place.dir.path().join("copy.db");
    jobs.backup(&copy).unwrap();
    assert_eq!(mode_of(&copy), 0o600);
    engine.stop(SOON).unwrap();
}
