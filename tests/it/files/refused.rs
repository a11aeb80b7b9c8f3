//! Files of others, of a newer legwork, cut short or damaged: refused, and left as they are.

use std::fs;
use std::path::Path;

use legwork::{Error, Filter, Jobs};

use super::{bytes, many, refused};
use crate::common::place;

#[test]
fn a_file_of_a_newer_legwork_is_refused_and_left_as_it_is() {
    let place = place();
    many(&place.open(), 3);
    let conn = place.connect();
    conn.execute("UPDATE legwork_meta SET value = 99 WHERE key = 'schema'", []).unwrap();
    drop(conn);
    let before = bytes(&place.path);
    let error = refused(&place.path);
    assert!(matches!(error, Error::Newer { found: 99, known: 1 }), "{error}");
    assert_eq!(bytes(&place.path), before);
}

#[test]
fn a_schema_version_that_is_no_number_is_reported_as_damage() {
    let place = place();
    drop(place.open());
    let conn = place.connect();
    conn.execute("UPDATE legwork_meta SET value = 'new' WHERE key = 'schema'", []).unwrap();
    drop(conn);
    let error = refused(&place.path);
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

#[test]
fn a_file_that_is_not_sqlite_is_refused_and_left_as_it_is() {
    for content in [&b"x"[..], &[b'y'; 600], &b"a letter to a friend\n".repeat(1000), &[0; 4096]] {
        let place = place();
        fs::write(&place.path, content).unwrap();
        let error = refused(&place.path);
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(bytes(&place.path), content);
    }
}

#[test]
fn a_directory_and_a_missing_directory_are_refused_and_nothing_is_created() {
    let place = place();
    let error = refused(place.dir.path());
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let error = refused(&place.dir.path().join("missing").join("app.db"));
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert_eq!(fs::read_dir(place.dir.path()).unwrap().count(), 0);
}

/// Opens a damaged file and reads every table of legwork in it.
fn read_all(path: &Path) -> legwork::Result<()> {
    let jobs = Jobs::open(path)?;
    let mut before = None;
    loop {
        let page = jobs.list(&Filter::new(), before, 1000)?;
        before = page.next;
        if before.is_none() {
            return jobs.stats().map(drop);
        }
    }
}

fn damaged(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_) | Error::Foreign { .. })
}

#[test]
fn a_truncated_file_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 500);
    let whole = bytes(&place.path);
    let page = 4096;
    assert!(whole.len() > 20 * page);
    for length in [50, 100, 1000, page, 2 * page, 7 * page, whole.len() / 2, whole.len() - 1] {
        fs::write(&place.path, &whole[..length]).unwrap();
        let error = read_all(&place.path).expect_err("a truncated file was read");
        assert!(damaged(&error), "{length} bytes: {error:?}");
        assert_eq!(bytes(&place.path), whole[..length], "{length} bytes");
    }
}

#[test]
fn a_corrupted_file_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 500);
    let whole = bytes(&place.path);
    let mut reported = 0;
    for page in 0..whole.len() / 4096 {
        // The head of the page's tree: on the first page behind the file's own header.
        let at = page * 4096 + if page == 0 { 100 } else { 0 };
        let mut bad = whole.clone();
        bad[at..at + 8].fill(0xff);
        fs::write(&place.path, &bad).unwrap();
        if let Err(error) = read_all(&place.path) {
            assert!(damaged(&error), "page {page}: {error:?}");
            assert_eq!(bytes(&place.path), bad, "page {page}");
            reported += 1;
        }
    }
    assert!(reported > 20, "only {reported} damaged pages were noticed");
}

#[test]
fn a_damaged_header_is_reported_and_not_written_over() {
    let place = place();
    many(&place.open(), 10);
    let whole = bytes(&place.path);
    for at in [0, 16, 17, 21, 47] {
        let mut bad = whole.clone();
        bad[at] = !bad[at];
        fs::write(&place.path, &bad).unwrap();
        let error = read_all(&place.path).expect_err(&format!("byte {at} was accepted"));
        assert!(damaged(&error), "byte {at}: {error:?}");
        assert_eq!(bytes(&place.path), bad, "byte {at}");
    }
}

#[test]
fn who_only_looks_makes_neither_files_nor_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let look = |path: &Path| Jobs::builder(path).create(false).open();
    let Err(Error::NoDatabase { exists: false, .. }) = look(&path) else { panic!() };
    assert!(!path.exists());

    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    drop(app);
    let before = bytes(&path);
    let Err(Error::NoDatabase { exists: true, .. }) = look(&path) else { panic!() };
    assert_eq!(bytes(&path), before);

    drop(Jobs::open(&path).unwrap());
    let looking = look(&path).unwrap();
    // Beside others that have it open in this process, too.
    let jobs = Jobs::open(&path).unwrap();
    let id = jobs.enqueue(super::Quick).unwrap();
    assert_eq!(look(&path).unwrap().get(id).unwrap(), looking.get(id).unwrap());
    // One in which there is nothing may be about to be made.
    let empty = dir.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    look(&empty).unwrap();
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_not_opened() {
    assert!(matches!(refused(Path::new("/dev/null")), Error::Foreign { .. }));
}
