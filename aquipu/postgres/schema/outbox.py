"""The outbox: records that commit or roll back with a transaction of somebody else. SQL only.

``aquipu.enqueue`` inserts a row and takes no lock that others wait for. ``aquipu.move`` takes rows
out and appends them, in one transaction: so each record is in the outbox or in the log, never in
both and never in neither.
"""

from __future__ import annotations

OUTBOX = r"""
CREATE TABLE aquipu.outbox (
    log integer NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    time bigint NOT NULL,
    data bytea NOT NULL,
    labels text[] NOT NULL,
    PRIMARY KEY (log, id)
);

CREATE FUNCTION aquipu.enqueue(p_log text, p_data bytea, p_labels text[] DEFAULT '{}')
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_log integer;
    v_label text;
BEGIN
    SELECT id INTO v_log FROM aquipu.logs WHERE name = p_log;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no log %', quote_literal(left(p_log, 100))
            USING ERRCODE = 'AQ003', HINT = 'Store.open makes one.';
    END IF;
    IF p_data IS NULL OR octet_length(p_data) > 16777216 THEN
        RAISE EXCEPTION 'a record has data, of at most 16 MiB' USING ERRCODE = 'AQ004';
    END IF;
    IF cardinality(p_labels) > 255 THEN
        RAISE EXCEPTION 'a record carries at most 255 labels' USING ERRCODE = 'AQ004';
    END IF;
    FOREACH v_label IN ARRAY coalesce(p_labels, '{}') LOOP
        IF v_label IS NULL OR v_label = '' OR octet_length(v_label) > 1024
                OR v_label LIKE 'aquipu:%'
                OR v_label ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]' THEN
            RAISE EXCEPTION 'a label has 1 to 1,024 bytes, no control characters, and does not'
                ' begin with aquipu:' USING ERRCODE = 'AQ004';
        END IF;
    END LOOP;
    INSERT INTO aquipu.outbox (log, time, data, labels) VALUES (v_log,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000, p_data,
        coalesce(p_labels, '{}'));
END $$;

DO $$
BEGIN
    CREATE FUNCTION public.aquipu_enqueue(log text, data bytea, labels text[] DEFAULT '{}')
        RETURNS void LANGUAGE sql AS 'SELECT aquipu.enqueue($1, $2, $3)';
EXCEPTION WHEN insufficient_privilege OR invalid_schema_name THEN
    RAISE NOTICE 'aquipu.enqueue has no second name in the schema public';
END $$;

-- Returns whether they were moved; not, when another has taken some of them.
CREATE FUNCTION aquipu.move(
    p_ids bigint[], p_log integer, p_writer bytea, p_number bigint, p_mode text,
    p_data bytea[], p_records integer[], p_lengths integer[], p_times bigint[],
    p_checksums bigint[], p_labels text[], p_places integer[], p_labelled integer[],
    p_group_rows integer[], p_producers bytea[], p_numbers bigint[], p_expected bigint[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_moved bigint;
BEGIN
    PERFORM FROM aquipu.logs WHERE id = p_log FOR NO KEY UPDATE;
    SELECT count(*) INTO v_moved FROM aquipu.outbox WHERE log = p_log AND id = ANY (p_ids);
    IF v_moved <> cardinality(p_ids) THEN
        RETURN false;
    END IF;
    DELETE FROM aquipu.outbox WHERE log = p_log AND id = ANY (p_ids);
    PERFORM FROM aquipu.append(p_log, p_writer, p_number, true, false, p_mode, NULL, p_data,
        p_records, p_lengths, p_times, p_checksums, p_labels, p_places, p_labelled, p_group_rows,
        p_producers, p_numbers, p_expected);
    RETURN true;
END $$;
"""
