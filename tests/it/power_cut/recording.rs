//! What a process asked of the kernel for its database, in order, from a log of
//! `strace -f -y -xx`.

use std::collections::HashMap;
use std::path::Path;

/// The files that can be there after a power cut, by what their names add to the database's. The
/// `-shm` is not among them: SQLite makes it anew from the WAL.
pub const FILES: [&str; 3] = ["", "-journal", "-wal"];

/// Which of [`FILES`].
pub type File = usize;

pub const DATABASE: File = 0;
pub const WAL: File = 2;

/// The system calls that matter; what changes a file in another way would be seen as one that is
/// not understood, or make the files of the end differ.
pub const CALLS: &str = "trace=open,creat,openat,write,writev,pwrite64,pwritev,pwritev2,\
    truncate,ftruncate,fallocate,fsync,fdatasync,sync_file_range,unlink,unlinkat,rename,renameat,\
    renameat2,link,linkat,symlink,symlinkat";

#[derive(Debug, PartialEq)]
pub enum Call {
    Write {
        file: File,
        at: usize,
        data: Vec<u8>,
    },
    Truncate {
        file: File,
        len: usize,
    },
    /// Opened with O_CREAT: makes the file if there is none.
    Create(File),
    Remove(File),
    Sync(File),
    SyncDirectory,
    /// It failed.
    Nothing,
}

#[derive(Debug, PartialEq)]
pub enum Event {
    Issued(usize),
    Returned(usize),
    Mark(String),
}

/// The calls, and the order in which they were issued and came back. What another thread's call
/// overtook stands in two places.
#[derive(Default)]
pub struct Recording {
    pub calls: Vec<Call>,
    pub events: Vec<Event>,
}

impl Recording {
    pub fn read(log: &Path, database: &Path) -> Recording {
        let log = std::fs::read(log).unwrap();
        Recording::parse(&log, database.to_str().unwrap())
    }

    fn parse(log: &[u8], database: &str) -> Recording {
        let mut reader = Reader {
            directory: Path::new(database).parent().unwrap().to_str().unwrap(),
            database,
            recording: Recording::default(),
            under_way: HashMap::new(),
        };
        log.split(|&byte| byte == b'\n').for_each(|line| reader.line(line));
        assert!(reader.under_way.is_empty(), "calls that never came back");
        reader.recording
    }
}

struct Reader<'a> {
    database: &'a str,
    directory: &'a str,
    recording: Recording,
    /// Calls that have not come back, by thread.
    under_way: HashMap<String, usize>,
}

impl Reader<'_> {
    fn line(&mut self, line: &[u8]) {
        // All strings are in hexadecimal, so the line is ASCII.
        let line = std::str::from_utf8(line).unwrap();
        let Some((thread, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        if call.starts_with("<... ") {
            if let Some(number) = self.under_way.remove(thread) {
                self.came_back(number, failed(call));
            }
            return;
        }
        let Some((name, rest)) = call.split_once('(') else { return };
        if name == "write" && rest.starts_with("1<") {
            self.mark(rest);
            return;
        }
        let Some(understood) = self.understand(name, rest) else { return };
        let number = self.recording.calls.len();
        self.recording.calls.push(understood);
        self.recording.events.push(Event::Issued(number));
        if call.ends_with("<unfinished ...>") {
            self.under_way.insert(thread.to_owned(), number);
        } else {
            self.came_back(number, failed(call));
        }
    }

    fn came_back(&mut self, number: usize, failed: bool) {
        let call = &mut self.recording.calls[number];
        if failed {
            let changes = matches!(call, Call::Write { .. } | Call::Truncate { .. });
            assert!(!changes, "a write failed: what is on the disk cannot be known");
            *call = Call::Nothing;
        }
        self.recording.events.push(Event::Returned(number));
    }

    /// A line to standard output.
    fn mark(&mut self, rest: &str) {
        let said = bytes(quoted(rest));
        if let Some(mark) = said.strip_prefix(b"mark ") {
            let mark = String::from_utf8(mark.trim_ascii_end().to_vec()).unwrap();
            self.recording.events.push(Event::Mark(mark));
        }
    }

    fn understand(&self, name: &str, rest: &str) -> Option<Call> {
        match name {
            "openat" | "open" if rest.contains("O_CREAT") => {
                let file = self.file(&text(quoted(rest)))?;
                assert!(!rest.contains("O_TRUNC"), "not understood: {name}({rest}");
                Some(Call::Create(file))
            }
            "openat" | "open" => None,
            "pwrite64" => {
                let file = self.file(&descriptor(rest))?;
                let data = bytes(quoted(rest));
                let mut numbers = rest.rsplit_once('"').unwrap().1.split([',', ')', ' ']);
                let mut number = || numbers.find_map(|part| part.parse::<usize>().ok()).unwrap();
                assert_eq!(number(), data.len(), "strace cut the data short");
                Some(Call::Write { file, at: number(), data })
            }
            "ftruncate" => {
                let file = self.file(&descriptor(rest))?;
                let len = rest.split_once(">, ").unwrap().1;
                let len = len.split([')', ' ']).next().unwrap().parse().unwrap();
                Some(Call::Truncate { file, len })
            }
            "fsync" | "fdatasync" => {
                let path = descriptor(rest);
                if path == self.directory {
                    return Some(Call::SyncDirectory);
                }
                self.file(&path).map(Call::Sync)
            }
            "unlink" | "unlinkat" => self.file(&text(quoted(rest))).map(Call::Remove),
            _ => {
                let touched = rest
                    .split(['"', '<', '>'])
                    .any(|part| part.starts_with("\\x") && self.file(&text(part)).is_some());
                assert!(!touched, "not understood: {name}({rest}");
                None
            }
        }
    }

    fn file(&self, path: &str) -> Option<File> {
        let suffix = path.strip_prefix(self.database)?;
        FILES.iter().position(|&file| file == suffix)
    }
}

fn failed(call: &str) -> bool {
    call.rsplit_once(" = ").is_some_and(|(_, result)| result.starts_with('-'))
}

/// What stands between the first two quotation marks.
fn quoted(rest: &str) -> &str {
    rest.split('"').nth(1).unwrap_or_default()
}

/// The file behind the first descriptor.
fn descriptor(rest: &str) -> String {
    let path = rest.split_once('<').and_then(|(_, path)| path.split_once('>'));
    path.map(|(path, _)| text(path)).unwrap_or_default()
}

fn text(hex: &str) -> String {
    String::from_utf8(bytes(hex)).unwrap()
}

/// `\x00\x2d...`
fn bytes(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("not in hexadecimal: {hex}"),
    };
    hex.as_bytes().chunks(4).map(|byte| digit(byte[2]) << 4 | digit(byte[3])).collect()
}

#[test]
fn calls_that_were_overtaken_are_issued_in_one_place_and_return_in_another() {
    let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let log = format!(
        "7  openat(AT_FDCWD<{dir}>, \"{wal}\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 4<{wal}>\n\
         7 pwrite64(4<{wal}>, \"\\x01\\xfe\", 2, 32 <unfinished ...>\n\
         8 write(1<{dir}>, \"{mark}\", 10) = 10\n\
         8 fdatasync(3<{db}> <unfinished ...>\n\
         7 <... pwrite64 resumed>) = 2\n\
         8 <... fdatasync resumed>) = 0\n\
         8 fsync(5<{dir}>) = 0\n\
         9 pwrite64(5<{shm}>, \"\\x00\", 1, 4095) = 1\n\
         9 unlink(\"{db}\") = -1 ENOENT (No such file or directory)\n\
         9 ftruncate(4<{wal}>, 0) = 0\n\
         9 +++ exited with 0 +++\n",
        dir = hex("/d"),
        db = hex("/d/x"),
        wal = hex("/d/x-wal"),
        shm = hex("/d/x-shm"),
        mark = hex("mark acked 5\n"),
    );
    let recording = Recording::parse(log.as_bytes(), "/d/x");
    assert_eq!(
        recording.calls,
        [
            Call::Create(WAL),
            Call::Write { file: WAL, at: 32, data: vec![1, 254] },
            Call::Sync(DATABASE),
            Call::SyncDirectory,
            Call::Nothing,
            Call::Truncate { file: WAL, len: 0 },
        ]
    );
    use Event::{Issued, Mark, Returned};
    assert_eq!(
        recording.events,
        [
            Issued(0),
            Returned(0),
            Issued(1),
            Mark("acked 5".to_owned()),
            Issued(2),
            Returned(1),
            Returned(2),
            Issued(3),
            Returned(3),
            Issued(4),
            Returned(4),
            Issued(5),
            Returned(5),
        ]
    );
}
