-- What alerts can measure.

-- Each with its unit (1: a fraction), whether too little of it is bad, and the options it takes and needs.
create or replace function _measures() returns table (name text, unit text, below boolean, options text[], needed text[])
    language sql immutable
    as $$
        values
            ('calibration_age', 's', false, '{telescope}'::text[], '{}'::text[]),
            ('dead_letters', 'tasks', false, '{queue}', '{}'),
            ('disk_free', '1', true, '{folder}', '{folder}'),
            ('failure_rate', '1', false, '{queue,executor,window,least}', '{}'),
            ('image_noise', 'Jy/beam', false, '{telescope,window,least}', '{}'),
            ('problems', 'problems', false, '{code}', '{}'),
            ('quarantined', 'products', false, '{window}', '{}'),
            ('queue_age', 's', false, '{queue}', '{}'),
            ('queue_depth', 'tasks', false, '{queue}', '{}'),
            ('run_age', 's', false, '{queue}', '{}'),
            ('run_seconds', 's', false, '{queue,executor,window,least}', '{}'),
            ('schedule_lateness', 's', false, '{schedule}', '{}'),
            ('success_age', 's', false, '{schedule}', '{schedule}'),
            ('workers', 'workers', true, '{queue}', '{}')
    $$;

-- The worst of what there is, and of what that is.  Null where nothing is there to be measured, or too little.
create or replace function _measured(p_measure text, p_options jsonb, p_disks jsonb, out value double precision, out subject text)
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_queue text := p_options ->> 'queue';
    v_since timestamptz := v_now - make_interval(secs => coalesce((p_options ->> 'window')::double precision, 3600));
    v_least integer := coalesce((p_options ->> 'least')::double precision::integer, 1);
begin
    case p_measure
    when 'calibration_age' then
        select extract(epoch from v_now - max(g.observed_at)), coalesce('telescope ' || (p_options ->> 'telescope'), 'the newest gain set') into value, subject
        from gain_set g where g.state = 'valid' and (g.telescope = p_options ->> 'telescope' or not p_options ? 'telescope');
    when 'dead_letters' then
        select d.n, 'queue ' || d.name into value, subject
        from _dead_letters_by_queue() d where v_queue is null or d.name = v_queue order by d.n desc, d.name limit 1;
    when 'disk_free' then
        value := (p_disks ->> (p_options ->> 'folder'))::double precision;
        subject := 'the disk of ' || (p_options ->> 'folder');
    when 'failure_rate' then
        select case when count(*) >= v_least then avg((e.state <> 'completed')::integer::double precision) end, _of_ended(p_options)
            into value, subject from _ended(p_options, v_since) e;
    when 'run_seconds' then
        select case when count(*) >= v_least then percentile_disc(0.95) within group (order by e.seconds) end, _of_ended(p_options)
            into value, subject from _ended(p_options, v_since) e where e.state = 'completed';
    when 'image_noise' then
        select case when count(*) >= v_least then percentile_disc(0.5) within group (order by s.rms_jy) end, 'images' into value, subject
        from (select id, stored_at from product where kind = 'image' order by id desc limit 1000) p
        join sky_image s on s.product_id = p.id
        where p.stored_at > v_since and s.rms_jy is not null and (s.telescope = p_options ->> 'telescope' or not p_options ? 'telescope');
    when 'problems' then
        -- But for those of alerts themselves, or one would keep itself firing.
        select count(*), min(p ->> 'message') into value, subject
        from jsonb_array_elements(get_status() -> 'problems') p
        where p ->> 'code' !~ '^alert_' and (p ->> 'code' = p_options ->> 'code' or not p_options ? 'code');
    when 'quarantined' then
        select count(*) into value from (
            select from (select state, decided_at from product order by id desc limit 1000) p where p.state = 'quarantined' and p.decided_at > v_since
            union all
            select from (select state, decided_at from gain_set order by id desc limit 1000) g where g.state = 'quarantined' and g.decided_at > v_since) q;
    when 'queue_age' then
        select coalesce(q.oldest_pending_seconds, 0), 'queue ' || q.name into value, subject
        from list_queues() q where not q.paused and (v_queue is null or q.name = v_queue)
        order by coalesce(q.oldest_pending_seconds, 0) desc, q.name limit 1;
    when 'queue_depth' then
        select q.pending, 'queue ' || q.name into value, subject
        from list_queues() q where v_queue is null or q.name = v_queue order by q.pending desc, q.name limit 1;
    when 'run_age' then
        select extract(epoch from v_now - min(l.claimed_at)), coalesce('queue ' || v_queue, 'all queues') into value, subject
        from _live_leases() l where v_queue is null or l.queue_id = (select id from queue where name = v_queue);
        value := coalesce(value, 0);
    when 'schedule_lateness' then
        select extract(epoch from v_now - coalesce(s.next_due, s.settled_at)), 'schedule ' || s.name into value, subject
        from schedule s
        where s.paused_at is null and s.error is null and coalesce(s.next_due, s.settled_at) < v_now
          and (s.name = p_options ->> 'schedule' or not p_options ? 'schedule')
        order by 1 desc, s.name limit 1;
        value := coalesce(value, 0);
    when 'success_age' then
        subject := 'schedule ' || (p_options ->> 'schedule');
        select extract(epoch from v_now - max(t.fired_at)) into value
        from (select t.fired_at, t.task_id from tick t join schedule s on s.id = t.schedule_id
              where s.name = p_options ->> 'schedule' and t.task_id is not null order by t.due_at desc limit 100) t
        where get_state(t.task_id) = 'completed';
    when 'workers' then
        select count(*), coalesce('queue ' || v_queue, 'all queues') into value, subject
        from list_workers() w
        where w.state = 'running' and not w.draining and (v_queue is null or v_queue = any (w.queues))
          and w.last_seen > v_now - make_interval(secs => w.lease_seconds);
    end case;
    if value in ('NaN', 'Infinity', '-Infinity') then
        value := null;
    end if;
end $$;

-- Tasks that have ended since then, with the seconds of their last run.  By the finishing times of runs alone: it costs
-- what the window holds.
create or replace function _ended(p_options jsonb, p_since timestamptz) returns table (state run_state, seconds double precision)
    language sql stable
    as $$
        select r.state, extract(epoch from r.finished_at - r.started_at)::double precision
        from run r
        where r.finished_at > p_since and r.ends and r.state in ('completed', 'failed', 'lost')
          and (not p_options ?| '{queue,executor}' or exists (
              select from task t
              where t.id = r.task_id
                and (not p_options ? 'queue' or t.queue_id = (select id from queue where name = p_options ->> 'queue'))
                and (not p_options ? 'executor' or t.executor_id = (select id from executor where name = p_options ->> 'executor'))))
    $$;

create or replace function _of_ended(p_options jsonb) returns text
    language sql immutable
    as $$ select coalesce(nullif(concat_ws(' of ', 'executor ' || (p_options ->> 'executor'), 'queue ' || (p_options ->> 'queue')), ''), 'all tasks') $$;
