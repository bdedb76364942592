-- Partitions in stock: see 11_partitions.sql.

-- The week in which ids and ends may lie at the earliest.  By UTC, so that sessions in different zones agree.
create or replace function _partition_start() returns timestamptz
    language sql stable
    as $$ select date_trunc('week', (clock_time() - interval '1 day') at time zone 'UTC') at time zone 'UTC' $$;

create or replace function _partition_name(p_start timestamptz) returns text
    language sql stable
    as $$ select to_char((p_start + interval '1 day') at time zone 'UTC', 'IYYY"w"IW') $$;

-- Whether the stock of a fortnight is not there.
create or replace function _lacks_partitions() returns boolean
    language sql stable
    as $$
        select to_regclass('run_' || _partition_name(_partition_start() + interval '14 days')) is null
            or to_regclass('log_' || _partition_name(_partition_start() + interval '14 days')) is null
    $$;

-- Transactions of others that hold the tables in which partitions are made and dropped.
create or replace function _partition_holders() returns table (pid integer, transaction text)
    language sql volatile
    as $$
        select l.pid, l.virtualtransaction from pg_locks l
        where l.relation in ('task'::regclass, 'task_default'::regclass, 'run'::regclass, 'run_default'::regclass,
                             'log'::regclass, 'log_default'::regclass)
          and l.database = (select oid from pg_database where datname = current_database())
          and l.granted and l.pid <> pg_backend_pid()
    $$;

-- Whether one of them has lasted for a while already, a dump perhaps: who waited for it would have all others stand
-- in line behind himself.  Of roles that the owner of the schema may not look into he does not see since when: he
-- looks twice whether they are still there.
create or replace function _partitions_are_held() returns boolean
    language plpgsql volatile
    as $$
declare
    v_unknown text[];
begin
    if exists (
        select from _partition_holders() join pg_stat_activity a using (pid)
        where a.backend_type = 'client backend' and a.xact_start < clock_timestamp() - interval '1 s')
    then
        return true;
    end if;
    v_unknown := array(select h.transaction from _partition_holders() h join pg_stat_activity a using (pid) where a.xact_start is null);
    if v_unknown = '{}' then
        return false;
    end if;
    perform pg_sleep(0.5);
    return exists (select from _partition_holders() h where h.transaction = any (v_unknown));
end $$;

-- Make the partitions for the weeks around now: ids may be a day behind, and a fortnight ahead is
-- kept in stock.  Returns how many were made.  The default partitions catch what no week holds.
create or replace function ensure_partitions() returns integer
    language plpgsql security definer set search_path from current set lock_timeout = '1s'
    as $$
declare
    v_made  integer := 0;
    v_start timestamptz;
    v_end   timestamptz;
    v_name  text;
begin
    if not _lacks_partitions() or _partitions_are_held() then
        return 0;
    end if;
    v_start := _partition_start();
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.partitions')) then
        return 0;
    end if;
    for i in 0..3 loop
        v_end := v_start + interval '7 days';
        v_name := _partition_name(v_start);
        if to_regclass('run_' || v_name) is null or to_regclass('log_' || v_name) is null then
            begin
                if to_regclass('run_' || v_name) is null then
                    execute format('create table %I partition of task for values from (%L) to (%L)',
                                   'task_' || v_name, _id_floor(v_start), _id_floor(v_end));
                    execute format('create table %I partition of run for values from (%L) to (%L)',
                                   'run_' || v_name, v_start, v_end);
                end if;
                if to_regclass('log_' || v_name) is null then
                    execute format('create table %I partition of log for values from (%L) to (%L)',
                                   'log_' || v_name, _id_floor(v_start), _id_floor(v_end));
                end if;
                v_made := v_made + 1;
            exception
                -- Rows of that week lie in the default partition, or somebody holds it: it goes on serving.
                when check_violation or lock_not_available then
                    raise warning 'partitions of week % were not made: %', v_name, sqlerrm;
            end;
        end if;
        v_start := v_end;
    end loop;
    return v_made;
end $$;
comment on function ensure_partitions() is 'Make the weekly partitions around now; returns how many were made.';

-- Weeks that nothing is added to any more and of which, by the statistics, hardly anything is left.
create or replace function _spent_partitions() returns table (parent text, name text)
    language sql stable
    as $$
        select p.relname::text, c.relname::text
        from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
        where i.inhparent in ('task'::regclass, 'run'::regclass, 'log'::regclass) and c.relname ~ '_[0-9]{4}w[0-9]{2}$'
          and to_date(right(c.relname, 7), 'IYYY"w"IW') < clock_time() at time zone 'UTC' - interval '9 days'
          and pg_stat_get_live_tuples(c.oid) <= 1000
        order by c.relname
    $$;

-- What drop_partition() moves cannot be seen by a statement that began before and waits for it midway, in a function
-- that reads on with the view of its caller.  Who decides by ended tasks therefore waits here, before that statement.
create or replace function _await_partitions() returns void
    language plpgsql
    as $$
begin
    lock table only task, only run in access share mode;
end $$;

-- Drop a past week that pruning has emptied: its room is free at once, with no vacuum.  A few rows that are kept
-- longer move to the default partition.  One a call: the lock of the other table could be another's who waits for
-- this one.  Returns how many were dropped.
create or replace function drop_partition() returns integer
    language plpgsql security definer set search_path from current set lock_timeout = '1s'
    as $$
declare
    v_spent record;
    v_many  boolean;
begin
    perform _require_read_committed();
    if _partitions_are_held() or not pg_try_advisory_xact_lock(hashtext(current_schema() || '.partitions')) then
        return 0;
    end if;
    for v_spent in select parent, name from _spent_partitions() loop
        execute format('select exists (select from %I offset 1000)', v_spent.name) into v_many;
        if not v_many then
            execute format('alter table %I detach partition %I', v_spent.parent, v_spent.name);
            execute format('insert into %I select * from %I', v_spent.parent, v_spent.name);
            execute format('drop table %I', v_spent.name);
            return 1;
        end if;
        -- The statistics were lost, in a crash of the server perhaps, and nobody would make them anew.
        execute format('analyze %I', v_spent.name);
    end loop;
    return 0;
exception when lock_not_available then  -- the next round tries again
    return 0;
end $$;
comment on function drop_partition() is 'Drop a past week of which hardly anything is left; returns how many were dropped, 0 or 1.';

do $$ begin perform ensure_partitions(); end $$;
