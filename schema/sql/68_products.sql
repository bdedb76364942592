-- Products: stored by the completion of the task that has made them, accepted or quarantined by gates, and found again.
-- Whoever stores or decides holds the advisory lock of products, taken before any of their rows: so those that come to
-- one path, or find one source, do so one after the other.

create or replace function _hold_products() returns void
    language sql
    as $$ select pg_advisory_xact_lock(hashtextextended('absurd.products.' || current_schema(), 0)) $$;

-- Angle between two positions, degrees, in arcseconds (haversine: right for small and large ones, at the poles too).
create or replace function _arcsec_between(p_ra1 double precision, p_dec1 double precision, p_ra2 double precision, p_dec2 double precision)
    returns double precision
    language sql immutable
    as $$
        select 7200 * degrees(asin(least(1, sqrt(
            power(sin(radians(p_dec2 - p_dec1) / 2), 2)
            + cos(radians(p_dec1)) * cos(radians(p_dec2)) * power(sin(radians(p_ra2 - p_ra1) / 2), 2)))))
    $$;

-- Known sources within a radius, the nearest first.  Boxes in right ascension hold all of the circle: near a pole they
-- are the whole ring, and across 0 there are two of them.
create or replace function _sources_around(p_ra double precision, p_dec double precision, p_arcsec double precision)
    returns table (id bigint, arcsec double precision)
    language sql stable
    as $$
        select s.id, d.arcsec
        from (select p_arcsec / 3600 + 1e-9 as high,
                     case when abs(p_dec) + p_arcsec / 3600 >= 89.99 then 360
                          else p_arcsec / 3600 / cos(radians(abs(p_dec) + p_arcsec / 3600)) + 1e-9 end as wide) r
        cross join unnest(array[-360, 0, 360]) turn
        join source s on point(s.ra, s.declination) <@ box(point(p_ra + turn - r.wide, p_dec - r.high), point(p_ra + turn + r.wide, p_dec + r.high))
        cross join lateral (select _arcsec_between(p_ra, p_dec, s.ra, s.declination) as arcsec) d
        where p_ra + turn - r.wide < 360 and p_ra + turn + r.wide >= 0 and d.arcsec <= p_arcsec
        group by s.id, d.arcsec
        order by d.arcsec, s.id
    $$;

-- What completed runs have told of their products, as complete_runs has it: [{task, kind, row}].  Of runs that are not
-- held nothing is stored.  Raises AB001.
-- Touches the advisory lock of products, product in order of path, sky_image, product_input, source, photometry,
-- variability, qa_result, session_file.
create or replace function _store_products(p_held _held[], p_products jsonb) returns void
    language plpgsql
    set enable_seqscan = on set enable_bitmapscan = on set enable_hashjoin = on set enable_mergejoin = on set plan_cache_mode = auto
    as $$
declare
    v_wrong text;
    v_task  uuid;
    v_rows  jsonb;
    v_ids   jsonb;
    v_table bigint;
begin
    select coalesce(p ->> 'kind', 'null') into v_wrong from jsonb_array_elements(p_products) p
    where (p ->> 'kind' in ('image', 'mosaic', 'table', 'source', 'photometry', 'variability', 'qa', 'session')) is not true limit 1;
    if v_wrong is not null then
        raise exception 'there are no products of kind %', quote_literal(left(v_wrong, 200)) using errcode = 'AB001';
    end if;
    perform _hold_products();
    for v_task, v_rows in
        select h.task_id, t.rows
        from (select (p ->> 'task')::uuid as task, jsonb_agg(p order by o) as rows
              from jsonb_array_elements(p_products) with ordinality as u (p, o) group by 1) t
        join unnest(p_held) h on h.task_id = t.task
        order by h.task_id
    loop
        v_table := _store_files(v_task, v_rows);
        v_ids := _place_sources(v_rows, v_table);
        perform _store_photometry(v_rows, v_ids, v_table);
        perform _store_variability(v_rows, v_ids, v_table);
        perform _store_sessions(v_task, v_rows);
        perform _store_measures((p #>> '{row,product}')::bigint, p #> '{row,measures}') from jsonb_array_elements(v_rows) p where p ->> 'kind' = 'qa';
        update product set state = 'accepted', decided_at = clock_time()
        from jsonb_array_elements(v_rows) p
        where p ->> 'kind' = 'qa' and id = (p #>> '{row,product}')::bigint and state = 'candidate'
          and not exists (select from jsonb_array_elements(p #> '{row,measures}') m where m ->> 'verdict' = 'fail');
    end loop;
exception when data_exception or integrity_constraint_violation or cardinality_violation then
    raise exception 'products cannot be stored: %', sqlerrm using errcode = 'AB001';
end $$;

-- The files of a run, which are artifacts of it: these tell their checksums.  The same file with the same content is
-- the same product, in whatever state that is now; what had its path before is superseded.  Returns the first table.
create or replace function _store_files(p_task uuid, p_rows jsonb) returns bigint
    language plpgsql
    as $$
declare
    v_now     timestamptz := clock_time();
    v_missing text;
begin
    select p #>> '{row,path}' into v_missing from jsonb_array_elements(p_rows) p
    where p ->> 'kind' in ('image', 'mosaic', 'table')
      and not exists (select from artifact a where a.task_id = p_task and a.path = p #>> '{row,path}' and a.sha256 is not null and a.bytes is not null)
    limit 1;
    if found then
        raise exception 'the product % is no file that the run has written', coalesce(quote_literal(left(v_missing, 1000)), 'null') using errcode = 'AB001';
    end if;
    update product x set state = 'superseded', decided_at = v_now
    from jsonb_array_elements(p_rows) p join artifact a on a.task_id = p_task and a.path = p #>> '{row,path}'
    where p ->> 'kind' in ('image', 'mosaic', 'table')
      and x.path = a.path and x.checksum <> a.sha256 and x.state in ('candidate', 'accepted');
    insert into product as x (kind, path, checksum, bytes, state, observed_from, observed_until, facts, task_id, stored_at, decided_at)
        select p ->> 'kind', a.path, a.sha256, a.bytes, case p ->> 'kind' when 'table' then 'accepted' else 'candidate' end,
               (p #>> '{row,observed_from}')::timestamptz, (p #>> '{row,observed_until}')::timestamptz, coalesce(p #> '{row,facts}', '{}'),
               p_task, v_now, v_now
        from jsonb_array_elements(p_rows) p join artifact a on a.task_id = p_task and a.path = p #>> '{row,path}'
        where p ->> 'kind' in ('image', 'mosaic', 'table')
        order by a.path
        on conflict (path, checksum) do update
            set kind = excluded.kind, observed_from = excluded.observed_from, observed_until = excluded.observed_until,
                facts = excluded.facts, task_id = excluded.task_id, stored_at = excluded.stored_at,
                state = case x.state when 'superseded' then excluded.state else x.state end,
                decided_at = case x.state when 'superseded' then excluded.decided_at else x.decided_at end;
    insert into sky_image (product_id, telescope, ra, declination, frequency_hz, bandwidth_hz, beam_major_arcsec, beam_minor_arcsec,
                           beam_angle_deg, rms_jy, thermal_jy, peak_jy, dynamic_range)
        select x.id, r.telescope, r.ra, r.declination, r.frequency_hz, r.bandwidth_hz, r.beam_major_arcsec, r.beam_minor_arcsec,
               r.beam_angle_deg, r.rms_jy, r.thermal_jy, r.peak_jy, r.dynamic_range
        from jsonb_array_elements(p_rows) p
        join artifact a on a.task_id = p_task and a.path = p #>> '{row,path}'
        join product x on x.path = a.path and x.checksum = a.sha256
        cross join lateral jsonb_populate_record(null::sky_image, p -> 'row') r
        where p ->> 'kind' in ('image', 'mosaic')
        on conflict (product_id) do update
            set (telescope, ra, declination, frequency_hz, bandwidth_hz, beam_major_arcsec, beam_minor_arcsec, beam_angle_deg, rms_jy,
                 thermal_jy, peak_jy, dynamic_range)
              = (excluded.telescope, excluded.ra, excluded.declination, excluded.frequency_hz, excluded.bandwidth_hz,
                 excluded.beam_major_arcsec, excluded.beam_minor_arcsec, excluded.beam_angle_deg, excluded.rms_jy, excluded.thermal_jy,
                 excluded.peak_jy, excluded.dynamic_range);
    insert into product_input (product_id, path, role, input_id)
        select distinct on (x.id, i.path) x.id, i.path, i.role, o.id
        from jsonb_array_elements(p_rows) p
        join artifact a on a.task_id = p_task and a.path = p #>> '{row,path}'
        join product x on x.path = a.path and x.checksum = a.sha256
        cross join lateral jsonb_to_recordset(coalesce(nullif(p #> '{row,inputs}', 'null'), '[]')) as i (path text, role text)
        left join product o on o.path = i.path and o.state in ('candidate', 'accepted')
        where p ->> 'kind' in ('image', 'mosaic', 'table')
        on conflict (product_id, path) do update set role = excluded.role, input_id = excluded.input_id;
    return (
        select x.id
        from jsonb_array_elements(p_rows) with ordinality as u (p, o)
        join artifact a on a.task_id = p_task and a.path = p #>> '{row,path}'
        join product x on x.path = a.path and x.checksum = a.sha256
        where p ->> 'kind' = 'table' order by o limit 1);
end $$;

-- Which sources of the sky those of a run are, by their names in it: {name: id}.  One is the known source that is
-- nearest within its radius, if it is that one's nearest too; any other is new.  So two of a run are never the same.
create or replace function _place_sources(p_rows jsonb, p_table bigint) returns jsonb
    language plpgsql
    as $$
declare
    v_known jsonb;
    v_new   jsonb;
begin
    with given as (
        select r.name, r.ra, r.declination, r.radius_arcsec
        from jsonb_array_elements(p_rows) p
        cross join lateral jsonb_to_record(p -> 'row') as r (name text, ra double precision, declination double precision, radius_arcsec double precision)
        where p ->> 'kind' = 'source'),
    nearest as (
        select g.name, k.id, k.arcsec from given g
        cross join lateral (select * from _sources_around(g.ra, g.declination, g.radius_arcsec) limit 1) k),
    taken as (select distinct on (id) id, name from nearest order by id, arcsec, name)
    select coalesce(jsonb_object_agg(name, id), '{}') into v_known from taken;
    with made as (
        insert into source (name, ra, declination, product_id, found_at)
            select r.name, r.ra, r.declination, p_table, clock_time()
            from jsonb_array_elements(p_rows) p
            cross join lateral jsonb_to_record(p -> 'row') as r (name text, ra double precision, declination double precision)
            where p ->> 'kind' = 'source' and not v_known ? r.name
            order by r.name
            returning id, name)
    select coalesce(jsonb_object_agg(name, id), '{}') into v_new from made;
    return v_known || v_new;
end $$;

create or replace function _store_photometry(p_rows jsonb, p_ids jsonb, p_table bigint) returns void
    language sql
    as $$
        insert into photometry (source_id, observed_at, image, product_id, image_id, name, frequency_hz, flux_jy, error_jy, integrated_jy,
                                rms_jy, background_jy, snr, detected, upper_limit_jy, chi_squared, blend, flags)
            select (p_ids ->> r.name)::bigint, coalesce(r.observed_at, '-infinity'), r.image, p_table, i.id, r.name, r.frequency_hz, r.flux_jy,
                   r.error_jy, r.integrated_jy, r.rms_jy, r.background_jy, r.snr, r.detected, r.upper_limit_jy, r.chi_squared, r.blend, r.flags
            from jsonb_array_elements(p_rows) p
            cross join lateral jsonb_populate_record(null::photometry, p -> 'row') r
            left join product i on i.path = r.image and i.state in ('candidate', 'accepted')
            where p ->> 'kind' = 'photometry'
            on conflict (source_id, observed_at, image) do update
                set (product_id, image_id, name, frequency_hz, flux_jy, error_jy, integrated_jy, rms_jy, background_jy, snr, detected,
                     upper_limit_jy, chi_squared, blend, flags)
                  = (excluded.product_id, excluded.image_id, excluded.name, excluded.frequency_hz, excluded.flux_jy, excluded.error_jy,
                     excluded.integrated_jy, excluded.rms_jy, excluded.background_jy, excluded.snr, excluded.detected,
                     excluded.upper_limit_jy, excluded.chi_squared, excluded.blend, excluded.flags)
    $$;

create or replace function _store_variability(p_rows jsonb, p_ids jsonb, p_table bigint) returns void
    language sql
    as $$
        insert into variability (product_id, source_id, kind, epochs, detections, mean_jy, weighted_mean_jy, eta, v, vs, m, sigma_deviation,
                                 false_alarm, pair_false_alarm, ese_score, ese_confidence, reference)
            select p_table, (p_ids ->> (p #>> '{row,name}'))::bigint, r.kind, r.epochs, r.detections, r.mean_jy, r.weighted_mean_jy, r.eta, r.v,
                   r.vs, r.m, r.sigma_deviation, r.false_alarm, r.pair_false_alarm, r.ese_score, r.ese_confidence, r.reference
            from jsonb_array_elements(p_rows) p
            cross join lateral jsonb_populate_record(null::variability, p -> 'row') r
            where p ->> 'kind' = 'variability'
            on conflict (product_id, source_id) do update
                set (kind, epochs, detections, mean_jy, weighted_mean_jy, eta, v, vs, m, sigma_deviation, false_alarm, pair_false_alarm,
                     ese_score, ese_confidence, reference)
                  = (excluded.kind, excluded.epochs, excluded.detections, excluded.mean_jy, excluded.weighted_mean_jy, excluded.eta,
                     excluded.v, excluded.vs, excluded.m, excluded.sigma_deviation, excluded.false_alarm, excluded.pair_false_alarm,
                     excluded.ese_score, excluded.ese_confidence, excluded.reference)
    $$;

-- What gates have measured of a product: [{gate, of, value, unit, verdict, limits, note}].  Raises AB018.
create or replace function _store_measures(p_product bigint, p_measures jsonb) returns void
    language plpgsql
    as $$
begin
    if not exists (select from product where id = p_product) then
        raise exception 'there is no product %', coalesce(p_product::text, 'null') using errcode = 'AB018';
    end if;
    insert into qa_result (product_id, gate, part, value, unit, verdict, limits, note, measured_at)
        select p_product, m.gate, coalesce(m.of, ''), m.value, coalesce(m.unit, ''), m.verdict, coalesce(m.limits, '{}'), coalesce(m.note, ''), clock_time()
        from jsonb_to_recordset(p_measures) as m (gate text, of text, value double precision, unit text, verdict text, limits jsonb, note text)
        on conflict (product_id, gate, part) do update
            set (value, unit, verdict, limits, note, measured_at)
              = (excluded.value, excluded.unit, excluded.verdict, excluded.limits, excluded.note, excluded.measured_at);
end $$;

-- Touches the advisory lock of products, product, qa_result.
create or replace function quarantine_product(p_id bigint, p_reason text, p_measures jsonb default null) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_state text;
begin
    perform _require_read_committed();
    if coalesce(p_reason, '') = '' then
        raise exception 'a product is quarantined for a reason: tell it' using errcode = 'AB001';
    end if;
    perform _hold_products();
    perform _store_measures(p_id, coalesce(p_measures, '[]'));
    update product set state = 'quarantined', reason = left(p_reason, 4000), decided_at = clock_time()
    where id = p_id and state <> 'quarantined';
    return found;
exception when data_exception or integrity_constraint_violation or cardinality_violation then
    raise exception 'a product cannot be quarantined: %', sqlerrm using errcode = 'AB001';
end $$;
comment on function quarantine_product(bigint, text, jsonb) is
    'Have a product not be used, for a reason; false if it is quarantined already, for the reason that was told first. p_measures is what gates have measured: [{gate, of, value, unit, verdict, limits, note}].';

-- Touches the advisory lock of products, product.
create or replace function accept_product(p_id bigint, p_again boolean default false) returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_product product;
begin
    perform _require_read_committed();
    perform _hold_products();
    select * into v_product from product where id = p_id;
    if v_product.id is null then
        raise exception 'there is no product %', coalesce(p_id::text, 'null') using errcode = 'AB018';
    end if;
    if v_product.state = 'quarantined' and p_again is not true then
        raise exception 'product % is quarantined: %', p_id, v_product.reason using errcode = 'AB019', hint = 'accept it again, if it is good after all';
    end if;
    if v_product.state in ('quarantined', 'superseded') and exists (
            select from product where path = v_product.path and id <> p_id and state in ('candidate', 'accepted')) then
        raise exception 'product % is not at its path any more: another is', p_id using errcode = 'AB019', hint = 'the file that is there is another product';
    end if;
    update product set state = 'accepted', reason = null, decided_at = clock_time() where id = p_id and state <> 'accepted';
    return 'accepted';
end $$;
comment on function accept_product(bigint, boolean) is
    'Accept a product whatever its gates say; returns its state. One that is quarantined only with p_again, and one whose path another product has now not at all.';

create or replace function get_product(p_id bigint) returns jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(x) || jsonb_build_object(
            'image', (select to_jsonb(i) - 'product_id' from sky_image i where i.product_id = x.id),
            'inputs', (select coalesce(jsonb_agg(to_jsonb(i) - 'product_id' order by i.path), '[]') from product_input i where i.product_id = x.id),
            'qa', (select coalesce(jsonb_agg(to_jsonb(q) - 'product_id' order by q.gate, q.part), '[]') from qa_result q where q.product_id = x.id),
            'used_in', (select coalesce(jsonb_agg(i.product_id order by i.product_id), '[]') from product_input i where i.input_id = x.id))
        from product x where x.id = p_id
    $$;
comment on function get_product(bigint) is
    'A product in whatever state, with what is known of it as an image, what it was made of, what gates have measured, and which products were made of it; null if there is none of that number.';

create or replace function find_product(p_path text) returns jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(x) from product x where x.path = p_path
        order by x.state in ('candidate', 'accepted') desc, x.stored_at desc, x.id desc limit 1
    $$;
comment on function find_product(text) is
    'The product that has a path now, or else the one that had it last; null if no product ever had.';

create or replace function list_products(
    p_kind text default null, p_state text default null, p_since timestamptz default null, p_until timestamptz default null,
    p_limit integer default 100)
    returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(x) || jsonb_build_object('image', (select to_jsonb(i) - 'product_id' from sky_image i where i.product_id = x.id))
        from product x
        where (p_kind is null or x.kind = p_kind) and (p_state is null or x.state = p_state)
          and (p_since is null or x.observed_from >= p_since) and (p_until is null or x.observed_from < p_until)
        order by x.observed_from desc nulls last, x.id desc limit least(greatest(p_limit, 1), 10000)
    $$;
comment on function list_products(text, text, timestamptz, timestamptz, integer) is
    'Products, the latest observation first, with what is known of each as an image: of a kind (image, mosaic, table), in a state, observed in a span of time.';

create or replace function find_sources(p_ra double precision, p_declination double precision, p_radius_arcsec double precision, p_limit integer default 100)
    returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(s) || jsonb_build_object('arcsec', k.arcsec)
        from _sources_around(p_ra, p_declination, p_radius_arcsec) k join source s on s.id = k.id
        order by k.arcsec, k.id limit least(greatest(p_limit, 1), 10000)
    $$;
comment on function find_sources(double precision, double precision, double precision, integer) is
    'Sources within a radius of a position (degrees, ICRS), the nearest first, with their distance.';

create or replace function get_light_curve(p_source bigint) returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(p) || jsonb_build_object('source', s.name, 'ra', s.ra, 'declination', s.declination)
        from photometry p join source s on s.id = p.source_id where p.source_id = p_source order by p.observed_at, p.image
    $$;
comment on function get_light_curve(bigint) is
    'What a source was in each image it was measured in, by time: flux density with its error, or an upper limit; and where the source is.';

create or replace function list_variability(p_product bigint, p_kind text default null, p_limit integer default 1000)
    returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(x) || jsonb_build_object('name', s.name, 'ra', s.ra, 'declination', s.declination)
        from variability x join source s on s.id = x.source_id
        where x.product_id = p_product and (p_kind is null or x.kind = p_kind)
        order by x.eta desc nulls last, x.source_id limit least(greatest(p_limit, 1), 100000)
    $$;
comment on function list_variability(bigint, text, integer) is
    'How much sources change by the table that tells it, the most first; of a kind (steady, variable, transient, not judged).';

create or replace function get_photometry(p_since timestamptz, p_until timestamptz)
    returns table (
        source_id bigint, source text, ra double precision, declination double precision, observed_at timestamptz, image text, frequency_hz double precision,
        flux_jy double precision, error_jy double precision, integrated_jy double precision, rms_jy double precision, background_jy double precision,
        snr double precision, detected boolean, upper_limit_jy double precision, chi_squared double precision, blend bigint, flags integer)
    language sql stable security definer set search_path from current
    as $$
        select p.source_id, s.name, s.ra, s.declination, p.observed_at, p.image, p.frequency_hz, p.flux_jy, p.error_jy, p.integrated_jy, p.rms_jy,
               p.background_jy, p.snr, p.detected, p.upper_limit_jy, p.chi_squared, p.blend, p.flags
        from photometry p
        join source s on s.id = p.source_id
        left join product i on i.id = p.image_id
        where p.observed_at >= p_since and p.observed_at < p_until and i.state is distinct from 'quarantined'
        order by p.observed_at, p.image, p.source_id
    $$;
comment on function get_photometry(timestamptz, timestamptz) is
    'All measurements of images observed in a span of time, by time, image and source; those of quarantined images are left out.';
