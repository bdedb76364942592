-- Images in files: what a scan has found, and which images may hold a position.

create or replace function _known_image_index(p_name text) returns integer
    language plpgsql stable
    as $$
declare
    v_id integer;
begin
    select id into v_id from image_index where name = p_name;
    if v_id is null then
        raise exception 'there is no index of images called %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB014';
    end if;
    return v_id;
end $$;

-- As _known_image_index, and it stays until the transaction ends; it is made if there is none and p_make.
create or replace function _held_image_index(p_name text, p_make boolean) returns integer
    language plpgsql
    as $$
declare
    v_id integer;
begin
    loop
        select id into v_id from image_index where name = p_name for key share;
        exit when v_id is not null;
        if not p_make then
            return _known_image_index(p_name);  -- which raises
        end if;
        if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
            raise exception 'the name % of an index of images is not valid: 1 to 128 letters, digits or _ . : -, no leading punctuation',
                coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
        end if;
        insert into image_index (name, created_at) values (p_name, clock_time()) on conflict (name) do nothing;
    end loop;
    return v_id;
end $$;

-- Touches image_index, image_file in order of uri, image.
create or replace function put_images(p_index text, p_files jsonb) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_index integer;
    v_files bigint[];
    v_put   integer;
begin
    perform _require_read_committed();
    if jsonb_typeof(p_files) is distinct from 'array' or exists (
            select from jsonb_array_elements(p_files) f where f ->> 'uri' is null or f ->> 'version' is null) then
        raise exception 'files must be a list of {uri, version, error, images}' using errcode = 'AB001';
    end if;
    if (select count(distinct f ->> 'uri') < count(*) from jsonb_array_elements(p_files) f) then
        raise exception 'a file is named twice' using errcode = 'AB001';
    end if;
    v_index := _held_image_index(p_index, true);
    with put as (
        insert into image_file (index_id, uri, version, error, scanned_at)
        select v_index, f ->> 'uri', f ->> 'version', nullif(f -> 'error', 'null'), clock_time()
        from jsonb_array_elements(p_files) f
        order by (f ->> 'uri') collate "C"
        on conflict (index_id, uri) do update
            set version = excluded.version, error = excluded.error, scanned_at = excluded.scanned_at
        returning id)
    select array_agg(id) into v_files from put;
    delete from image where file_id = any (v_files);
    insert into image (file_id, hdu, index_id, bounds, band, band_told, hdus, wcs, shape, footprint, observed_at, tract, patch)
        select x.id, i.hdu, v_index, box(point(i.bounds[1], i.bounds[2]), point(i.bounds[3], i.bounds[4])),
               i.band, coalesce(i.band_told, i.band is not null), coalesce(i.hdus, '{}'), i.wcs, i.shape, i.footprint, i.observed_at, i.tract, i.patch
        from jsonb_array_elements(p_files) f
        join image_file x on x.index_id = v_index and x.uri = f ->> 'uri'
        cross join lateral jsonb_to_recordset(coalesce(nullif(f -> 'images', 'null'), '[]')) as i (
            hdu integer, bounds double precision[], band text, band_told boolean, hdus jsonb, wcs text, shape integer[],
            footprint double precision[], observed_at timestamptz, tract integer, patch integer);
    get diagnostics v_put = row_count;
    return v_put;
exception when data_exception or integrity_constraint_violation then
    raise exception 'files cannot be put into an index of images: %', sqlerrm using errcode = 'AB001';
end $$;
comment on function put_images(text, jsonb) is
    'Put files into an index of images, which is made if there is none, in place of what it had of them: [{uri, version, error, images: [{hdu, bounds, band, band_told, hdus, wcs, shape, footprint, observed_at, tract, patch}]}]. Returns how many images that are.';

-- Touches image_index, image_file in order of uri, image.
create or replace function forget_images(p_index text, p_uris text[]) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_index integer;
    v_files bigint[];
begin
    perform _require_read_committed();
    v_index := _held_image_index(p_index, false);
    v_files := array(
        select id from image_file where index_id = v_index and uri = any (p_uris) order by uri for update);
    delete from image where file_id = any (v_files);
    delete from image_file where id = any (v_files);
    return cardinality(v_files);
end $$;
comment on function forget_images(text, text[]) is 'Take files out of an index of images; returns how many it had.';

-- Touches image_index, image_file, image.  Who puts images or forgets some holds the index, and has ended.
create or replace function remove_image_index(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_index integer;
begin
    perform _require_read_committed();
    delete from image_index where name = p_name returning id into v_index;
    if v_index is null then
        return false;
    end if;
    delete from image where index_id = v_index;
    delete from image_file where index_id = v_index;
    return true;
end $$;
comment on function remove_image_index(text) is 'Remove an index of images, not the files; false if there is none of that name.';

create or replace function list_image_indexes()
    returns table (name text, files bigint, images bigint, unusable bigint, bands text[], created_at timestamptz, scanned_at timestamptz)
    language sql stable security definer set search_path from current
    as $$
        select x.name, f.files, i.images, f.unusable, i.bands, x.created_at, f.scanned_at
        from image_index x
        cross join lateral (
            select count(*) as files, count(error) as unusable, max(scanned_at) as scanned_at from image_file where index_id = x.id) f
        cross join lateral (
            select count(*) as images, coalesce(array_agg(distinct band) filter (where band is not null), '{}') as bands
            from image where index_id = x.id) i
        order by x.name
    $$;
comment on function list_image_indexes() is
    'Indexes of images: how many files and images each holds, files without one that can be used, bands, and when a file was scanned last.';

create or replace function get_image_files(p_index text, p_uris text[]) returns table (uri text, version text, error jsonb)
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_index integer := _known_image_index(p_index);
begin
    return query
        select f.uri, f.version, f.error from image_file f where f.index_id = v_index and f.uri = any (p_uris) order by f.uri;
end $$;
comment on function get_image_files(text, text[]) is 'What an index of images has of these files: the version that was read, and why it could not be used.';

create or replace function list_image_files(p_index text, p_folder text, p_after text default null, p_limit integer default 1000)
    returns table (uri text, version text, error jsonb)
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_index integer := _known_image_index(p_index);
    v_below text := rtrim(p_folder, '/') || '/';
begin
    return query
        select f.uri, f.version, f.error from image_file f
        where f.index_id = v_index and f.uri > coalesce(p_after, v_below)
          and f.uri >= v_below and f.uri < rtrim(p_folder, '/') || '0'  -- the sign after the slash
        order by f.uri limit least(greatest(p_limit, 1), 10000);
end $$;
comment on function list_image_files(text, text, text, integer) is
    'Files of an index of images below a folder, by uri; p_after is the last uri of the page before.';

-- One row for each image, so that its header travels once for all positions: those are numbers from 1 in the arrays.
-- An image that crosses right ascension 0 lies beyond 360, where each position is looked for as well.
create or replace function find_images(
    p_index text, p_ra double precision[], p_dec double precision[], p_bands text[] default null,
    p_since timestamptz default null, p_until timestamptz default null)
    returns table (
        uri text, version text, hdu integer, hdus jsonb, band text, band_told boolean, wcs text, shape integer[],
        footprint double precision[], observed_at timestamptz, tract integer, patch integer, positions integer[])
    language plpgsql stable security definer set search_path from current
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_index integer := _known_image_index(p_index);
    v_bands text[] := (select array_agg(lower(b)) from unnest(p_bands) b);
    v_wrong bigint;
begin
    select p.n into v_wrong from unnest(p_ra, p_dec) with ordinality as p (ra, dec, n)
    where (p.ra between 0 and 360 and p.dec between -90 and 90) is not true limit 1;
    if v_wrong is not null then
        raise exception 'position % is (%, %); it must be right ascension from 0 to 360 and declination from -90 to 90 degrees',
            v_wrong, coalesce(p_ra[v_wrong]::text, 'null'), coalesce(p_dec[v_wrong]::text, 'null') using errcode = 'AB001';
    end if;
    return query
        with found as materialized (
            select i.file_id, i.hdu, array_agg(distinct p.n::integer order by p.n::integer) as positions
            from unnest(p_ra, p_dec) with ordinality as p (ra, dec, n)
            cross join lateral (values (p.ra), (p.ra + 360)) as t (ra)
            cross join lateral (
                select c.file_id, c.hdu from image c
                where int4range(c.index_id, c.index_id, '[]') && int4range(v_index, v_index, '[]')
                  and c.bounds && box(point(t.ra, p.dec), point(t.ra, p.dec))
                  and (v_bands is null or not c.band_told or lower(c.band) = any (v_bands))
                  and (p_since is null or c.observed_at >= p_since)
                  and (p_until is null or c.observed_at < p_until)) i
            group by 1, 2)
        select x.uri, x.version, i.hdu, i.hdus, i.band, i.band_told, i.wcs, i.shape, i.footprint, i.observed_at, i.tract, i.patch, f.positions
        from found f
        join image i on i.file_id = f.file_id and i.hdu = f.hdu
        join image_file x on x.id = f.file_id
        order by x.uri, i.hdu;
end $$;
comment on function find_images(text, double precision[], double precision[], text[], timestamptz, timestamptz) is
    'The images of an index whose bounds hold any of the positions (degrees, ICRS), with the numbers of those, from 1; whether they are on its pixels, its WCS tells. Only of bands (capitals are the same) or whose exposure began in a span of time.';
