-- Options of a spawn: read and checked, so that a typing error is never a lost wish.

-- One option as a number within bounds; AB001 names the option and its value.
create or replace function _option_number(p_options jsonb, p_name text, p_low double precision, p_high double precision,
                               p_whole boolean default false)
    returns double precision
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    -- As numeric: a number may be too large for double precision.
    if jsonb_typeof(v_value) <> 'number' or not (v_value::numeric between p_low::numeric and p_high::numeric) then
        raise exception 'option % is %; it must be a number from % to %', p_name, left(v_value::text, 100), p_low, p_high
            using errcode = 'AB001';
    end if;
    if p_whole and v_value::numeric % 1 <> 0 then
        raise exception 'option % is %; it must be a whole number', p_name, left(v_value::text, 100) using errcode = 'AB001';
    end if;
    return v_value::double precision;
end $$;

-- One option as a value of the wanted JSON type; AB001 names the option and its value.
create or replace function _option(p_options jsonb, p_name text, p_type text) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    if jsonb_typeof(v_value) <> p_type then
        raise exception 'option % is %; it must be a JSON %', p_name, left(v_value::text, 100), p_type
            using errcode = 'AB001';
    end if;
    return v_value;
end $$;

-- One option as a list that is not too long.
create or replace function _option_list(p_options jsonb, p_name text) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_value jsonb := _option(p_options, p_name, 'array');
begin
    if jsonb_array_length(v_value) > 100000 then
        raise exception 'option % has % entries; at most 100000 are taken', p_name, jsonb_array_length(v_value) using errcode = 'AB001';
    end if;
    return v_value;
end $$;

-- One option as a list of texts.
create or replace function _option_texts(p_options jsonb, p_name text) returns text[]
    language plpgsql immutable
    as $$
declare
    v_value jsonb := _option_list(p_options, p_name);
begin
    if v_value is null then
        return null;
    end if;
    if exists (select from jsonb_array_elements(v_value) e where jsonb_typeof(e) <> 'string') then
        raise exception 'option % is %; it must be a list of strings', p_name, left(v_value::text, 100) using errcode = 'AB001';
    end if;
    return array(select jsonb_array_elements_text(v_value));
end $$;

-- One option as a text of 1 to p_longest characters.
create or replace function _option_text(p_options jsonb, p_name text, p_longest integer) returns text
    language plpgsql immutable
    as $$
declare
    v_value text := _option(p_options, p_name, 'string') #>> '{}';
begin
    if length(v_value) not between 1 and p_longest then
        raise exception 'option % has % characters; it must have 1 to %', p_name, length(v_value), p_longest using errcode = 'AB001';
    end if;
    return v_value;
end $$;

-- One option as a number of seconds.
create or replace function _option_seconds(p_options jsonb, p_name text, p_low double precision, p_high double precision)
    returns interval
    language sql immutable
    as $$ select make_interval(secs => _option_number(p_options, p_name, p_low, p_high)) $$;

-- One option as a task id or several.
create or replace function _option_ids(p_options jsonb, p_name text) returns uuid[]
    language plpgsql immutable
    as $$
declare
    v_ids uuid[];
begin
    -- Not by way of _option_texts, which looks at each element three times: a graph may have a million edges.
    v_ids := array(select distinct t::uuid from jsonb_array_elements_text(_option_list(p_options, p_name)) t order by 1);
    if array_position(v_ids, null) is not null then
        raise invalid_text_representation;
    end if;
    return nullif(v_ids, '{}');
exception when invalid_text_representation then
    raise exception 'option % is %; it must be a list of task ids', p_name, left((p_options -> p_name)::text, 100)
        using errcode = 'AB001';
end $$;

-- One option as a time with its zone.
create or replace function _option_time(p_options jsonb, p_name text) returns timestamptz
    language plpgsql stable
    as $$
declare
    v_text text := _option(p_options, p_name, 'string') #>> '{}';
    v_time timestamptz;
begin
    if v_text is null then
        return null;
    end if;
    begin
        -- With a time of day: the day of a date looks like a zone.
        if v_text !~ '\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$' then
            raise exception 'no zone';
        end if;
        v_time := v_text::timestamptz;
    exception when others then
        raise exception 'option % is %; it must be a time with its zone', p_name, quote_literal(left(v_text, 100))
            using errcode = 'AB001';
    end;
    if not isfinite(v_time) then
        raise exception 'option % is %; it must be finite', p_name, v_text using errcode = 'AB001';
    end if;
    return v_time;
end $$;

-- The time before which a task shall not start: option run_at, or delay from now.
create or replace function _option_start(p_options jsonb) returns timestamptz
    language plpgsql stable
    as $$
declare
    v_time  timestamptz := _option_time(p_options, 'run_at');
    v_delay double precision := _option_number(p_options, 'delay', 0, 315360000);
begin
    if v_time is not null and v_delay is not null then
        raise exception 'options delay and run_at exclude each other' using errcode = 'AB001';
    end if;
    return coalesce(v_time, clock_time() + make_interval(secs => nullif(v_delay, 0)));
end $$;

-- Option when: under which ends of its parents a task runs.  Null means all_success.
create or replace function _option_condition(p_options jsonb, p_parents integer) returns text
    language plpgsql immutable
    as $$
declare
    v_text   text := _option_text(p_options, 'when', 100);
    v_quorum integer := substring(v_text from '^quorum\((\d{1,9})\)$')::integer;
begin
    if v_text is null or v_text = 'all_success' then
        return null;
    end if;
    if v_quorum is null and v_text not in ('all_done', 'any_success', 'any_failed') then
        raise exception 'option when is %; it must be all_success, all_done, any_success, any_failed or quorum(K)',
            quote_literal(v_text) using errcode = 'AB001';
    end if;
    if p_parents is null then
        raise exception 'option when is %, but the task has no parents: name them in depends_on', quote_literal(v_text)
            using errcode = 'AB001';
    end if;
    if v_quorum not between 1 and p_parents then
        raise exception 'option when is %, but the task has % parents', quote_literal(v_text), p_parents using errcode = 'AB001';
    end if;
    return v_text;
end $$;

-- Refuse JSON that is too large to be stored; what JSON does not need, blanks behind : and , in its text, is
-- not counted.  Refuse what is nested deeper than workers can read: Python's parser gives up at about a thousand levels.
-- The conditions on the stored size keep the small ones, which is nearly all, from being walked and made text; a level takes
-- 8 bytes, so that 500 of them take 4000.  Raises AB009.
create or replace function _check_size(p_what text, p_value jsonb) returns void
    language plpgsql immutable
    as $$
declare
    v_size integer;
begin
    if pg_column_size(p_value) > 4000 and jsonb_path_exists(p_value, 'strict $.**{500}') then
        raise exception '%: nested more than 500 levels deep; put it in a file and pass the path', p_what using errcode = 'AB009';
    end if;
    if pg_column_size(p_value) > 150000 then
        v_size := octet_length(regexp_replace(p_value::text, '([,:]) ', '\1', 'g'));
        if v_size > 1048576 then
            raise exception '%: % bytes of JSON, more than the 1048576 that are stored; put it in a file and pass the path', p_what, v_size
                using errcode = 'AB009';
        end if;
    end if;
end $$;

-- Refuse keys that an object must not have.
create or replace function _check_keys(p_what text, p_object jsonb, p_known text[]) returns void
    language plpgsql immutable
    as $$
declare
    v_unknown text;
begin
    select string_agg(k, ', ') into v_unknown from jsonb_object_keys(p_object) k where k <> all (p_known);
    if v_unknown is not null then
        raise exception '%: unknown %; known are %', p_what, v_unknown, array_to_string(p_known, ', ') using errcode = 'AB001';
    end if;
end $$;

-- Refuse a retry policy that no worker could follow (absurd/retry.py): it would use its own instead, and only log
-- that.  Whether `text` of a rule is a regular expression is left to workers.
create or replace function _check_retry(p_retry jsonb) returns void
    language plpgsql immutable
    as $$
declare
    v_bad    text;
    v_policy jsonb;
    v_rule   jsonb;
begin
    if p_retry is null then
        return;
    end if;
    perform _check_keys('option retry', p_retry, array['max_attempts', 'base', 'factor', 'maximum', 'jitter', 'rules']);
    select k into v_bad from jsonb_each(p_retry) r (k, v) where v = 'null' and k <> 'rules' limit 1;
    if found then
        raise exception 'option retry.% is null; leave it out', v_bad using errcode = 'AB001';
    end if;
    v_policy := (select jsonb_object_agg('retry.' || k, v) from jsonb_each(p_retry) r (k, v));
    perform _option_number(v_policy, 'retry.max_attempts', 0, 32767, true), _option_number(v_policy, 'retry.base', 0, 31536000),
            _option_number(v_policy, 'retry.factor', 1, 1000), _option_number(v_policy, 'retry.maximum', 0, 31536000),
            _option_number(v_policy, 'retry.jitter', 0, 1);
    for v_rule in select r from jsonb_array_elements(_option_list(v_policy, 'retry.rules')) r loop
        if jsonb_typeof(v_rule) <> 'object' then
            raise exception 'option retry.rules holds %; a rule is a JSON object', left(v_rule::text, 100) using errcode = 'AB001';
        end if;
        perform _check_keys('option retry.rules', v_rule, array[
            'exception', 'exit_code', 'signal', 'out_of_memory', 'text', 'action', 'delay', 'base', 'factor', 'maximum',
            'memory_factor', 'memory_max_gib', 'queue']);
        v_rule := (select jsonb_object_agg('retry.rules.' || k, v) from jsonb_each(v_rule) r (k, v));
        perform _option_number(v_rule, 'retry.rules.exit_code', 0, 255, true), _option_number(v_rule, 'retry.rules.delay', 0, 31536000),
                _option_number(v_rule, 'retry.rules.base', 0, 31536000), _option_number(v_rule, 'retry.rules.factor', 1, 1000),
                _option_number(v_rule, 'retry.rules.maximum', 0, 31536000), _option_number(v_rule, 'retry.rules.memory_factor', 1, 1000),
                _option_number(v_rule, 'retry.rules.memory_max_gib', 0, 1000000), _option(v_rule, 'retry.rules.exception', 'string'),
                _option(v_rule, 'retry.rules.signal', 'string'), _option(v_rule, 'retry.rules.text', 'string'),
                _option(v_rule, 'retry.rules.out_of_memory', 'boolean');
        if _option(v_rule, 'retry.rules.action', 'string') #>> '{}' not in ('retry', 'reject') then
            raise exception 'option retry.rules.action is %; it must be retry or reject', v_rule -> 'retry.rules.action' using errcode = 'AB001';
        end if;
        if _option(v_rule, 'retry.rules.queue', 'string') #>> '{}' !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
            raise exception 'option retry.rules.queue is %, which no queue may be called', v_rule -> 'retry.rules.queue' using errcode = 'AB001';
        end if;
        if nullif(v_rule -> 'retry.rules.memory_max_gib', 'null') is not null and nullif(v_rule -> 'retry.rules.memory_factor', 'null') is null then
            raise exception 'option retry.rules.memory_max_gib limits memory_factor, but there is none' using errcode = 'AB001';
        end if;
    end loop;
end $$;

-- Options of one task, checked.  Unknown keys are refused.
create or replace function _read_options(p_spawn _spawn, p_options jsonb) returns _spawn
    language plpgsql stable
    as $$
declare
    v_known   constant text[] := array[
        'priority', 'delay', 'run_at', 'key', 'key_period', 'key_scope', 'depends_on', 'when', 'headers', 'tags', 'max_attempts',
        'timeout', 'retry', 'needs', 'lane', 'start_within', 'finish_within', 'workflow', 'node', 'id'];
    v_unknown text;
begin
    if jsonb_typeof(p_options) <> 'object' then
        raise exception 'options are %; they must be a JSON object', left(p_options::text, 100) using errcode = 'AB001';
    end if;
    if p_options - v_known <> '{}' then
        raise exception 'unknown option %; known are %', (select string_agg(k, ', ') from jsonb_object_keys(p_options - v_known) k),
            array_to_string(v_known, ', ') using errcode = 'AB001';
    end if;
    -- Group by group, for most tasks have few options, and a look for one that is not there is felt.
    p_spawn.priority := coalesce(_option_number(p_options, 'priority', -10000, 10000, true), 0);
    if p_options ?| '{delay,run_at,start_within,finish_within}' then
        p_spawn.run_at := _option_start(p_options);
        p_spawn.start_within := _option_seconds(p_options, 'start_within', 0.001, 315360000);
        p_spawn.finish_within := _option_seconds(p_options, 'finish_within', 0.001, 315360000);
    end if;
    if p_options ?| '{key,key_period,key_scope}' then
        p_spawn.key := _option_text(p_options, 'key', 1000);
        p_spawn.key_period := _option_seconds(p_options, 'key_period', 0.001, 3153600000);
        p_spawn.key_scope := _option_text(p_options, 'key_scope', 100);
        if p_spawn.key_scope not in ('ever', 'unfinished') then
            raise exception 'option key_scope is %; it must be ever or unfinished', quote_literal(p_spawn.key_scope)
                using errcode = 'AB001';
        end if;
        if p_spawn.key is null and (p_spawn.key_period is not null or p_spawn.key_scope is not null) then
            raise exception 'options key_period and key_scope tell how long a key counts, but there is no key' using errcode = 'AB001';
        end if;
    end if;
    if p_options ?| '{depends_on,when}' then
        p_spawn.depends_on := _option_ids(p_options, 'depends_on');
        p_spawn.condition := _option_condition(p_options, cardinality(p_spawn.depends_on));
    end if;
    if p_options ?| '{headers,tags}' then
        p_spawn.headers := _option(p_options, 'headers', 'object');
        perform _check_size('headers', p_spawn.headers);
        p_spawn.tags := _option_texts(p_options, 'tags');
    end if;
    if p_options ?| '{max_attempts,timeout,retry}' then
        p_spawn.max_attempts := _option_number(p_options, 'max_attempts', 0, 32767, true);
        p_spawn.timeout := _option_seconds(p_options, 'timeout', 0.001, 31536000);
        p_spawn.retry := _option(p_options, 'retry', 'object');
        perform _check_retry(p_spawn.retry);
    end if;
    if p_options ?| '{needs,lane}' then
        p_spawn.lane := _option_text(p_options, 'lane', 500);
        p_spawn.needs := nullif(_option(p_options, 'needs', 'object'), '{}');
        select k into v_unknown from jsonb_each(p_spawn.needs) n (k, v)
        where jsonb_typeof(v) <> 'number' or not v::numeric between 0 and 1e300 limit 1;
        if found then
            raise exception 'option needs.% is %; it must be a number from 0 to 1e300', v_unknown, p_spawn.needs -> v_unknown
                using errcode = 'AB001';
        end if;
    end if;
    if p_options ?| '{workflow,node}' then
        p_spawn.node := _option_text(p_options, 'node', 500);
        p_spawn.workflow_id := (_option_ids(jsonb_build_object(
            'workflow', array_remove(array[_option_text(p_options, 'workflow', 100)], null)), 'workflow'))[1];
    end if;
    return p_spawn;
end $$;
