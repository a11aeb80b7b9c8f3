//! Flows, seen from inside: what falls into one transaction, and what is left for the next.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::book::Book;
use super::demand::Demand;
use super::flows;
use super::migrate;
use crate::clock::{Micros, Random};
use crate::flow::{Batch, EnqueuedFlow, NewFlow};
use crate::id::JobId;
use crate::new_job::{NewJob, NewRow, Retention};
use crate::rules::queues::Queues;
use crate::state::State;
use crate::store::{Control, Controlled, PoolSpec};

const NOW: Micros = 1_000_000;

fn job() -> NewJob {
    NewJob::of_kind_json("k", "{}")
}

fn row(job: NewJob) -> NewRow {
    job.into_row(NOW, 100).unwrap()
}

/// A file in its first transaction.
fn book() -> Book {
    let conn = Connection::open_in_memory().unwrap();
    migrate::migrate(&conn).unwrap();
    let mut book = Book::new(conn);
    assert!(book.begin().unwrap());
    book
}

impl Book {
    fn next_transaction(&mut self) {
        self.settle(NOW, Retention::default()).unwrap();
        self.commit().unwrap();
        assert!(self.begin().unwrap());
    }

    fn insert_one(&mut self, job: NewJob) -> JobId {
        self.insert(&[row(job)], &mut Demand::default()).unwrap()[0].id()
    }

    fn do_now(&mut self, control: &Control) -> Controlled {
        self.control(control, NOW, Retention::default()).unwrap()
    }

    fn cancel_one(&mut self, id: JobId) {
        self.do_now(&Control::Cancel { ids: vec![id], reason: "no".to_owned() });
    }

    fn batch(&mut self, members: usize) -> EnqueuedFlow {
        let batch = (0..members).fold(Batch::new("b"), |batch, _| batch.add(job()));
        let flow = NewFlow::from(batch).into_row(Ok, |job| job.into_row(NOW, 100)).unwrap();
        self.enqueue_flow(&flow, NOW, Retention::default()).unwrap()
    }

    fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_parent_that_ends_and_is_deleted_in_one_transaction_is_heard_of_before() {
    let mut book = book();
    let parent = book.insert_one(job());
    let child = book.insert_one(job().after([parent]));
    book.next_transaction();
    book.cancel_one(parent);
    book.do_now(&Control::Delete(vec![parent]));
    book.next_transaction();
    let ended = super::control::finished(&book.conn, child).unwrap();
    assert_eq!(ended.map(|child| child.state), Some(State::Cancelled));
}

#[test]
fn a_parent_that_completes_and_is_run_again_in_one_transaction_has_done_its_part() {
    let mut book = book();
    let parent = book.insert_one(job());
    let child = book.insert_one(job().after([parent]));
    book.next_transaction();
    book.cancel_one(parent);
    let completed = "UPDATE legwork_history SET state = 6 WHERE id = ?1";
    book.conn.execute(completed, [parent.0]).unwrap();
    book.do_now(&Control::Retry(vec![parent]));
    book.cancel_one(parent);
    book.next_transaction();
    let child = super::ends::live(&book.conn, child.0).unwrap();
    assert_eq!(child.map(|child| child.state), Some(State::Ready));
}

#[test]
fn a_deleted_parent_is_forgotten_however_many_children_it_had() {
    for children in [super::edges::BITE, super::edges::BITE + 1] {
        let mut book = book();
        let parent = book.insert_one(job());
        let rows: Vec<NewRow> = (0..children).map(|_| row(job().after([parent]))).collect();
        book.insert(&rows, &mut Demand::default()).unwrap();
        book.next_transaction();
        book.do_now(&Control::Delete(vec![parent]));
        book.next_transaction();
        book.next_transaction();
        assert_eq!((book.count("legwork_jobs"), book.count("legwork_edges")), (0, 0), "{children}");
    }
}

#[test]
fn a_flow_is_not_pruned_before_all_have_heard_of_its_members_ends() {
    let mut book = book();
    let flow = book.batch(1);
    let child = || row(job().after([flow.members[0]]));
    let children: Vec<NewRow> = (0..1_000).map(|_| child()).collect();
    book.insert(&children, &mut Demand::default()).unwrap();
    book.next_transaction();
    book.cancel_one(flow.members[0]);
    book.next_transaction();
    for _ in 0..10 {
        book.prune_flow(Micros::MAX, 200).unwrap();
        book.next_transaction();
    }
    assert_eq!((book.count("legwork_jobs"), book.count("legwork_flows")), (0, 0));
}

#[test]
fn of_a_flow_that_is_pruned_in_part_nothing_comes_back() {
    let mut book = book();
    let flow = book.batch(300);
    book.next_transaction();
    flow.members.iter().for_each(|&id| book.cancel_one(id));
    book.next_transaction();
    assert_eq!(book.prune_flow(Micros::MAX, 200).unwrap(), Some(200));
    assert!(flows::is_going(&book.conn, flow.id.0).unwrap());
    let last = flow.members[299];
    assert_eq!(book.do_now(&Control::Retry(vec![last])).skipped, [(last, None)]);
    // Whatever the time, and the cap: the rest goes with the next bite.
    assert_eq!(book.prune_flow(NOW, 200).unwrap(), Some(100));
    assert_eq!((book.count("legwork_history"), book.count("legwork_flows")), (0, 0));
}

/// Two processes, each with an engine on the file.
fn two(file: &Path) -> [Book; 2] {
    let open = || {
        let conn = Connection::open(file).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        conn
    };
    migrate::migrate(&open()).unwrap();
    let mut books = [open(), open()].map(Book::new);
    for (instance, book) in (8..).zip(&mut books) {
        let spec = PoolSpec {
            instance,
            queues: Queues::parse(&[]).unwrap(),
            kinds: Arc::new(["k".to_owned()].into()),
        };
        book.open_pool(1, spec);
        assert!(book.begin().unwrap());
        let sql =
            "INSERT INTO legwork_instances (id, lock_file, lock_inode, db_path, db_inode, boot_id,
                                                  pid, pid_start, pid_space, started_at)
                   VALUES (?1, '', 1, '', 1, '', 1, 1, 1, 1)";
        book.conn.execute(sql, [instance]).unwrap();
        book.set_own(instance, true);
        book.roster_moved();
        book.commit().unwrap();
    }
    for book in &mut books {
        book.transaction(|_| ());
    }
    books
}

impl Book {
    fn transaction<T>(&mut self, work: impl FnOnce(&mut Book) -> T) -> T {
        assert!(self.begin().unwrap());
        let done = work(self);
        self.settle(NOW, Retention::default()).unwrap();
        self.advance(NOW).unwrap();
        self.commit().unwrap();
        done
    }
}

#[test]
fn children_that_one_process_enqueues_hear_of_an_end_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = two(&dir.path().join("test.db"));
    let both = |book: &mut Book| {
        let parent = book.insert_one(job());
        (parent, book.insert_one(job().after([parent])))
    };
    let (parent, _) = one.transaction(both);
    // The other one cancels and prunes them: there are no edges any more.
    other.transaction(|book| book.cancel_one(parent));
    other.transaction(|book| book.prune(Micros::MAX - 1, 0).unwrap());
    assert_eq!(other.count("legwork_edges"), 0);
    let (parent, child) = one.transaction(both);
    other.transaction(|book| book.cancel_one(parent));
    let ended = super::control::finished(&other.conn, child).unwrap();
    assert_eq!(ended.map(|child| child.state), Some(State::Cancelled));
}

#[test]
fn a_job_of_a_new_lane_is_claimed_by_whoever_makes_it_ready() {
    let dir = tempfile::tempdir().unwrap();
    let [mut one, mut other] = two(&dir.path().join("test.db"));
    let later = std::time::Duration::from_secs(1);
    let id = one.transaction(|book| book.insert_one(job().queue("new").delay(later)));
    let claimed = other.transaction(|book| {
        book.make_due_ready(2 * NOW).unwrap();
        book.claim(1, NOW, &Random::seeded(1), Retention::default(), &mut Vec::new()).unwrap()
    });
    assert_eq!(claimed.map(|claimed| claimed.claim.id), Some(id));
}

#[test]
fn a_lane_that_was_made_for_a_job_that_did_not_come_is_known_to_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.db");
    let [mut one, mut other] = two(&file);
    one.transaction(|book| book.insert_one(job().unique_key("k")));
    // The app's own connection, and a key that is taken.
    let app = Connection::open(&file).unwrap();
    let taken = row(job().queue("new").unique_key("k"));
    super::enqueue::insert_on(&app, &taken, Retention::default()).unwrap();
    let later = std::time::Duration::from_secs(1);
    let new = job().queue("new").priority(-1).delay(later);
    let id = one.transaction(|book| book.insert_one(new));
    let claimed = other.transaction(|book| {
        book.make_due_ready(2 * NOW).unwrap();
        book.claim(1, NOW, &Random::seeded(1), Retention::default(), &mut Vec::new()).unwrap()
    });
    assert_eq!(claimed.map(|claimed| claimed.claim.id), Some(id));
}
