"""What a log needs that takes over records from another one. SQL, and nothing else."""

from __future__ import annotations

RECEIVE = """
-- A log in which nothing was ever stored begins with another sequence than 0.
CREATE FUNCTION aquipu.begin_at(p_log integer, p_first bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_head aquipu.logs;
    v_start bigint;
BEGIN
    SELECT * INTO STRICT v_head FROM aquipu.logs WHERE id = p_log FOR NO KEY UPDATE;
    IF v_head.next_sequence > 0 THEN
        RETURN;
    END IF;
    v_start := p_first / v_head.partition_records * v_head.partition_records;
    IF v_start >= v_head.partition_end THEN
        v_head.partition_end := v_start + v_head.partition_records;
        PERFORM aquipu.add_partition(p_log, v_start, v_head.partition_end);
    END IF;
    UPDATE aquipu.logs SET first_sequence = p_first, next_sequence = p_first,
        synced_sequence = p_first, partition_end = v_head.partition_end WHERE id = p_log;
END $$;
"""
