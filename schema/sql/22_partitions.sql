-- Partitions in stock: see 11_partitions.sql.

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
    -- The names carry the UTC week, so that sessions in different zones agree on them.
    v_start := date_trunc('week', (clock_time() - interval '1 day') at time zone 'UTC') at time zone 'UTC';
    if to_regclass('run_' || to_char((v_start + interval '15 days') at time zone 'UTC', 'IYYY"w"IW')) is not null then
        return 0;
    end if;
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.partitions')) then
        return 0;
    end if;
    for i in 0..3 loop
        v_end := v_start + interval '7 days';
        v_name := to_char((v_start + interval '1 day') at time zone 'UTC', 'IYYY"w"IW');
        if to_regclass('run_' || v_name) is null then
            begin
                execute format('create table %I partition of task for values from (%L) to (%L)',
                               'task_' || v_name, _id_floor(v_start), _id_floor(v_end));
                execute format('create table %I partition of run for values from (%L) to (%L)',
                               'run_' || v_name, v_start, v_end);
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

do $$ begin perform ensure_partitions(); end $$;
