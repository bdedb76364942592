-- How tables that rows only pass through are vacuumed, where the server's settings hurt a queue:
--
-- - Their files are often empty at the end.  Cutting that off takes a lock that every claim and report would wait
--   for, and that cancels readers on a standby; the room is used again within the second.
-- - They are small, and soon all of it is dead.  A vacuum is over at once if it does not pause to spare the disk;
--   until it is over, claims step over what it has not taken yet.
--
-- All others go by the server's settings: bodies and history are only added to, and leave by the week.
do $$
declare
    v_table text;
begin
    foreach v_table in array array['ready', 'lease', 'tally', 'timer', 'blocked', 'late', 'wait', 'waiter', 'listener', 'base_mark'] loop
        execute format('alter table %I set (vacuum_truncate = off, autovacuum_vacuum_cost_delay = 0,
                                            toast.vacuum_truncate = off, toast.autovacuum_vacuum_cost_delay = 0)', v_table);
    end loop;
end $$;
