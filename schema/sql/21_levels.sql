-- Levels a queue uses, and the marks below which no claim needs to look.

-- Remember that a queue uses a level: claims discover levels here, not in `ready`.
create or replace function _use_level(p_queue_id integer, p_level integer) returns void
    language plpgsql
    as $$
begin
    if not exists (select from level where queue_id = p_queue_id and level = p_level) then
        insert into level (queue_id, level) values (p_queue_id, p_level) on conflict do nothing;
    end if;
end $$;

-- Levels with their base marks.  A mark is raised by a new row, and the one before is deleted: beside an old snapshot an
-- updated row would be walked version by version by every claim, while the highest of a level stands at the end of the
-- index.  Planned as part of the statement that calls it.
create or replace function _levels() returns table (queue_id integer, level integer, base bigint)
    language sql stable
    as $$
        select l.queue_id, l.level, coalesce((
            select b.seq from base_mark b where b.queue_id = l.queue_id and b.level = l.level
            order by b.queue_id desc, b.level desc, b.seq desc limit 1), 0)
        from level l
    $$;

-- Advance the base marks.  A seq may be committed long after a higher one, so "the lowest row I
-- see" is no mark.  Instead: note the highest seq handed out; in a later transaction take an xid;
-- every seq up to the note was drawn by a transaction with a lower xid, so once all of those have
-- ended, what a later statement sees at or below the note is all there will ever be there.
-- Called about once a second, alone in its transaction; each call moves one note and judges one.
-- A base is raised by a thousand numbers or not at all, and only in a queue that has moved: what a claim walks for one
-- that stays behind is a thousand dead entries at most, and most levels stand still at any time.
-- Returns whether notes were judged.
create or replace function advance_marks() returns boolean
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    c_step    constant integer := 1000;
    v_horizon horizon;
    v_moved   integer[];
    v_level   record;
    v_lowest  bigint;
    v_risen   boolean := false;
begin
    perform _require_read_committed();
    if pg_current_xact_id_if_assigned() is not null then
        raise exception 'advance_marks must be the first to write in its transaction: its xid would be too old'
            using errcode = 'AB004';
    end if;
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.marks')) then
        return false;
    end if;
    select * into v_horizon from horizon;
    -- In a database that was restored from a dump the xid is of another server, which may have been far ahead.
    if v_horizon.xid >= pg_snapshot_xmax(pg_current_snapshot()) then
        v_horizon.xid := null;
    end if;

    if v_horizon.xid is not null and pg_snapshot_xmin(pg_current_snapshot()) > v_horizon.xid then
        -- All tallies up to the note are committed, so none of this window is missed; some of the next may be among them.
        v_moved := array(select queue_id from total where upto >= v_horizon.tally_base
                         union select queue_id from tally where id >= v_horizon.tally_base);
        for v_level in
            select * from _levels() where queue_id = any (v_moved) and base < v_horizon.seq - c_step order by queue_id, level
        loop
            select least(
                (select r.seq from ready r
                 where r.queue_id = v_level.queue_id and r.level = v_level.level and r.seq >= v_level.base and r.needs is null
                 order by r.seq limit 1),
                (select r.seq from ready r
                 where r.queue_id = v_level.queue_id and r.level = v_level.level and r.seq >= v_level.base and r.needs is not null
                 order by r.seq limit 1)) into v_lowest;
            v_lowest := least(v_lowest, v_horizon.seq + 1);
            if v_lowest > v_level.base + c_step then
                delete from base_mark where queue_id = v_level.queue_id and level = v_level.level and seq = v_level.base;
                insert into base_mark (queue_id, level, seq) values (v_level.queue_id, v_level.level, v_lowest);
            end if;
        end loop;
        -- Tallies that are committed but not yet folded hold their mark back in the same way.
        select t.id into v_lowest from tally t where t.id >= v_horizon.tally_base order by t.id limit 1;
        v_horizon.tally_base := greatest(v_horizon.tally_base, least(v_lowest, v_horizon.tally + 1));
        v_horizon.xid := null;
        v_risen := true;
    end if;
    if v_horizon.xid is null then
        v_horizon.seq := v_horizon.noted_seq;
        v_horizon.tally := v_horizon.noted_tally;
        -- Not a snapshot's xmax: running transactions can lie above that.
        v_horizon.xid := pg_current_xact_id();
    end if;
    update horizon set at = clock_time(), seq = v_horizon.seq, tally = v_horizon.tally, xid = v_horizon.xid, tally_base = v_horizon.tally_base,
        -- A sequence that was never drawn from names its first number as the last.
        noted_seq = (select last_value - (not is_called)::integer from ready_seq),
        noted_tally = (select last_value - (not is_called)::integer from tally_id_seq);
    return v_risen;
end $$;
comment on function advance_marks() is 'Advance the marks below which claims and folds need not look.';
