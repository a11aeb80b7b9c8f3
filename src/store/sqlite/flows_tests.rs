//! Flows, seen from inside: what falls into one transaction, and what is left for the next.

use super::book::Book;
use super::demand::Demand;
use super::flows;
use super::migrate;
use crate::clock::Micros;
use crate::flow::{Batch, EnqueuedFlow, NewFlow};
use crate::id::JobId;
use crate::new_job::{NewJob, NewRow, Retention};
use crate::state::State;
use crate::store::{Control, Controlled};

const NOW: Micros = 1_000_000;

fn job() -> NewJob {
    NewJob::of_kind_json("k", "{}")
}

fn row(job: NewJob) -> NewRow {
    job.into_row(NOW, 100).unwrap()
}

/// A file in its first transaction.
fn book() -> Book {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
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
        let flow = NewFlow::from(batch).into_row(|job| job.into_row(NOW, 100)).unwrap();
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
