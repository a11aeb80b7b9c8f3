//! A disk that keeps what was synced, and of the rest what chance leaves.
//!
//! What is modelled:
//! - A completed sync of a file makes all writes and truncations durable that had come back when it
//!   began. One that had been issued but had not come back is not covered.
//! - Of what is not covered, each sector (of 512 or 4,096 bytes) is found as any of the later calls
//!   left it, or as it was: a page cache writes sectors back in any order, at any time, and a
//!   later write of the same sector takes the earlier one with it. A call that was under way when
//!   the power went may be there in part.
//! - The file's size is any of those that it has had since. Where it grew and no data arrived there
//!   are zeros, or noise: other data that lay there before.
//! - A new or removed name is certain after a sync of the directory; before, each file may be found
//!   under its name or not, whatever became of the others.
//!
//! What is not: sectors that are torn in themselves or damaged beside a write, a disk that lies
//! about syncs, and the lock files (an image has none of them, as if the directory were new).

use std::collections::HashMap;

use fastrand::Rng;

use super::recording::{Call, Event, FILES, File, Recording};

/// What a power cut leaves of each file.
pub type Image = [Option<Vec<u8>>; FILES.len()];

#[derive(Default)]
struct Inode {
    synced: Vec<u8>,
    /// Calls in the order in which they were issued, and whether they have come back.
    pending: Vec<(usize, bool)>,
}

type Names = [Option<usize>; FILES.len()];

pub struct Disk<'a> {
    recording: &'a Recording,
    /// Which syncs count; all of them on an honest disk.
    honours: fn(&Call) -> bool,
    inodes: Vec<Inode>,
    names: Names,
    synced_names: Names,
    pending_names: Vec<(File, Option<usize>)>,
    /// What a sync under way will have covered: the file and its calls, or the names.
    syncs: HashMap<usize, (Option<usize>, Vec<usize>)>,
}

impl<'a> Disk<'a> {
    pub fn new(recording: &'a Recording) -> Disk<'a> {
        Disk::that_honours(recording, |_| true)
    }

    /// One that forgets some of the syncs.
    pub fn that_honours(recording: &'a Recording, honours: fn(&Call) -> bool) -> Disk<'a> {
        Disk {
            recording,
            honours,
            inodes: Vec::new(),
            names: Names::default(),
            synced_names: Names::default(),
            pending_names: Vec::new(),
            syncs: HashMap::new(),
        }
    }

    pub fn apply(&mut self, event: &Event) {
        match *event {
            Event::Issued(number) => self.issued(number),
            Event::Returned(number) => self.returned(number),
            Event::Mark(_) => {}
        }
    }

    fn issued(&mut self, number: usize) {
        let call = &self.recording.calls[number];
        match *call {
            Call::Write { file, .. } | Call::Truncate { file, .. } => {
                let inode = self.names[file].expect("it writes to a file that is there");
                self.inodes[inode].pending.push((number, false));
            }
            Call::Create(file) if self.names[file].is_none() => {
                self.inodes.push(Inode::default());
                self.rename(file, Some(self.inodes.len() - 1));
            }
            Call::Remove(file) => self.rename(file, None),
            Call::Sync(file) if (self.honours)(call) => {
                let inode = self.names[file].expect("it syncs a file that is there");
                let pending = self.inodes[inode].pending.iter();
                let covered = pending.filter(|(_, done)| *done).map(|(call, _)| *call).collect();
                self.syncs.insert(number, (Some(inode), covered));
            }
            Call::SyncDirectory if (self.honours)(call) => {
                self.syncs.insert(number, (None, vec![self.pending_names.len()]));
            }
            Call::Create(_) | Call::Sync(_) | Call::SyncDirectory | Call::Nothing => {}
        }
    }

    fn rename(&mut self, file: File, inode: Option<usize>) {
        self.names[file] = inode;
        self.pending_names.push((file, inode));
    }

    fn returned(&mut self, number: usize) {
        if let Some((inode, covered)) = self.syncs.remove(&number) {
            match inode {
                Some(inode) => self.synced(inode, &covered),
                None => self.names_synced(covered[0]),
            }
        }
        if let Call::Write { file, .. } | Call::Truncate { file, .. } = self.recording.calls[number]
            && let Some(inode) = self.names[file]
            && let Some(own) =
                self.inodes[inode].pending.iter_mut().rfind(|(call, _)| *call == number)
        {
            own.1 = true;
        }
    }

    fn synced(&mut self, inode: usize, covered: &[usize]) {
        let Inode { synced, pending } = &mut self.inodes[inode];
        pending.retain(|(number, _)| {
            let durable = covered.binary_search(number).is_ok();
            if durable {
                match &self.recording.calls[*number] {
                    Call::Write { at, data, .. } => {
                        let end = at + data.len();
                        synced.resize(synced.len().max(end), 0);
                        synced[*at..end].copy_from_slice(data);
                    }
                    Call::Truncate { len, .. } => synced.resize(*len, 0),
                    _ => unreachable!("only these are pending"),
                }
            }
            !durable
        });
    }

    fn names_synced(&mut self, covered: usize) {
        // Two syncs of the directory may have been under way at once.
        for (file, inode) in self.pending_names.drain(..covered.min(self.pending_names.len())) {
            self.synced_names[file] = inode;
        }
    }

    /// What a running system shows now.
    pub fn as_it_is(&self) -> Image {
        self.names.map(|inode| {
            inode.map(|inode| {
                self.survives(&self.inodes[inode], Luck::Everything, &mut Rng::with_seed(0))
            })
        })
    }

    /// What is found after a power cut now.
    pub fn cut(&self, random: &mut Rng) -> Image {
        std::array::from_fn(|file| {
            let later = self.pending_names.iter().filter(|(name, _)| *name == file);
            let mut found: Vec<_> = later.map(|(_, inode)| *inode).collect();
            found.insert(0, self.synced_names[file]);
            let inode = found[random.usize(..found.len())]?;
            let luck = Luck::of(self.inodes[inode].pending.len(), random);
            Some(self.survives(&self.inodes[inode], luck, random))
        })
    }

    fn survives(&self, inode: &Inode, luck: Luck, random: &mut Rng) -> Vec<u8> {
        let calls: Vec<&Call> =
            inode.pending.iter().map(|(number, _)| &self.recording.calls[*number]).collect();
        let mut sizes = vec![inode.synced.len()];
        for call in &calls {
            let before = *sizes.last().unwrap();
            sizes.push(match call {
                Call::Write { at, data, .. } => before.max(at + data.len()),
                Call::Truncate { len, .. } => *len,
                _ => unreachable!("only these are pending"),
            });
        }
        let size = luck.size(&sizes, random);
        let room = *sizes.iter().max().unwrap();
        let mut bytes = inode.synced.clone();
        bytes.resize(room, 0);
        if random.u8(..) < 64 {
            noise(&mut bytes[inode.synced.len()..]);
        }
        let sector = if random.bool() { 512 } else { 4096 };
        let sectors = room.div_ceil(sector).max(1);
        let versions: Vec<usize> =
            (0..sectors).map(|at| luck.version(calls.len(), at, sectors, random)).collect();
        for (number, call) in calls.iter().enumerate() {
            lay(call, &mut bytes, sector, |at| versions[at] > number);
        }
        bytes.truncate(size);
        bytes
    }
}

/// Writes the sectors of a call that have arrived.
fn lay(call: &Call, bytes: &mut [u8], sector: usize, arrived: impl Fn(usize) -> bool) {
    let (from, to) = match call {
        Call::Write { at, data, .. } => (*at, at + data.len()),
        Call::Truncate { len, .. } => (*len, bytes.len()),
        _ => unreachable!("only these are pending"),
    };
    let mut start = from;
    while start < to {
        let end = to.min((start / sector + 1) * sector);
        if arrived(start / sector) {
            match call {
                Call::Write { data, .. } => {
                    bytes[start..end].copy_from_slice(&data[start - from..end - from]);
                }
                _ => bytes[start..end].fill(0),
            }
        }
        start = end;
    }
}

fn noise(bytes: &mut [u8]) {
    let mut piece = [0; 4096];
    Rng::with_seed(bytes.len() as u64).fill(&mut piece);
    for part in bytes.chunks_mut(piece.len()) {
        part.copy_from_slice(&piece[..part.len()]);
    }
}

/// How the calls of a file that are not synced fare.
enum Luck {
    Nothing,
    Everything,
    /// The first ones arrive, of the next one the sectors below a point, or above.
    Prefix {
        whole: usize,
        torn: usize,
        above: bool,
    },
    /// Each sector has arrived as of any moment; some not at all, some as of the last.
    Any {
        none: u8,
        all: u8,
    },
    /// All has arrived but a sector here and there.
    Nearly,
}

impl Luck {
    fn of(calls: usize, random: &mut Rng) -> Luck {
        let prefix = |whole, random: &mut Rng| Luck::Prefix {
            whole,
            torn: random.usize(..),
            above: random.bool(),
        };
        match random.u8(..8) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            2 => prefix(random.usize(..=calls), random),
            3 => prefix(calls.saturating_sub(random.usize(..8)), random),
            4 => Luck::Nearly,
            _ => Luck::Any { none: random.u8(..200), all: random.u8(..200) },
        }
    }

    /// One of the sizes that the file has had: before the first call and after each.
    fn size(&self, sizes: &[usize], random: &mut Rng) -> usize {
        let last = sizes.len() - 1;
        match *self {
            Luck::Nothing => sizes[0],
            Luck::Everything => sizes[last],
            Luck::Prefix { whole, .. } => sizes[last.min(whole + usize::from(random.bool()))],
            _ if random.bool() => sizes[last],
            _ => sizes[random.usize(..sizes.len())],
        }
    }

    /// How many of the calls a sector has seen.
    fn version(&self, calls: usize, at: usize, sectors: usize, random: &mut Rng) -> usize {
        match *self {
            Luck::Nothing => 0,
            Luck::Everything => calls,
            Luck::Prefix { whole, torn, above } => {
                whole + usize::from((at < torn % sectors) != above && whole < calls)
            }
            Luck::Any { none, .. } if random.u8(..) < none => 0,
            Luck::Any { all, .. } if random.u8(..) < all => calls,
            Luck::Any { .. } => random.usize(..=calls),
            Luck::Nearly if random.usize(..sectors) == 0 => random.usize(..=calls),
            Luck::Nearly => calls,
        }
    }
}
