"""The tables: what a log consists of. SQL, and nothing else.

::

    logs          the head of each log: where it begins and ends, and which run of the server wrote
    batches       the records, a row for up to 1,024 of them; partitioned by log, then by sequence
    labels        a row for each label of each record; partitioned as the batches
    partitions    which ranges of sequences have partitions of their own
    writers       the last number of each writer, and what was answered
    keys          the numbers of producers, and where their records are
    holds, cursors
    generations   those that have ended, and how many of their records have survived

A batch has its data in one value, one record after another, and their lengths beside it. So the
server handles a few values a commit, and a checksum covers all of them. `aquipu.records` is a view
in which each record is a row.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE aquipu.logs (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    made timestamptz NOT NULL DEFAULT now(),
    first_sequence bigint NOT NULL DEFAULT 0,
    next_sequence bigint NOT NULL DEFAULT 0,
    synced_sequence bigint NOT NULL DEFAULT 0,
    last_time bigint NOT NULL DEFAULT 0,
    latest_time bigint NOT NULL DEFAULT 0,
    partition_records bigint NOT NULL,
    partition_end bigint NOT NULL DEFAULT 0,
    generation bytea NOT NULL,
    run timestamptz NOT NULL,
    timeline text NOT NULL,
    is_loose boolean NOT NULL DEFAULT false,
    is_confirmed boolean NOT NULL DEFAULT false
) WITH (fillfactor = 20);
COMMENT ON COLUMN aquipu.logs.run IS 'when the server started that wrote last';
COMMENT ON COLUMN aquipu.logs.is_loose
    IS 'whether records of this run may have been acknowledged before they were synced';
COMMENT ON COLUMN aquipu.logs.is_confirmed
    IS 'whether the last synced commit was to be confirmed by a synchronous standby';

CREATE TABLE aquipu.batches (
    log integer NOT NULL,
    first_sequence bigint NOT NULL,
    records integer NOT NULL,
    size bigint NOT NULL,
    floor_time bigint NOT NULL,
    earliest_time bigint NOT NULL,
    latest_time bigint NOT NULL,
    data bytea NOT NULL,
    lengths integer[] NOT NULL,
    times bigint[] NOT NULL,
    labels text[] NOT NULL,
    places integer[] NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (log, first_sequence)
) PARTITION BY LIST (log);
ALTER TABLE aquipu.batches ALTER data SET STORAGE EXTERNAL, ALTER lengths SET STORAGE EXTERNAL,
    ALTER times SET STORAGE EXTERNAL;
CREATE INDEX ON aquipu.batches (log, latest_time, first_sequence);
COMMENT ON COLUMN aquipu.batches.floor_time IS 'no record is earlier: those that say so are not';
COMMENT ON COLUMN aquipu.batches.latest_time IS 'of all records of the log up to here';
COMMENT ON COLUMN aquipu.batches.times
    IS 'when each was accepted, in nanoseconds since 1970; one alone holds for all';
COMMENT ON COLUMN aquipu.batches.places IS 'of each label: the index of its record';

CREATE TABLE aquipu.labels (
    log integer NOT NULL,
    label text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (log, label, sequence)
) PARTITION BY LIST (log);

CREATE TABLE aquipu.partitions (
    log integer NOT NULL REFERENCES aquipu.logs,
    first_sequence bigint NOT NULL,
    end_sequence bigint NOT NULL,
    PRIMARY KEY (log, first_sequence)
);

CREATE TABLE aquipu.writers (
    log integer NOT NULL,
    writer bytea NOT NULL,
    number bigint NOT NULL,
    seen timestamptz NOT NULL,
    is_synced boolean NOT NULL,
    outcomes integer[] NOT NULL,
    firsts bigint[] NOT NULL,
    counts integer[] NOT NULL,
    times bigint[] NOT NULL,
    PRIMARY KEY (log, writer)
) WITH (fillfactor = 20);

CREATE TABLE aquipu.keys (
    log integer NOT NULL,
    producer bytea NOT NULL,
    number bigint NOT NULL,
    first_sequence bigint NOT NULL,
    records integer NOT NULL,
    time bigint NOT NULL,
    PRIMARY KEY (log, producer, number)
);
CREATE INDEX ON aquipu.keys (log, first_sequence);

CREATE TABLE aquipu.holds (
    log integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (log, name)
);

CREATE TABLE aquipu.cursors (
    log integer NOT NULL,
    name text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    generation bytea NOT NULL,
    saved timestamptz NOT NULL,
    PRIMARY KEY (log, name)
);

CREATE TABLE aquipu.generations (
    log integer NOT NULL,
    generation bytea NOT NULL,
    number integer NOT NULL,
    survived bigint NOT NULL,
    ended timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log, generation)
);

CREATE VIEW aquipu.records AS
    SELECT l.name AS log,
        b.first_sequence + (r.place - 1) AS sequence,
        greatest(coalesce(b.times[r.place], b.times[1]), b.floor_time) AS time,
        substring(b.data FROM (r.ends - r.length + 1)::integer FOR r.length) AS data,
        ARRAY(SELECT u.label FROM unnest(b.labels, b.places) WITH ORDINALITY
                  AS u(label, place, at) WHERE u.place = r.place - 1 ORDER BY u.at) AS labels
    FROM aquipu.batches b
    JOIN aquipu.logs l ON l.id = b.log AND b.first_sequence >= l.first_sequence
    CROSS JOIN LATERAL (
        SELECT u.length, u.place::integer AS place, sum(u.length) OVER (ORDER BY u.place) AS ends
        FROM unnest(b.lengths) WITH ORDINALITY AS u(length, place)
    ) r;
"""
