-- Who may come in through the web interface, and what was changed through it; see 69_tokens.sql.

create table token (
    id         integer generated always as identity primary key,
    name       text not null,
    scope      text not null,
    hash       text not null unique,
    created_at timestamptz not null,
    created_by text not null default session_user,
    expires_at timestamptz,
    used_at    timestamptz,
    revoked_at timestamptz,
    constraint token_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,63}$'),
    constraint token_scope_known check (scope in ('reader', 'spawner', 'operator', 'admin')),
    constraint token_hash_valid check (hash ~ '^[0-9a-f]{64}$'),
    constraint token_expires_later check (expires_at > created_at)
);
create unique index token_name_in_force on token (name) where revoked_at is null;
comment on table token is 'Tokens of the web interface. Of a token itself only its hash is here; revoked ones stay, to be looked up.';
comment on column token.hash is
    'SHA-256 of the token, which is 256 random bits: nobody guesses it, so a slow hash would protect nothing and cost every request.';
comment on column token.used_at is 'When it was last shown, to the minute.';

create table change (
    id      bigint generated always as identity primary key,
    at      timestamptz not null,
    actor   text not null,
    role    text not null default session_user,
    action  text not null,
    target  text,
    address text
);
create index change_of_actor on change (actor, id);
comment on table change is 'What was changed through the web interface: by whom, when, from where. A row is written in the transaction of its change.';
comment on column change.actor is 'The name of the token, or local for one who needs none.';
comment on column change.role is 'The role of the database that the interface works as.';
