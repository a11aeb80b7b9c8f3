//! What has to be done for an order, a job each. They hold the order's number and nothing else:
//! the rest stands in the shop's tables.

use std::time::Duration;

use legwork::{Context, Failure, Job, JobOptions, JobResult, Outcome, ResultExt, Retry};
use lettre::Transport;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::mail;
use crate::shop::Shop;

/// When the customer is asked for a review.
pub const REVIEW_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// Every kind, in the order of the summary.
pub const KINDS: [&str; 6] = [
    Payment::KIND,
    Inventory::KIND,
    Confirmation::KIND,
    Analytics::KIND,
    Notification::KIND,
    ReviewReminder::KIND,
];

/// How many jobs of an order are to be done at once: all but the reminder.
pub const AT_ONCE: u64 = 5;

/// Quick retries, so that the show is over in seconds; a real shop would wait longer.
fn soon() -> Retry {
    Retry::exponential(Duration::from_millis(100)).cap(Duration::from_secs(1)).attempts(20)
}

/// Charges the customer.
#[derive(Serialize, Deserialize)]
pub struct Payment {
    pub order: i64,
}

impl Job for Payment {
    const KIND: &'static str = "payment";
    type State = Shop;

    fn options() -> JobOptions {
        JobOptions::new().queue("payments").retry(soon())
    }

    /// The charge itself happens outside the database and can happen again if the program dies
    /// before the commit (a real gateway takes an idempotency key for that). The shop's books are
    /// in the database: row and end of the job commit together, so there it counts exactly once.
    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        let shop = cx.state();
        shop.ledger.start(self.order, cx.attempt())?;
        shop.reach_gateway(self.order, cx.attempt())?;
        shop.ledger.append(format_args!("charge {}", self.order))?;
        shop.transaction(|tx| {
            tx.execute(
                "INSERT INTO payments (order_id, cents) SELECT id, cents FROM orders WHERE id = ?1",
                [self.order],
            )?;
            Ok(cx.finish_in(tx)?)
        })?;
        Ok(Outcome::Done)
    }
}

/// Takes the product off the shelf.
#[derive(Serialize, Deserialize)]
pub struct Inventory {
    pub order: i64,
}

impl Job for Inventory {
    const KIND: &'static str = "inventory";
    type State = Shop;

    fn options() -> JobOptions {
        JobOptions::new().retry(soon())
    }

    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        cx.state().transaction(|tx| {
            tx.execute(
                "INSERT INTO stock (product, sold) SELECT product, 1 FROM orders WHERE id = ?1
                 ON CONFLICT (product) DO UPDATE SET sold = sold + 1",
                [self.order],
            )?;
            Ok(cx.finish_in(tx)?)
        })?;
        Ok(Outcome::Done)
    }
}

/// Confirms the order by mail.
#[derive(Serialize, Deserialize)]
pub struct Confirmation {
    pub order: i64,
}

impl Job for Confirmation {
    const KIND: &'static str = "confirmation";
    type State = Shop;

    fn options() -> JobOptions {
        JobOptions::new().queue("mail").timeout(Duration::from_secs(10)).retry(soon())
    }

    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        let shop = cx.state();
        let customer = shop.customer_of(self.order)?;
        let mail =
            mail::confirmation(self.order, &customer).map_err(Failure::from_boxed).fatal()?;
        match shop.mailer.send(&mail) {
            Ok(_) => Ok(Outcome::Done),
            // "No such mailbox" will not get better; "try again later" may.
            Err(refused) if refused.is_permanent() => Err(refused).fatal(),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// Counts the sale.
#[derive(Serialize, Deserialize)]
pub struct Analytics {
    pub order: i64,
}

impl Job for Analytics {
    const KIND: &'static str = "analytics";
    type State = Shop;

    fn options() -> JobOptions {
        // Nobody waits for it: what else stands in the queue goes first.
        JobOptions::new().priority(10).retry(soon())
    }

    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        cx.state().transaction(|tx| {
            tx.execute(
                "INSERT INTO revenue (product, cents) SELECT product, cents FROM orders WHERE id = ?1
                 ON CONFLICT (product) DO UPDATE SET cents = cents + excluded.cents",
                [self.order],
            )?;
            Ok(cx.finish_in(tx)?)
        })?;
        Ok(Outcome::Done)
    }
}

/// Leaves a message in the customer's account.
#[derive(Serialize, Deserialize)]
pub struct Notification {
    pub order: i64,
}

impl Job for Notification {
    const KIND: &'static str = "notification";
    type State = Shop;

    fn options() -> JobOptions {
        JobOptions::new().retry(soon())
    }

    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        leave_message(cx, self.order, "we have your order")
    }
}

/// Asks for a review, a week later.
#[derive(Serialize, Deserialize)]
pub struct ReviewReminder {
    pub order: i64,
}

impl Job for ReviewReminder {
    const KIND: &'static str = "review_reminder";
    type State = Shop;

    fn perform(&self, cx: &Context<Shop>) -> JobResult {
        leave_message(cx, self.order, "how do you like it?")
    }
}

fn leave_message(cx: &Context<Shop>, order: i64, text: &str) -> JobResult {
    cx.state().transaction(|tx| {
        tx.execute("INSERT INTO messages (order_id, text) VALUES (?1, ?2)", params![order, text])?;
        Ok(cx.finish_in(tx)?)
    })?;
    Ok(Outcome::Done)
}
