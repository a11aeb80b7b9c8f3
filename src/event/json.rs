//! Values of events as JSON.

/// A number that needs a name, since an event is an object.
pub(super) mod count {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Count {
        count: u64,
    }

    pub(in super::super) fn serialize<S: Serializer>(
        count: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        Count { count: *count }.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        Count::deserialize(from).map(|count| count.count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use time::macros::datetime;

    use crate::event::Event;
    use crate::flow::FlowState;
    use crate::id::{FlowId, JobId};
    use crate::record::{Progress, Scope};
    use crate::state::State;

    #[test]
    fn every_sort_of_event_is_one_object_and_comes_back() {
        let (id, kind, queue) = (JobId(7), "k".to_owned(), "q".to_owned());
        let run_at = datetime!(2026-05-01 08:00 UTC);
        let progress = Progress { done: 1, total: 2, message: None };
        let all = [
            (
                Event::Enqueued { id, kind: kind.clone(), queue },
                json!({ "event": "enqueued", "job": 7, "kind": "k", "queue": "q" }),
            ),
            (
                Event::Progress { id, progress },
                json!({ "event": "progress", "job": 7,
                        "progress": { "done": 1, "total": 2, "message": null } }),
            ),
            (
                Event::Finished { id, kind: None, state: State::Cancelled, took: None },
                json!({ "event": "finished", "job": 7, "kind": null, "state": "cancelled",
                        "took_seconds": null }),
            ),
            (
                Event::Retrying {
                    id,
                    kind: kind.clone(),
                    attempts: 2,
                    run_at,
                    error: "e".to_owned(),
                },
                json!({ "event": "retrying", "job": 7, "kind": "k", "attempts": 2,
                        "run_at": "2026-05-01T08:00:00Z", "error": "e" }),
            ),
            (
                Event::Slow { id, kind: kind.clone(), took: Duration::from_millis(1500) },
                json!({ "event": "slow", "job": 7, "kind": "k", "took_seconds": 1.5 }),
            ),
            (
                Event::FlowEnded { id: FlowId(9), state: FlowState::Failed },
                json!({ "event": "flow_ended", "flow": 9, "state": "failed" }),
            ),
            (
                Event::Paused(Scope::Queue("q".to_owned())),
                json!({ "event": "paused", "scope": "queue", "name": "q" }),
            ),
            (Event::Resumed(Scope::All), json!({ "event": "resumed", "scope": "all" })),
            (Event::Recovered, json!({ "event": "recovered" })),
            (Event::Missed(3), json!({ "event": "missed", "count": 3 })),
        ];
        for (event, expected) in all {
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(value, expected);
            assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
        }
    }
}
