-- Tokens of the web interface, and the record of what is changed through it.

create or replace function create_token(p_name text, p_scope text, p_hash text, p_lifetime double precision default null)
    returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_token token;
begin
    perform _require_no_upgrade();
    if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,63}$' then
        raise exception 'the name % of a token is not valid: 1 to 64 letters, digits or _ . : @ -, no leading punctuation',
            coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
    end if;
    if p_scope is null or p_scope not in ('reader', 'spawner', 'operator', 'admin') then
        raise exception 'scope % is unknown; it must be reader, spawner, operator or admin',
            coalesce(quote_literal(left(p_scope, 200)), 'null') using errcode = 'AB001';
    end if;
    if p_lifetime <= 0 or p_lifetime > 3155760000 then
        raise exception 'a token cannot last % seconds; it must be more than 0 and at most a century', p_lifetime using errcode = 'AB001';
    end if;
    insert into token (name, scope, hash, created_at, expires_at)
        select p_name, p_scope, p_hash, n, n + make_interval(secs => p_lifetime) from clock_time() n
        on conflict (name) where revoked_at is null do nothing
        returning * into v_token;
    if v_token.id is null then
        raise exception 'there is a token called % already', quote_literal(p_name)
            using errcode = 'AB021', hint = 'revoke it first, or take another name';
    end if;
    return _token_row(v_token);
end $$;
comment on function create_token(text, text, text, double precision) is
    'Let a token in, of which only the SHA-256 is told; p_lifetime in seconds. AB007, AB001 for what is not valid, AB021 for a name that is taken.';

create or replace function _token_row(p_token token) returns jsonb
    language sql stable
    as $$ select to_jsonb(p_token) - '{id,hash}'::text[] || jsonb_build_object('expired', coalesce(p_token.expires_at <= clock_time(), false)) $$;

create or replace function revoke_token(p_name text) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_token token;
begin
    perform _require_no_upgrade();
    update token set revoked_at = clock_time() where name = p_name and revoked_at is null returning * into v_token;
    if v_token.id is null then
        raise exception 'no token called % is in force', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB020';
    end if;
    return _token_row(v_token);
end $$;
comment on function revoke_token(text) is 'Let a token in no more, from the next request on. AB020 if none of that name is in force.';

create or replace function list_tokens(p_all boolean default false) returns setof jsonb
    language sql stable security definer set search_path from current
    as $$ select _token_row(t) from token t where p_all or t.revoked_at is null order by t.name, t.id $$;
comment on function list_tokens(boolean) is 'Tokens by name, without their hashes; with p_all also those that were revoked.';

-- A token's use is noted once a minute at most: a row written with every request would cost more than the request.
create or replace function check_token(p_hash text) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_token token;
    v_now   timestamptz := clock_time();
begin
    select * into v_token from token where hash = p_hash and revoked_at is null and (expires_at is null or expires_at > v_now);
    if v_token.id is null then
        return null;
    end if;
    if v_token.used_at is null or v_token.used_at < v_now - interval '1 minute' then
        update token set used_at = v_now where id = (
            select t.id from token t where t.id = v_token.id for update skip locked);
    end if;
    return jsonb_build_object('name', v_token.name, 'scope', v_token.scope);
end $$;
comment on function check_token(text) is 'Name and scope of the token with a SHA-256; null if it is not let in.';

create or replace function has_tokens() returns boolean
    language sql stable security definer set search_path from current
    as $$ select exists (select from token where revoked_at is null) $$;
comment on function has_tokens() is 'Whether any token was made and not revoked; an expired one counts.';

-- Comes first in the transaction of the change it records: what tasks' history tells from here on names the actor too.
create or replace function record_change(p_actor text, p_action text, p_target text default null, p_address text default null)
    returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform _require_no_upgrade();
    perform set_config('absurd.actor', p_actor, true);
    insert into change (at, actor, action, target, address) values (clock_time(), p_actor, p_action, p_target, p_address);
end $$;
comment on function record_change(text, text, text, text) is
    'Say who makes the change that follows in this transaction: what was done, to what, from which address.';

create or replace function list_changes(p_actor text default null, p_before bigint default null, p_limit integer default 50) returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(c) from change c
        where (p_actor is null or c.actor = p_actor) and (p_before is null or c.id < p_before)
        order by c.id desc limit least(greatest(p_limit, 1), 1000)
    $$;
comment on function list_changes(text, bigint, integer) is
    'What was changed through the web interface, the latest first; p_before is the last id of the page before.';
