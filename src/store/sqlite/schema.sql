-- legwork's part of the file, version 1. Everything it owns is named legwork_*.
--
-- Times are INTEGER microseconds since 1970-01-01 UTC. States are the numbers of `legwork::State`:
-- 1 scheduled, 2 blocked, 3 ready, 4 running, 5 retrying, 6 completed, 7 failed, 8 cancelled;
-- the view legwork_all_jobs at the end spells everything out.

-- The schema's version and other facts about the file.
CREATE TABLE legwork_meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: the last numbers given out. Read and raised in the transaction that uses them, so that
-- ids follow the order of commits and none is given twice, whoever writes.
CREATE TABLE legwork_counter (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    last_job      INTEGER NOT NULL,
    last_instance INTEGER NOT NULL,
    -- Counts the times that something of a lane became claimable; and the lanes of the last of them,
    -- oldest first. Whoever has missed more than these looks at every lane.
    last_change   INTEGER NOT NULL,
    changed_lanes TEXT    NOT NULL,
    -- Count the comings and goings in legwork_instances, the requests to stop a running job, and
    -- the changes of what else others keep in memory (what is paused, what falls due): so they see
    -- at a glance whether there is anything to read.
    roster        INTEGER NOT NULL,
    asked         INTEGER NOT NULL,
    rules         INTEGER NOT NULL
) STRICT;
INSERT INTO legwork_counter VALUES (1, 0, 0, 0, '', 0, 0, 0);

-- A lane is a queue, a kind and a gate: the unit by which a pool serves, pauses and skips jobs. What
-- a pool may not run costs it nothing, however much of it waits.
CREATE TABLE legwork_lanes (
    id    INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    kind  TEXT NOT NULL,
    gate  TEXT NOT NULL DEFAULT '',     -- '': none
    UNIQUE (queue, kind, gate)
) STRICT;

-- What must not be started now. Pausing moves no job.
CREATE TABLE legwork_pauses (
    scope TEXT NOT NULL CHECK (scope IN ('all', 'queue', 'kind')),
    name  TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (scope, name),
    CHECK ((scope = 'all') = (name = ''))
) STRICT, WITHOUT ROWID;

-- The gates that are closed; all others are open. Ready jobs behind one of these are shown as
-- blocked. Closing and opening move no job.
CREATE TABLE legwork_gates (
    name      TEXT PRIMARY KEY CHECK (name <> ''),
    closed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The processes that run jobs of this file. A row is alive while its process holds the lock on
-- lock_file; the rest tells a missing or foreign lock file from a dead process.
CREATE TABLE legwork_instances (
    id         INTEGER PRIMARY KEY,
    lock_file  TEXT NOT NULL,      -- name inside the side directory
    lock_inode INTEGER NOT NULL,
    db_path    TEXT NOT NULL,      -- canonical path and inode of the database as it was opened:
    db_inode   INTEGER NOT NULL,   -- a copy of the file has other ones
    boot_id    TEXT NOT NULL,      -- after a reboot no instance lives
    pid        INTEGER NOT NULL,
    pid_start  INTEGER NOT NULL,   -- start of the process, in clock ticks since boot
    pid_space  TEXT NOT NULL,      -- the process ids' namespace
    started_at INTEGER NOT NULL,
    -- JSON array: its pools, for those who look. Written anew when one is resized.
    pools      TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(pools)),
    -- JSON array: the kinds that it runs, for those who look.
    kinds      TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(kinds))
) STRICT;

-- The kinds that engines know, as of the last one that started and knew it otherwise. For whoever
-- enqueues without the kind's type: the view legwork_enqueue, the command line.
CREATE TABLE legwork_kinds (
    kind     TEXT PRIMARY KEY,
    options  TEXT NOT NULL CHECK (json_valid(options)),  -- what the kind sets of queue, priority, ...
    known_at INTEGER NOT NULL                            -- since when they stand like this
) STRICT, WITHOUT ROWID;

-- The jobs that are not finished: the only table that claims touch.
CREATE TABLE legwork_jobs (
    id               INTEGER PRIMARY KEY,
    lane             INTEGER NOT NULL REFERENCES legwork_lanes (id),
    state            INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
    priority         INTEGER NOT NULL,  -- lower runs first
    run_at           INTEGER NOT NULL,
    enqueued_at      INTEGER NOT NULL,
    attempts         INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- used up
    first_started_at INTEGER,           -- of the first attempt, once one has failed
    expires_at       INTEGER,           -- it ends by then unless it has started; NULL once it has
    -- The claim: who holds the job, and by which number. A finish must name both.
    instance         INTEGER,
    token            INTEGER,
    started_at       INTEGER,           -- of the attempt under way; NULL while only claimed ahead
    cancel_requested INTEGER CHECK (cancel_requested = 1),
    args             TEXT NOT NULL CHECK (json_valid(args)),
    options          TEXT,              -- JSON: what this job has instead of its kind's options
    tags             TEXT,              -- JSON array of strings
    meta             TEXT,              -- JSON object of strings
    progress_done    INTEGER,
    progress_total   INTEGER,
    message          TEXT,
    unique_key       TEXT,              -- and when it is freed: 1 at a start, 2 at the end, 3 after a
    unique_hold      INTEGER CHECK (unique_hold BETWEEN 1 AND 4),  -- period, 4 one runs, one waits
    limits           TEXT,              -- JSON: how many may run at once, or start in a time
    -- The line in which it waits for one of them, and the numbers by which it may leave it. While
    -- blocked it waits; while ready it is next, and leaves the line by its start.
    waits_on         TEXT,
    waits_as         TEXT,
    flow             INTEGER,           -- the flow whose member it is
    -- How many of its parents have still to end before it may start; it is blocked until then.
    parents_left     INTEGER CHECK (parents_left > 0),
    has_steps        INTEGER CHECK (has_steps = 1),  -- a result of one is stored, or was
    -- NULL: above suspicion. In a suspect (it was held by a process that died), a JSON array: when
    -- it was the only suspect under way as its process died.
    crashes          TEXT CHECK (crashes IS NULL OR json_valid(crashes)),
    CHECK ((unique_key IS NULL) = (unique_hold IS NULL)),
    CHECK ((instance IS NULL) = (token IS NULL)),
    CHECK (instance IS NULL OR state IN (3, 4)),
    CHECK ((state = 4) = (started_at IS NOT NULL)),
    CHECK (state <> 4 OR instance IS NOT NULL),
    -- Whoever starts a job that can expire clears that; it is never claimed ahead.
    CHECK (expires_at IS NULL OR instance IS NULL),
    CHECK ((waits_on IS NULL) = (waits_as IS NULL)),
    CHECK (waits_on IS NULL OR (limits IS NOT NULL AND instance IS NULL)),
    CHECK (parents_left IS NULL OR (state = 2 AND waits_on IS NULL AND instance IS NULL)),
    -- A suspect is never claimed ahead.
    CHECK (crashes IS NULL OR state = 4 OR instance IS NULL)
) STRICT;
-- Serves: the next job of a lane, in claim order. Suspects have an index of their own, so that a
-- claim passes by those that have to wait for another suspect.
CREATE INDEX legwork_next_ready ON legwork_jobs (lane, priority, run_at, id)
    WHERE state = 3 AND instance IS NULL AND crashes IS NULL;
-- Serves: the next suspect, in claim order over all lanes.
CREATE INDEX legwork_next_suspect ON legwork_jobs (priority, run_at, id)
    WHERE state = 3 AND instance IS NULL AND crashes IS NOT NULL;
-- Serve: what falls due next. Two, since SQLite uses a partial index only for its own condition.
CREATE INDEX legwork_next_scheduled ON legwork_jobs (run_at) WHERE state = 1;
CREATE INDEX legwork_next_retrying ON legwork_jobs (run_at) WHERE state = 5;
-- Serves: what expires next.
CREATE INDEX legwork_next_expiry ON legwork_jobs (expires_at) WHERE expires_at IS NOT NULL;
-- Serves: what an instance holds, for its rescue, and what is running.
CREATE INDEX legwork_held ON legwork_jobs (instance) WHERE instance IS NOT NULL;
-- Serves: what an instance runs and was asked to stop, from whatever process.
CREATE INDEX legwork_asked ON legwork_jobs (instance) WHERE cancel_requested = 1;
-- Serves: whether a process runs a suspect.
CREATE INDEX legwork_running_suspects ON legwork_jobs (instance)
    WHERE instance IS NOT NULL AND crashes IS NOT NULL;

-- Serves: who is next in a line, and who waits in it, for each kind of numbers and each lane.
CREATE INDEX legwork_waiting ON legwork_jobs (waits_on, waits_as, lane, state, priority, run_at, id)
    WHERE waits_on IS NOT NULL;

-- Serves: the members of a flow that have not finished.
CREATE INDEX legwork_members ON legwork_jobs (flow) WHERE flow IS NOT NULL;

-- Who takes up part of a limit: one row for each attempt under way and each of its keys. It goes with
-- the attempt's end, or with its instance.
CREATE TABLE legwork_slots (
    key      TEXT    NOT NULL,
    instance INTEGER NOT NULL,
    token    INTEGER NOT NULL,
    job      INTEGER NOT NULL,
    PRIMARY KEY (key, instance, token)
) STRICT, WITHOUT ROWID;
-- Serves: what an instance takes up, for its rescue.
CREATE INDEX legwork_slots_of_instance ON legwork_slots (instance);

-- How much has started by a rate. Below 0 stands a key that is evenly spaced, by the space between two
-- starts, and `until` says when it is free again; otherwise what has started at a time (in hundredths of
-- the rate's), for as long as it counts.
CREATE TABLE legwork_rates (
    key    TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    weight INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    since  INTEGER,                     -- of a key that is evenly spaced: its last start
    PRIMARY KEY (key, at),
    CHECK ((at < 0) = (since IS NOT NULL))
) STRICT, WITHOUT ROWID;
-- Serves: what no longer counts.
CREATE INDEX legwork_rates_over ON legwork_rates (until);

-- The lines that only the time moves on, and when.
CREATE TABLE legwork_lines (
    line    TEXT    PRIMARY KEY,
    look_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Serves: the next of them.
CREATE INDEX legwork_next_look ON legwork_lines (look_at);

-- Which job holds a unique key. Slot 0 is the holder; where one may run beside one that waits
-- (unique_hold 4), it is the one that waits, and slot 1 the one that runs.
CREATE TABLE legwork_unique (
    key    TEXT NOT NULL,
    slot   INTEGER NOT NULL CHECK (slot IN (0, 1)),
    job    INTEGER NOT NULL,
    until  INTEGER,                     -- the end of a period, which outlives the job, and its
    period INTEGER,                     -- length: if more than twice that is left, a clock was wrong
    PRIMARY KEY (key, slot),
    CHECK ((until IS NULL) = (period IS NULL))
) STRICT, WITHOUT ROWID;
-- Serves: which periods are over.
CREATE INDEX legwork_unique_until ON legwork_unique (until) WHERE until IS NOT NULL;

-- The finished jobs, with all that running them again needs.
CREATE TABLE legwork_history (
    id               INTEGER PRIMARY KEY,
    lane             INTEGER NOT NULL REFERENCES legwork_lanes (id),
    state            INTEGER NOT NULL CHECK (state BETWEEN 6 AND 8),
    priority         INTEGER NOT NULL,
    run_at           INTEGER NOT NULL,
    enqueued_at      INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    started_at       INTEGER,           -- of the last attempt; NULL if there was none
    finished_at      INTEGER NOT NULL,
    prune_at         INTEGER NOT NULL,
    args             TEXT NOT NULL,
    options          TEXT,
    tags             TEXT,
    meta             TEXT,
    progress_done    INTEGER,
    progress_total   INTEGER,
    message          TEXT,
    output           TEXT,              -- JSON
    unique_key       TEXT,
    unique_hold      INTEGER,
    limits           TEXT,
    flow             INTEGER,
    cause            INTEGER,           -- the parent whose end has cancelled it
    reason           TEXT               -- why it failed or was cancelled
) STRICT;
-- Serves: what is to be pruned next.
CREATE INDEX legwork_next_prune ON legwork_history (prune_at);
-- Serve: lists of the jobs that did not complete.
CREATE INDEX legwork_list_failed ON legwork_history (id) WHERE state = 7;
CREATE INDEX legwork_list_cancelled ON legwork_history (id) WHERE state = 8;

-- Serves: the members of a flow that have finished.
CREATE INDEX legwork_finished_members ON legwork_history (flow) WHERE flow IS NOT NULL;

-- Who waits for whom: the child may start once the parent has completed (anyway = 1: once it has
-- finished, however). Such an edge is done, and stays so; a child starts when all of its edges are.
CREATE TABLE legwork_edges (
    parent INTEGER NOT NULL,
    child  INTEGER NOT NULL CHECK (child > parent),
    anyway INTEGER NOT NULL CHECK (anyway IN (0, 1)),
    done   INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1)),
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
-- Serves: the parents of a job.
CREATE INDEX legwork_parents ON legwork_edges (child, parent);

-- Jobs that have finished, or come back, and whose children have not all heard of it: more than one
-- transaction should hold. The children up to this one have.
CREATE TABLE legwork_settling (
    job   INTEGER PRIMARY KEY,
    after INTEGER NOT NULL
) STRICT;

-- Jobs that belong together. A flow has ended when none of its members is pending; its members are
-- kept for as long as it is. Its id comes from the same count as those of jobs.
CREATE TABLE legwork_flows (
    id         INTEGER PRIMARY KEY,
    sort       TEXT    NOT NULL CHECK (sort IN ('chain', 'batch', 'workflow')),
    name       TEXT    NOT NULL,
    properties TEXT    NOT NULL CHECK (json_valid(properties)),
    created_at INTEGER NOT NULL,
    keep       TEXT    CHECK (keep IS NULL OR json_valid(keep)),  -- the retention of its own
    members    INTEGER NOT NULL CHECK (members >= 0),
    pending    INTEGER NOT NULL CHECK (pending >= 0),
    failed     INTEGER NOT NULL DEFAULT 0 CHECK (failed >= 0),
    cancelled  INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    ended_at   INTEGER,
    prune_at   INTEGER,
    CHECK (pending + failed + cancelled <= members),
    CHECK ((ended_at IS NULL) = (prune_at IS NULL))
) STRICT;
-- Serves: which flow is to be pruned next.
CREATE INDEX legwork_next_flow_prune ON legwork_flows (prune_at) WHERE prune_at IS NOT NULL;

-- The jobs that are enqueued once when a flow has ended so.
CREATE TABLE legwork_callbacks (
    flow INTEGER NOT NULL,
    upon TEXT    NOT NULL CHECK (upon IN ('success', 'failure', 'finish')),
    job  TEXT    NOT NULL CHECK (json_valid(job)),
    id   INTEGER,                       -- of the job, once it has been enqueued
    PRIMARY KEY (flow, upon)
) STRICT, WITHOUT ROWID;
-- Serves: the flow that a callback is of.
CREATE INDEX legwork_callback_jobs ON legwork_callbacks (id) WHERE id IS NOT NULL;

-- The attempts that did not complete their job: the failed ones and the interrupted ones.
CREATE TABLE legwork_attempts (
    seq        INTEGER PRIMARY KEY,
    job        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,        -- its number, from 1
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    worker     TEXT,                    -- NULL if its process died
    error      TEXT NOT NULL,
    counted    INTEGER NOT NULL CHECK (counted IN (0, 1))
) STRICT;
-- Serves: the attempts of a job, and their removal with it.
CREATE INDEX legwork_attempts_of_job ON legwork_attempts (job);

-- The lines that jobs wrote about their attempts.
CREATE TABLE legwork_logs (
    seq     INTEGER PRIMARY KEY,
    job     INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    line    TEXT NOT NULL
) STRICT;
-- Serves: the lines of a job, and their removal with it.
CREATE INDEX legwork_logs_of_job ON legwork_logs (job);

-- What jobs have told of their steps, for their later attempts. A job's places count from 1 without a
-- gap, in the order in which it comes to them. WITHOUT ROWID: the key serves every query.
CREATE TABLE legwork_steps (
    job   INTEGER NOT NULL,
    place INTEGER NOT NULL CHECK (place > 0),
    name  TEXT    NOT NULL,
    sort  TEXT    NOT NULL CHECK (sort IN ('step', 'cursor')),
    last  INTEGER NOT NULL CHECK (last >= place),  -- the last place inside this step
    at    INTEGER NOT NULL,                        -- when it was stored last
    -- JSON: the result of a finished step, the position of a cursor. NULL: only the name is known, of
    -- one that had no value when a later one was stored.
    value TEXT CHECK (json_valid(value)),
    PRIMARY KEY (job, place)
) STRICT, WITHOUT ROWID;

-- What is to be enqueued at which times, its ticks. Up to when they are settled,
-- that is fired or left out on purpose, stands here, so that none is fired twice.
CREATE TABLE legwork_cron (
    name           TEXT PRIMARY KEY,
    expression     TEXT NOT NULL,
    zone           TEXT NOT NULL,
    missed         TEXT NOT NULL CHECK (missed IN ('skip', 'once', 'all')),
    at_most        INTEGER CHECK (at_most BETWEEN 0 AND 4294967295),
    overlap        TEXT NOT NULL CHECK (overlap IN ('allow', 'skip')),
    job            TEXT CHECK (json_valid(job)),  -- NULL: an engine's builder makes the job
    paused_at      INTEGER,
    anchor         INTEGER NOT NULL,    -- where the intervals of @every start
    settled_until  INTEGER NOT NULL,
    leap_from      INTEGER,             -- the last time that ticks were more than a day late: the last
    leap_to        INTEGER,             -- settled tick, and what the clock showed then
    last_tick      INTEGER,
    last_job       INTEGER,
    fired          INTEGER NOT NULL DEFAULT 0,
    runs_asked     INTEGER NOT NULL DEFAULT 0 CHECK (runs_asked >= 0),
    CHECK ((missed = 'all') = (at_most IS NOT NULL)),
    CHECK ((leap_from IS NULL) = (leap_to IS NULL))
) STRICT, WITHOUT ROWID;

-- The ticks of each entry that were fired, so that no (name, tick) is fired twice whatever the clock
-- does. The newest have a row each; older ones that followed each other are one row.
CREATE TABLE legwork_ticks (
    name  TEXT NOT NULL,
    tick  INTEGER NOT NULL,             -- of several the last, and the first in since
    since INTEGER CHECK (since <= tick),
    job   INTEGER,                      -- NULL: left out, or one of several
    PRIMARY KEY (name, tick)
) STRICT, WITHOUT ROWID;

-- Every job, finished or not, with its words spelled out and its times as text in UTC. For people
-- and other programs; legwork itself reads the tables.
CREATE VIEW legwork_all_jobs AS
WITH states (state, word) AS (
    VALUES (1, 'scheduled'), (2, 'blocked'), (3, 'ready'), (4, 'running'), (5, 'retrying'),
           (6, 'completed'), (7, 'failed'), (8, 'cancelled')
),
jobs AS (
    SELECT id, lane, state, priority, run_at, enqueued_at, attempts, started_at, expires_at,
           NULL AS finished_at, args, tags, meta, progress_done, progress_total, message,
           NULL AS output, NULL AS reason, json_array_length(crashes) AS crashes, unique_key, flow
      FROM legwork_jobs
    UNION ALL
    SELECT id, lane, state, priority, run_at, enqueued_at, attempts, started_at, NULL AS expires_at,
           finished_at, args, tags, meta, progress_done, progress_total, message, output, reason,
           NULL AS crashes, unique_key, flow
      FROM legwork_history
)
SELECT jobs.id, lanes.kind, lanes.queue, states.word AS state, jobs.priority, jobs.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', jobs.enqueued_at / 1e6, 'unixepoch') AS enqueued_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', jobs.run_at / 1e6, 'unixepoch') AS run_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', jobs.started_at / 1e6, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', jobs.finished_at / 1e6, 'unixepoch') AS finished_at,
       jobs.args, jobs.tags, jobs.meta, jobs.progress_done, jobs.progress_total, jobs.message,
       jobs.output, jobs.reason, jobs.crashes, jobs.unique_key, nullif(lanes.gate, '') AS gate,
       strftime('%Y-%m-%dT%H:%M:%fZ', jobs.expires_at / 1e6, 'unixepoch') AS expires_at,
       jobs.flow
  FROM jobs
  JOIN legwork_lanes AS lanes ON lanes.id = jobs.lane
  JOIN states ON states.state =
       CASE WHEN jobs.state = 3 AND lanes.gate <> ''
                 AND EXISTS (SELECT 1 FROM legwork_gates WHERE name = lanes.gate)
            THEN 2 ELSE jobs.state END;
