"""The functions that write: a commit, the making of a log, a purge. SQL, and nothing else.

Everything that decides on the end or the beginning of a log locks its row in ``aquipu.logs`` first,
and so one thing after another is done to a log.

**Outcomes** of the groups of a commit: 0 stored, 1 the key is known (and here is where), 2 another
sequence was expected (and this is the next one), 3 the number is stale (and this is the last one).
"""

from __future__ import annotations

MAKE = """
CREATE FUNCTION aquipu.timeline() RETURNS text LANGUAGE sql AS $$
    SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
$$;

CREATE FUNCTION aquipu.new_generation() RETURNS bytea LANGUAGE sql VOLATILE AS $$
    SELECT substring(decode(replace(gen_random_uuid()::text, '-', ''), 'hex') FROM 1 FOR 8)
$$;

CREATE FUNCTION aquipu.add_partition(p_log integer, p_first bigint, p_end bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
    v_name text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['batches', 'labels'] LOOP
        v_name := format('%s_%s_%s', v_table, p_log, p_first);
        EXECUTE format('CREATE TABLE aquipu.%I (LIKE aquipu.%I INCLUDING ALL)',
            v_name, v_table || '_' || p_log);
        EXECUTE format('ALTER TABLE aquipu.%I ATTACH PARTITION aquipu.%I FOR VALUES FROM (%s)'
            ' TO (%s)', v_table || '_' || p_log, v_name, p_first, p_end);
    END LOOP;
    INSERT INTO aquipu.partitions VALUES (p_log, p_first, p_end);
END $$;

CREATE FUNCTION aquipu.open_log(p_name text, p_partition_records bigint) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    v_id integer;
BEGIN
    SELECT id INTO v_id FROM aquipu.logs WHERE name = p_name;
    IF FOUND THEN
        RETURN v_id;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('aquipu'));
    SELECT id INTO v_id FROM aquipu.logs WHERE name = p_name;
    IF FOUND THEN
        RETURN v_id;
    END IF;
    INSERT INTO aquipu.logs (name, partition_records, partition_end, generation, run, timeline)
        VALUES (p_name, p_partition_records, p_partition_records, aquipu.new_generation(),
            pg_postmaster_start_time(), aquipu.timeline())
        RETURNING id INTO v_id;
    EXECUTE format('CREATE TABLE aquipu.batches_%s (LIKE aquipu.batches INCLUDING ALL)'
        ' PARTITION BY RANGE (first_sequence)', v_id);
    EXECUTE format('CREATE TABLE aquipu.labels_%s (LIKE aquipu.labels INCLUDING ALL)'
        ' PARTITION BY RANGE (sequence)', v_id);
    EXECUTE format('ALTER TABLE aquipu.batches ATTACH PARTITION aquipu.batches_%s'
        ' FOR VALUES IN (%s)', v_id, v_id);
    EXECUTE format('ALTER TABLE aquipu.labels ATTACH PARTITION aquipu.labels_%s'
        ' FOR VALUES IN (%s)', v_id, v_id);
    PERFORM aquipu.add_partition(v_id, 0, p_partition_records);
    RETURN v_id;
END $$;

-- The server may be another one than the one that wrote last, or have been started anew: then
-- what was acknowledged and not synced, or not confirmed, may be gone. The head is locked.
CREATE FUNCTION aquipu.begin_run(p_log integer, p_is_loose boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head aquipu.logs;
    v_timeline text := aquipu.timeline();
    v_is_lost boolean;
BEGIN
    SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log FOR NO KEY UPDATE;
    IF v_head.run = pg_postmaster_start_time() AND v_head.is_loose >= p_is_loose THEN
        RETURN;
    END IF;
    v_is_lost := v_head.run <> pg_postmaster_start_time() AND (
        v_head.is_loose OR v_head.timeline <> v_timeline AND NOT v_head.is_confirmed);
    IF v_is_lost AND v_head.next_sequence > 0 THEN
        INSERT INTO aquipu.generations (log, generation, number, survived)
            SELECT p_log, v_head.generation, coalesce(max(number), 0) + 1, v_head.next_sequence
            FROM aquipu.generations WHERE log = p_log;
        UPDATE aquipu.logs SET generation = aquipu.new_generation() WHERE id = p_log;
    END IF;
    UPDATE aquipu.logs SET run = pg_postmaster_start_time(), timeline = v_timeline,
        is_loose = p_is_loose OR is_loose AND run = pg_postmaster_start_time(),
        synced_sequence = CASE WHEN run = pg_postmaster_start_time() THEN synced_sequence
            ELSE next_sequence END
        WHERE id = p_log;
END $$;
"""

APPEND = """
CREATE FUNCTION aquipu.append(
    p_log integer, p_writer bytea, p_number bigint,
    p_is_synced boolean, p_is_confirmed boolean, p_mode text, p_every bigint,
    p_data bytea[], p_records integer[], p_lengths integer[], p_times bigint[],
    p_checksums bigint[], p_labels text[], p_places integer[], p_labelled integer[],
    p_group_rows integer[], p_producers bytea[], p_numbers bigint[], p_expected bigint[],
    OUT o_outcomes integer[], OUT o_firsts bigint[], OUT o_counts integer[], OUT o_times bigint[],
    OUT o_is_synced boolean, OUT o_first bigint, OUT o_next bigint, OUT o_synced bigint,
    OUT o_generation bytea, OUT o_standbys text
) LANGUAGE plpgsql AS $$
DECLARE
    v_head aquipu.logs;
    v_known aquipu.writers;
    v_key aquipu.keys;
    v_last bigint;
    v_outcome integer;
    v_first bigint;
    v_count integer;
    v_floor bigint;
    v_group_time bigint;
    v_times bigint[];
    v_row integer := 0;
    v_at integer := 0;
    v_label integer := 0;
    v_n integer;
    v_l integer;
    v_is_new boolean;
BEGIN
    o_outcomes := '{}';
    o_firsts := '{}';
    o_counts := '{}';
    o_times := '{}';
    o_standbys := current_setting('synchronous_standby_names');
    IF p_is_confirmed AND o_standbys = '' THEN
        RAISE EXCEPTION 'no synchronous standby would confirm it: synchronous_standby_names is'
            ' empty' USING ERRCODE = 'AQ002';
    END IF;
    PERFORM set_config('synchronous_commit', CASE WHEN p_is_synced THEN p_mode ELSE 'off' END,
        true);
    SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log FOR NO KEY UPDATE;
    SELECT * INTO v_known FROM aquipu.writers WHERE log = p_log AND writer = p_writer;
    IF v_known.number > p_number THEN
        RAISE EXCEPTION 'number % of this writer was followed by %', p_number, v_known.number
            USING ERRCODE = 'AQ001';
    END IF;
    IF v_head.run <> pg_postmaster_start_time() OR NOT p_is_synced AND NOT v_head.is_loose THEN
        -- this must survive before anything is acknowledged that might not
        PERFORM set_config('synchronous_commit', p_mode, true);
        PERFORM aquipu.begin_run(p_log, NOT p_is_synced);
        SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log;
    END IF;
    o_is_synced := p_is_synced;
    IF v_known.number = p_number THEN
        -- something is written, so that this waits for the disk and the standby as the first did
        IF v_known.is_synced AND NOT p_is_synced THEN
            PERFORM set_config('synchronous_commit', p_mode, true);
            o_is_synced := true;
        END IF;
        UPDATE aquipu.writers SET seen = clock_timestamp(), is_synced = o_is_synced
            WHERE log = p_log AND writer = p_writer;
        o_outcomes := v_known.outcomes;
        o_firsts := v_known.firsts;
        o_counts := v_known.counts;
        o_times := v_known.times;
    ELSE
        FOR g IN 1..cardinality(p_group_rows) LOOP
            v_first := v_head.next_sequence;
            v_outcome := 0;
            v_count := 0;
            v_group_time := 0;
            IF p_producers[g] IS NOT NULL THEN
                SELECT * INTO v_key FROM aquipu.keys
                    WHERE log = p_log AND producer = p_producers[g] AND number = p_numbers[g];
                IF FOUND THEN
                    v_outcome := 1;
                    v_first := v_key.first_sequence;
                    v_count := v_key.records;
                    v_group_time := v_key.time;
                ELSE
                    SELECT max(number) INTO v_last FROM aquipu.keys
                        WHERE log = p_log AND producer = p_producers[g];
                    IF v_last > p_numbers[g] THEN
                        v_outcome := 3;
                        v_first := v_last;
                    END IF;
                END IF;
            END IF;
            IF v_outcome = 0 AND p_expected[g] <> v_head.next_sequence THEN
                v_outcome := 2;
            END IF;
            FOR r IN v_row + 1..v_row + p_group_rows[g] LOOP
                v_n := p_records[r];
                v_l := p_labelled[r];
                IF v_outcome = 0 THEN
                    v_times := p_times[v_at + 1:v_at + v_n];
                    -- a clock that is a little behind; one that was set is believed
                    v_floor := CASE WHEN v_head.last_time - v_times[1] BETWEEN 1 AND 1000000000
                        THEN v_head.last_time ELSE 0 END;
                    v_head.last_time := greatest(v_times[v_n], v_floor);
                    v_head.latest_time := greatest(v_head.latest_time, v_head.last_time);
                    v_group_time := greatest(v_group_time, v_floor);
                    WHILE v_head.next_sequence + v_n > v_head.partition_end LOOP
                        PERFORM aquipu.add_partition(p_log, v_head.partition_end,
                            v_head.partition_end + v_head.partition_records);
                        v_head.partition_end := v_head.partition_end + v_head.partition_records;
                    END LOOP;
                    IF v_times[1] = v_times[v_n] THEN
                        v_times := v_times[1:1];
                    END IF;
                    INSERT INTO aquipu.batches VALUES (p_log, v_head.next_sequence, v_n,
                        octet_length(p_data[r]), v_floor, greatest(v_times[1], v_floor),
                        v_head.latest_time, p_data[r],
                        p_lengths[v_at + 1:v_at + v_n], v_times,
                        p_labels[v_label + 1:v_label + v_l], p_places[v_label + 1:v_label + v_l],
                        p_checksums[r]);
                    IF v_l > 0 THEN
                        INSERT INTO aquipu.labels
                            SELECT p_log, u.label, v_head.next_sequence + u.place
                            FROM unnest(p_labels[v_label + 1:v_label + v_l],
                                p_places[v_label + 1:v_label + v_l]) AS u(label, place)
                            ON CONFLICT DO NOTHING;
                    END IF;
                    v_head.next_sequence := v_head.next_sequence + v_n;
                    v_count := v_count + v_n;
                END IF;
                v_at := v_at + v_n;
                v_label := v_label + v_l;
            END LOOP;
            v_row := v_row + p_group_rows[g];
            IF v_outcome = 0 AND p_producers[g] IS NOT NULL THEN
                v_group_time := greatest(p_times[v_at], v_group_time);
                INSERT INTO aquipu.keys VALUES (p_log, p_producers[g], p_numbers[g], v_first,
                    v_count, v_group_time);
            END IF;
            o_outcomes[g] := v_outcome;
            o_firsts[g] := v_first;
            o_counts[g] := v_count;
            o_times[g] := v_group_time;
        END LOOP;
        IF NOT o_is_synced AND v_head.next_sequence - v_head.synced_sequence >= p_every THEN
            PERFORM set_config('synchronous_commit', p_mode, true);
            o_is_synced := true;
        END IF;
        INSERT INTO aquipu.writers VALUES (p_log, p_writer, p_number, clock_timestamp(),
                o_is_synced, o_outcomes, o_firsts, o_counts, o_times)
            ON CONFLICT (log, writer) DO UPDATE SET number = excluded.number,
                seen = excluded.seen, is_synced = excluded.is_synced,
                outcomes = excluded.outcomes, firsts = excluded.firsts,
                counts = excluded.counts, times = excluded.times;
    END IF;
    IF o_is_synced THEN
        v_head.synced_sequence := v_head.next_sequence;
        v_head.is_confirmed := o_standbys <> '';
    END IF;
    UPDATE aquipu.logs SET next_sequence = v_head.next_sequence,
        synced_sequence = v_head.synced_sequence, is_confirmed = v_head.is_confirmed,
        last_time = v_head.last_time, latest_time = v_head.latest_time,
        partition_end = v_head.partition_end
        WHERE id = p_log;
    o_first := v_head.first_sequence;
    o_next := v_head.next_sequence;
    o_synced := v_head.synced_sequence;
    o_generation := v_head.generation;
END $$;
"""

KEEP = """
CREATE FUNCTION aquipu.purge(
    p_log integer, p_before bigint, p_before_time bigint, p_is_dry boolean,
    OUT o_was bigint, OUT o_first bigint, OUT o_partitions bigint, OUT o_bytes bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_head aquipu.logs;
    v_bound bigint := p_before;
BEGIN
    SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log FOR NO KEY UPDATE;
    IF p_before_time IS NOT NULL THEN
        EXECUTE format('SELECT first_sequence FROM aquipu.batches_%s WHERE latest_time >= $1'
            ' ORDER BY latest_time, first_sequence LIMIT 1', p_log)
            INTO v_bound USING p_before_time;
    END IF;
    v_bound := least(coalesce(v_bound, v_head.next_sequence), v_head.next_sequence,
        (SELECT min(sequence) FROM aquipu.holds WHERE log = p_log));
    IF v_bound < v_head.next_sequence THEN
        EXECUTE format('SELECT first_sequence FROM aquipu.batches_%s WHERE first_sequence <= $1'
            ' ORDER BY first_sequence DESC LIMIT 1', p_log)
            INTO v_bound USING v_bound;
    END IF;
    o_was := v_head.first_sequence;
    o_first := greatest(coalesce(v_bound, 0), o_was);
    SELECT count(*) INTO o_partitions FROM aquipu.partitions
        WHERE log = p_log AND end_sequence <= o_first;
    EXECUTE format('SELECT coalesce(sum(size), 0)::bigint FROM aquipu.batches_%s'
        ' WHERE first_sequence >= $1 AND first_sequence < $2', p_log)
        INTO o_bytes USING o_was, o_first;
    IF NOT p_is_dry AND o_first > o_was THEN
        UPDATE aquipu.logs SET first_sequence = o_first WHERE id = p_log;
        DELETE FROM aquipu.keys WHERE log = p_log AND first_sequence < o_first;
        DELETE FROM aquipu.writers WHERE log = p_log AND seen < now() - interval '7 days';
    END IF;
END $$;

-- What lies before the first sequence goes: whole partitions, and what is left of one.
CREATE FUNCTION aquipu.sweep(p_log integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_first bigint;
    v_partition aquipu.partitions;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    SELECT first_sequence INTO STRICT v_first FROM aquipu.logs WHERE id = p_log
        FOR NO KEY UPDATE;
    FOR v_partition IN SELECT * FROM aquipu.partitions
        WHERE log = p_log AND end_sequence <= v_first LOOP
        EXECUTE format('DROP TABLE aquipu.batches_%s_%s, aquipu.labels_%s_%s', p_log,
            v_partition.first_sequence, p_log, v_partition.first_sequence);
        DELETE FROM aquipu.partitions
            WHERE log = p_log AND first_sequence = v_partition.first_sequence;
    END LOOP;
    EXECUTE format('DELETE FROM aquipu.batches_%s WHERE first_sequence < $1', p_log)
        USING v_first;
    EXECUTE format('DELETE FROM aquipu.labels_%s WHERE sequence < $1', p_log) USING v_first;
END $$;

CREATE FUNCTION aquipu.hold(
    p_log integer, p_name text, p_sequence bigint, OUT o_first bigint, OUT o_next bigint
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT first_sequence, next_sequence INTO STRICT o_first, o_next FROM aquipu.logs
        WHERE id = p_log FOR NO KEY UPDATE;
    IF p_sequence BETWEEN o_first AND o_next THEN
        INSERT INTO aquipu.holds VALUES (p_log, p_name, p_sequence)
            ON CONFLICT (log, name) DO UPDATE SET sequence = excluded.sequence;
    END IF;
END $$;

-- Returns the next sequence; beyond it, nothing is saved.
CREATE FUNCTION aquipu.save_cursor(
    p_log integer, p_name text, p_sequence bigint, p_hold text
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_head aquipu.logs;
BEGIN
    SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log;
    IF p_hold IS NOT NULL THEN
        SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log FOR SHARE;
    END IF;
    IF p_sequence <= v_head.next_sequence THEN
        INSERT INTO aquipu.cursors
            VALUES (p_log, p_name, p_sequence, v_head.generation, clock_timestamp())
            ON CONFLICT (log, name) DO UPDATE SET sequence = excluded.sequence,
                generation = excluded.generation, saved = excluded.saved;
        IF p_hold IS NOT NULL THEN
            INSERT INTO aquipu.holds
                VALUES (p_log, p_hold, greatest(p_sequence, v_head.first_sequence))
                ON CONFLICT (log, name) DO UPDATE SET sequence = excluded.sequence;
        END IF;
    END IF;
    RETURN v_head.next_sequence;
END $$;
"""
