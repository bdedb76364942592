-- Counts and counters out of the tallies.

-- What a tally adds to the counters, none of which ever falls.  Nothing is written for them where tasks move, for the
-- changes of the counts tell what it was.  They sum to 0: tasks went from one state to another, and an end that gained
-- by it is an end.  They sum to more, and none of it ran or had ended: a spawn.  To less, and none of it ran: what had
-- ended was pruned, or moved to another queue.  The others count for nothing: a run that goes on in another queue, an
-- ended task that came from another, a dead letter whose task had been pruned.
create or replace function _counted_ever(p tally)
    returns table (spawned integer, completed integer, failed integer, cancelled integer, pruned integer, retried integer, lost integer)
    language sql immutable
    as $$
        select case when s.n > 0 and p.running = 0 and p.completed = 0 and p.failed = 0 and p.cancelled = 0 then s.n else 0 end,
               case when s.n = 0 then greatest(p.completed, 0) else 0 end,
               case when s.n = 0 then greatest(p.failed, 0) else 0 end,
               case when s.n = 0 then greatest(p.cancelled, 0) else 0 end,
               case when s.n < 0 and p.running = 0 then -s.n else 0 end,
               p.retried, p.lost
        from (select p.blocked + p.pending + p.sleeping + p.running + p.completed + p.failed + p.cancelled as n) s
    $$;

-- Fold tallies into totals.  One folder at a time; it reads from its mark, not through what it
-- deleted before.
create or replace function fold_tallies(p_limit integer default 10000) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_base   bigint;
    v_folded integer;
begin
    perform _require_no_upgrade();
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.tallies')) then
        return 0;
    end if;
    select tally_base into v_base from horizon;
    with gone as (
        delete from tally where id = any (array(select id from tally where id >= v_base order by id limit p_limit)) returning *),
    summed as (
        select g.queue_id, sum(g.blocked) as blocked, sum(g.pending) as pending, sum(g.sleeping) as sleeping, sum(g.running) as running,
               sum(g.completed) as completed, sum(g.failed) as failed, sum(g.cancelled) as cancelled, count(*) as n, max(g.id) as upto,
               sum(e.spawned) as spawned, sum(e.completed) as ever_completed, sum(e.failed) as ever_failed,
               sum(e.cancelled) as ever_cancelled, sum(e.pruned) as pruned, sum(e.retried) as retried, sum(e.lost) as lost
        from gone g cross join lateral _counted_ever(row(g.*)::tally) e group by g.queue_id),
    added as (
        update total t
        set (blocked, pending, sleeping, running, completed, failed, cancelled, upto,
             ever_spawned, ever_completed, ever_failed, ever_cancelled, ever_pruned, ever_retried, ever_lost)
          = (t.blocked + s.blocked, t.pending + s.pending, t.sleeping + s.sleeping, t.running + s.running,
             t.completed + s.completed, t.failed + s.failed, t.cancelled + s.cancelled,
             greatest(t.upto, s.upto),
             t.ever_spawned + s.spawned, t.ever_completed + s.ever_completed, t.ever_failed + s.ever_failed,
             t.ever_cancelled + s.ever_cancelled, t.ever_pruned + s.pruned, t.ever_retried + s.retried, t.ever_lost + s.lost)
        from summed s where t.queue_id = s.queue_id)
    select coalesce(sum(n), 0) into v_folded from summed;
    return v_folded;
end $$;
comment on function fold_tallies(integer) is 'Fold appended counts into totals; returns how many rows.';
