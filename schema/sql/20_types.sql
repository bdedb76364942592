-- Rows that private functions pass to one another.  No table and no public function has a column of
-- these types: an upgrade makes them anew, and takes the functions that use them along.

do $$
declare
    v_type text;
begin
    foreach v_type in array array['_spawn', '_held', '_survey', '_packed'] loop
        if to_regtype(v_type) is not null then
            execute format('drop type %I cascade', v_type);
        end if;
    end loop;
end $$;

create type _spawn as (
    ordinal       integer,
    id            uuid,
    queue_id      integer,
    executor_id   integer,
    params        jsonb,
    fresh         boolean,
    priority      integer,
    run_at        timestamptz,
    key           text,
    key_period    interval,
    key_scope     text,
    depends_on    uuid[],
    condition     text,
    headers       jsonb,
    tags          text[],
    max_attempts  integer,
    timeout       interval,
    retry         jsonb,
    needs         jsonb,
    lane          text,
    start_within  interval,
    finish_within interval,
    workflow_id   uuid,
    node          text
);
comment on type _spawn is 'A task about to be spawned: names turned into ids, options read. fresh: not spawned before.';

create type _held as (n integer, task_id uuid, attempt smallint, lease_id bigint, queue_id integer, claimed_at timestamptz);
comment on type _held is 'A reported run that is held under the lease it names; n is its place in the report.';

create type _survey as (
    offers   jsonb,
    names    text[],
    free     numeric[],
    shared   boolean[],
    tasks    uuid[],
    levels   integer[],
    seqs     bigint[],
    kinds    integer[],
    amounts  numeric[],
    deferred boolean[],
    noted    uuid,
    binds    boolean,
    first    uuid,
    kept     boolean
);
comment on type _survey is
    'What a claim finds before it packs: what is free by name, and tasks in their order, each of a kind that needs amounts[(kind - 1) * names + n]; whether a slot is kept for the noted one.';
create type _packed as (tasks uuid[], places tid[], chosen integer[], plain integer, waits boolean);
comment on type _packed is
    'What a claim packs: tasks that need something and their places in `ready`; all tasks by their place in the survey; how many without needs go with them; waits: more waits for slots.';
