//! The job `welcome_email`.

use std::time::Duration;

use legwork::{Context, Job, JobOptions, JobResult, Outcome, Retry};
use serde::{Deserialize, Serialize};

/// Its fields are its arguments, stored as JSON: ids rather than the things themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct WelcomeEmail {
    pub id: i64,
}

impl Job for WelcomeEmail {
    /// Stored with every job: whoever changes it names the old one in `ALIASES`.
    const KIND: &'static str = "welcome_email";
    /// What the engine hands to its jobs, such as a pool of connections.
    type State = ();

    fn options() -> JobOptions {
        JobOptions::new()
            .queue("mail")
            .timeout(Duration::from_secs(60))
            .retry(Retry::exponential(Duration::from_secs(10)).attempts(5))
    }

    /// May run more than once, after a crash for example: safe to repeat.
    fn perform(&self, cx: &Context) -> JobResult {
        cx.log(format!("welcome_email {}", self.id));
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use legwork::{Engine, Jobs, State};

    use super::*;

    #[test]
    fn it_completes() {
        let dir = std::env::temp_dir().join(format!("welcome_email-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let jobs = Jobs::open(dir.join("jobs.db")).unwrap();
        let engine = Engine::builder(&jobs).register::<WelcomeEmail>().manual().unwrap();

        let id = jobs.enqueue(WelcomeEmail { id: 1 }).unwrap();
        engine.run_due().unwrap();
        assert_eq!(jobs.get(id).unwrap().state, State::Completed);

        drop((engine, jobs));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
