-- Enqueueing from any language: INSERT INTO legwork_enqueue (kind, args) VALUES ('mail', '{}'). The
-- guide's page `other_languages` is its contract. The view has no rows; legwork_all_jobs shows the jobs.
--
-- Everything is checked before anything is written, since a caller's INSERT OR IGNORE would let a
-- failed statement in here pass in silence. What is refused is told by RAISE, in words that are
-- literals: older SQLite takes nothing else.
CREATE VIEW legwork_now (micros) AS
SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000;

CREATE VIEW legwork_enqueue AS
SELECT NULL AS kind, NULL AS args, NULL AS queue, NULL AS priority, NULL AS run_at, NULL AS delay,
       NULL AS unique_key, NULL AS tags, NULL AS meta, NULL AS gate, NULL AS expires_after
 WHERE FALSE;

CREATE TRIGGER legwork_enqueue_insert INSTEAD OF INSERT ON legwork_enqueue
BEGIN
    -- What must hold before the JSON can be taken apart.
    SELECT CASE
        WHEN NEW.kind IS NULL THEN RAISE(ABORT, 'legwork: kind is missing')
        WHEN typeof(NEW.args) <> 'text' THEN
            RAISE(ABORT, 'legwork: args must be JSON as text')
        WHEN length(CAST(NEW.args AS BLOB)) > 16777216 THEN
            RAISE(ABORT, 'legwork: args are larger than 16 MiB')
        WHEN NOT json_valid(NEW.args) OR instr(NEW.args, char(0)) THEN
            RAISE(ABORT, 'legwork: args are not readable as JSON')
        -- SQLite cuts a text of JSON at a NUL. (A backslash that is escaped begins no escape.)
        WHEN instr(replace(NEW.tags, '\\', ''), '\u0000')
          OR instr(replace(NEW.meta, '\\', ''), '\u0000') THEN
            RAISE(ABORT, 'legwork: tags and meta must not contain NUL')
        WHEN NEW.tags IS NOT NULL AND (typeof(NEW.tags) <> 'text' OR NOT json_valid(NEW.tags)) THEN
            RAISE(ABORT, 'legwork: tags must be a JSON array of texts')
        WHEN NEW.meta IS NOT NULL AND (typeof(NEW.meta) <> 'text' OR NOT json_valid(NEW.meta)) THEN
            RAISE(ABORT, 'legwork: meta must be a JSON object of texts')
    END;
    SELECT CASE
        WHEN json_type(NEW.tags) <> 'array'
          OR EXISTS (SELECT 1 FROM json_each(NEW.tags) WHERE type <> 'text') THEN
            RAISE(ABORT, 'legwork: tags must be a JSON array of texts')
        WHEN json_type(NEW.meta) <> 'object'
          OR EXISTS (SELECT 1 FROM json_each(NEW.meta) WHERE type <> 'text') THEN
            RAISE(ABORT, 'legwork: meta must be a JSON object of texts')
        WHEN EXISTS (SELECT 1 FROM json_each(NEW.meta) WHERE length(CAST(value AS BLOB)) > 4096) THEN
            RAISE(ABORT, 'legwork: a value in meta is longer than 4096 bytes')
        WHEN typeof(NEW.priority) NOT IN ('null', 'integer') THEN
            RAISE(ABORT, 'legwork: priority must be an integer')
        WHEN NEW.delay IS NOT NULL AND NEW.run_at IS NOT NULL THEN
            RAISE(ABORT, 'legwork: give run_at or delay, not both')
        WHEN typeof(NEW.delay) NOT IN ('null', 'integer', 'real')
          OR NEW.delay NOT BETWEEN 0 AND 253402300799 THEN
            RAISE(ABORT, 'legwork: delay must be a number of seconds, 0 or more')
        WHEN typeof(NEW.expires_after) NOT IN ('null', 'integer', 'real')
          OR NEW.expires_after NOT BETWEEN 0.000001 AND 253402300799 THEN
            RAISE(ABORT, 'legwork: expires_after must be a number of seconds, more than 0')
        WHEN typeof(NEW.run_at) IN ('integer', 'real')
         AND NEW.run_at NOT BETWEEN 0 AND 253402300799 THEN
            RAISE(ABORT, 'legwork: run_at as a number must be seconds since 1970, up to the year 9999')
        -- The date functions read more than dates ('now', numbers of days), and take the 31st of
        -- February for the 3rd of March.
        WHEN typeof(NEW.run_at) = 'blob' OR typeof(NEW.run_at) = 'text' AND (
                 NEW.run_at NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
              OR instr(NEW.run_at, char(0))
              OR julianday(NEW.run_at) IS NULL
              OR julianday(NEW.run_at) < 2440587.5
              OR date(substr(NEW.run_at, 1, 10), '+0 days') <> substr(NEW.run_at, 1, 10)) THEN
            RAISE(ABORT, 'legwork: run_at must be a time like 2026-11-25T10:00:00Z, or seconds since 1970')
    END;
    -- Names: 1 to 255 bytes of UTF-8 without control characters, as everywhere in legwork. What has other
    -- than plain letters is taken apart and put together: wrong UTF-8 does not come out the same.
    SELECT CASE what
        WHEN 'kind' THEN
            RAISE(ABORT, 'legwork: kind must be text of 1 to 255 bytes without control characters')
        WHEN 'queue' THEN
            RAISE(ABORT, 'legwork: queue must be text of 1 to 255 bytes without control characters')
        WHEN 'unique_key' THEN
            RAISE(ABORT, 'legwork: unique_key must be text of 1 to 255 bytes without control characters')
        WHEN 'gate' THEN
            RAISE(ABORT, 'legwork: gate must be text of 1 to 255 bytes without control characters')
        WHEN 'tag' THEN
            RAISE(ABORT, 'legwork: a tag must be text of 1 to 255 bytes without control characters')
        WHEN 'meta' THEN
            RAISE(ABORT, 'legwork: a key in meta must be text of 1 to 255 bytes without control characters')
        ELSE
            RAISE(ABORT, 'legwork: a value in meta is not UTF-8')
    END
      FROM (SELECT 'kind' AS what, NEW.kind AS name, TRUE AS is_name
            UNION ALL SELECT 'queue', NEW.queue, TRUE WHERE NEW.queue IS NOT NULL
            UNION ALL SELECT 'unique_key', NEW.unique_key, TRUE WHERE NEW.unique_key IS NOT NULL
            UNION ALL SELECT 'gate', NEW.gate, TRUE WHERE NEW.gate IS NOT NULL
            UNION ALL SELECT 'tag', value, TRUE FROM json_each(NEW.tags)
            UNION ALL SELECT 'meta', key, TRUE FROM json_each(NEW.meta)
            UNION ALL SELECT 'value', value, FALSE FROM json_each(NEW.meta))
     WHERE is_name AND (
               typeof(name) <> 'text'
            OR length(CAST(name AS BLOB)) NOT BETWEEN 1 AND 255
            OR instr(name, char(0))
            OR name GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*')
        OR name GLOB '*[^ -~]*'
           AND name <> (WITH RECURSIVE again (at, said) AS (
                            SELECT 1, ''
                            UNION ALL
                            SELECT at + 1, said || char(unicode(substr(name, at, 1)))
                              FROM again WHERE at <= length(name))
                        SELECT said FROM again ORDER BY at DESC LIMIT 1);
    SELECT RAISE(ABORT, 'legwork: args must be an object, since a limit goes by their fields')
      FROM legwork_kinds AS kinds, json_each(kinds.options, '$.limits') AS item
     WHERE kinds.kind = NEW.kind AND json_array_length(item.value, '$.by') > 0
       AND json_type(NEW.args) <> 'object';
    -- As unique::take does: a period that is over holds nothing, nor does a job that has expired.
    SELECT RAISE(ABORT, 'legwork: unique key is taken')
      FROM legwork_unique AS held, legwork_now AS now
     WHERE held.key = NEW.unique_key
       AND (held.until IS NULL
            OR held.until > now.micros AND held.until - now.micros <= 2 * held.period)
       AND NOT EXISTS (SELECT 1 FROM legwork_jobs
                        WHERE id = held.job AND held.slot = 0 AND instance IS NULL
                          AND expires_at <= now.micros);

    -- What has held the key until now. (Not by OR REPLACE below: the caller's own OR would outrank it.)
    DELETE FROM legwork_unique WHERE key = NEW.unique_key;

    INSERT INTO legwork_lanes (queue, kind, gate)
    SELECT queue, NEW.kind, gate
      FROM (SELECT coalesce(NEW.queue, json_extract(kinds.options, '$.queue'), 'default') AS queue,
                   coalesce(NEW.gate, json_extract(kinds.options, '$.gate'), '') AS gate
              FROM legwork_counter LEFT JOIN legwork_kinds AS kinds ON kinds.kind = NEW.kind) AS wanted
     WHERE NOT EXISTS (SELECT 1 FROM legwork_lanes AS lanes
                        WHERE lanes.queue = wanted.queue AND lanes.kind = NEW.kind
                          AND lanes.gate = wanted.gate);

    INSERT INTO legwork_jobs (id, lane, state, priority, run_at, enqueued_at, args, options, tags, meta,
                              unique_key, unique_hold, expires_at, limits)
    SELECT id, lane, CASE WHEN run_at > now THEN 1 ELSE 3 END,  -- scheduled, ready
           priority, min(run_at, 253402300799000000), now, NEW.args, options, tags, json(NEW.meta),
           NEW.unique_key, CASE WHEN NEW.unique_key IS NOT NULL THEN 2 END,  -- until it has ended
           CASE WHEN run_at + expires_after <= 253402300799000000 THEN run_at + expires_after END,
           limits
      FROM (SELECT counter.last_job + 1 AS id,
                   (SELECT lanes.id FROM legwork_lanes AS lanes
                     WHERE lanes.queue = coalesce(NEW.queue, json_extract(kinds.options, '$.queue'), 'default')
                       AND lanes.kind = NEW.kind
                       AND lanes.gate = coalesce(NEW.gate, json_extract(kinds.options, '$.gate'), '')) AS lane,
                   coalesce(CAST(round(NEW.expires_after * 1000000.0) AS INTEGER),
                            json_extract(kinds.options, '$.expires_after')) AS expires_after,
                   coalesce(NEW.priority, json_extract(kinds.options, '$.priority'), 0) AS priority,
                   legwork_now.micros AS now,
                   CASE typeof(NEW.run_at)
                       WHEN 'null' THEN
                           legwork_now.micros
                           + coalesce(CAST(round(NEW.delay * 1000000.0) AS INTEGER),
                                      json_extract(kinds.options, '$.delay'), 0)
                       WHEN 'text' THEN
                           CAST(round((julianday(NEW.run_at) - 2440587.5) * 86400000) AS INTEGER) * 1000
                       ELSE CAST(round(NEW.run_at * 1000000.0) AS INTEGER)
                   END AS run_at,
                   CASE WHEN json_type(kinds.options, '$.keep') = 'object' THEN
                       json_object('keep', json(json_extract(kinds.options, '$.keep')))
                   END AS options,
                   -- The kind's limits. The claim makes their keys of the arguments.
                   CASE WHEN json_type(kinds.options, '$.limits') = 'array' THEN json_object(
                       'limits', json(json_extract(kinds.options, '$.limits')),
                       'on_busy', coalesce(json_extract(kinds.options, '$.on_busy'), 'wait'))
                   END AS limits,
                   nullif((SELECT json_group_array(value)
                             FROM (SELECT value FROM json_each(NEW.tags)
                                   UNION
                                   SELECT value FROM json_each(kinds.options, '$.tags')
                                    ORDER BY value)), '[]') AS tags
              FROM legwork_counter AS counter, legwork_now
              LEFT JOIN legwork_kinds AS kinds ON kinds.kind = NEW.kind);

    -- As Counter::lane_changed does. Whoever finds fewer lanes than changes looks at them all.
    UPDATE legwork_counter
       SET last_job = last_job + 1,
           last_change = last_change + 1,
           changed_lanes = CASE WHEN length(changed_lanes) < 100 THEN changed_lanes ELSE '' END
                           || ' ' || (SELECT lane FROM legwork_jobs WHERE id = last_job + 1),
           rules = rules + 1;

    INSERT INTO legwork_unique (key, slot, job)
    SELECT NEW.unique_key, 0, last_job FROM legwork_counter WHERE NEW.unique_key IS NOT NULL;
END;
