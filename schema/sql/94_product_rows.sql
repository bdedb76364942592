-- Rows of the product tables, with conditions and by their keys: for the web interface, and for files of products.

-- What each kind of row is made of, as a query; the names of its columns are those of absurd/product_rows.py.  Artifacts
-- of executors that rarely make any cost what must be looked through to fill a page, as with list_tasks.  Raises AB001.
create or replace function _product_query(p_table text) returns text
    language plpgsql immutable
    as $$
declare
    v_query text := case p_table
        when 'product' then
            'select x.*, i.telescope, i.ra, i.declination, i.frequency_hz, i.bandwidth_hz, i.beam_major_arcsec, i.beam_minor_arcsec,
                    i.beam_angle_deg, i.rms_jy, i.thermal_jy, i.peak_jy, i.dynamic_range
             from product x left join sky_image i on i.product_id = x.id'
        when 'product_input' then 'select * from product_input'
        when 'source' then 'select * from source'
        when 'photometry' then 'select * from photometry'
        when 'variability' then 'select * from variability'
        when 'qa_result' then 'select q.*, x.path, x.kind, x.state from qa_result q join product x on x.id = q.product_id'
        when 'gain_set' then 'select * from gain_set'
        when 'recording' then
            'select g.id, i.name as intake, g.state, g.name, g.first_stamp, g.last_stamp, g.declination_deg, g.content, g.expected, g.product,
                    g.product ->> ''path'' as path, g.reason, g.task_id, g.created_at, g.ended_at
             from subband_group g join intake i on i.id = g.intake_id'
        when 'subband' then
            'select id, group_id, path, number, state, stamp, declination_deg, begins_at, reason from subband where group_id is not null'
        when 'session' then 'select * from session_file where state in (''sealed'', ''retired'')'
        when 'artifact' then
            'select a.task_id, a.path, e.name as executor, a.attempt, a.kind, a.sha256, a.bytes, a.published_at
             from artifact a left join task t on t.id = a.task_id left join executor e on e.id = t.executor_id
             where a.published_at is not null'
        end;
begin
    if v_query is null then
        raise exception 'there are no rows of %', coalesce(quote_literal(left(p_table, 200)), 'null') using errcode = 'AB001';
    end if;
    return v_query;
end $$;

-- The same with conditions: [[column, operator, value], …], of which all must hold; values are as text, of `in` a list.
-- Whatever they hold, names are quoted as names and values as values.  Raises AB001.
create or replace function _product_query(p_table text, p_where jsonb) returns text
    language plpgsql immutable
    as $$
declare
    v_each  jsonb;
    v_parts text[] := '{true}';
begin
    for v_each in select jsonb_array_elements(coalesce(p_where, '[]')) loop
        if (v_each ->> 1) in ('=', '<', '<=', '>', '>=', 'like') then
            v_parts := v_parts || format('r.%I %s %L', v_each ->> 0, v_each ->> 1, v_each ->> 2);
        elsif v_each ->> 1 = 'in' then
            v_parts := v_parts || format('r.%I in (null%s)', v_each ->> 0, (
                select string_agg(format(', %L', value), '') from jsonb_array_elements_text(v_each -> 2)));
        else
            raise exception 'there is no comparison %', coalesce(quote_literal(left(v_each ->> 1, 200)), 'null') using errcode = 'AB001';
        end if;
    end loop;
    return format('from (%s) r where %s', _product_query(p_table), array_to_string(v_parts, ' and '));
end $$;

-- By the columns p_order, upwards or downwards, from behind p_after: their values in the last row of the page before.
-- What belongs to each row is looked up: a merge would read the other table from its beginning up to the page.
create or replace function read_products(
    p_table text, p_order text[], p_where jsonb default null, p_after text[] default null, p_descending boolean default false,
    p_limit integer default 100)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current set timezone = 'UTC'
    set enable_mergejoin = off set enable_hashjoin = off set jit = off
    as $$
declare
    v_way  text := case when p_descending then ' desc' else '' end;
    v_from text := _product_query(p_table, p_where);
begin
    if p_after is not null then
        v_from := format('%s and (%s) %s (%s)', v_from,
            (select string_agg(format('r.%I', c), ', ' order by o) from unnest(p_order) with ordinality as u (c, o)),
            case when p_descending then '<' else '>' end,
            (select string_agg(quote_nullable(v), ', ' order by o) from unnest(p_after) with ordinality as u (v, o)));
    end if;
    return query execute format('select to_jsonb(r) %s order by %s limit %s', v_from,
        (select string_agg(format('r.%I%s', c, v_way), ', ' order by o) from unnest(p_order) with ordinality as u (c, o)),
        least(greatest(p_limit, 1), 10000));
end $$;
comment on function read_products(text, text[], jsonb, text[], boolean, integer) is
    'Rows of product, product_input, source, photometry, variability, qa_result, gain_set, recording, subband, session or artifact as documents with times in UTC: those of which all conditions [[column, operator, value], …] hold, in an order of columns, from behind a row of it.';

create or replace function count_products(p_table text, p_by text[] default '{}') returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_columns text := (select string_agg(format('r.%I', c), ', ' order by o) from unnest(p_by) with ordinality as u (c, o));
begin
    return query execute case when v_columns is null
        then format('select jsonb_build_object(''count'', count(*)) %s', _product_query(p_table, null))
        else format('select to_jsonb(c) from (select %s, count(*) as count %s group by %1$s order by %1$s) c', v_columns, _product_query(p_table, null))
        end;
end $$;
comment on function count_products(text, text[]) is
    'How many rows there are as read_products has them, for each value of columns: it counts them one by one.';
