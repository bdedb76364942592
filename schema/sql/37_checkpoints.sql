-- Steps that a run saves, and what it tells of its progress; both fenced by the claim.

create or replace function get_checkpoints(p_task uuid) returns table (name text, value jsonb)
    language sql stable security definer set search_path from current
    as $$ select name, value from checkpoint where task_id = p_task $$;
comment on function get_checkpoints(uuid) is 'Saved steps of a task.';

create or replace function set_checkpoint(p_lease bigint, p_task uuid, p_name text, p_value jsonb) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform check_claim(p_lease, p_task);
    insert into checkpoint (task_id, name, value, created_at) values (p_task, p_name, p_value, clock_time())
    on conflict (task_id, name) do update set value = excluded.value, created_at = excluded.created_at;
end $$;
comment on function set_checkpoint(bigint, uuid, text, jsonb) is 'Save a step. Raises AB002 when the claim is lost.';

create or replace function set_progress(p_lease bigint, p_task uuid, p_done double precision, p_total double precision, p_message text)
    returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform check_claim(p_lease, p_task);
    insert into progress (task_id, done, total, message, updated_at) values (p_task, p_done, p_total, p_message, clock_time())
    on conflict (task_id) do update
        set (done, total, message, updated_at) = (excluded.done, excluded.total, excluded.message, excluded.updated_at);
end $$;
comment on function set_progress(bigint, uuid, double precision, double precision, text) is
    'Tell how far a run is. Raises AB002 when the claim is lost.';
