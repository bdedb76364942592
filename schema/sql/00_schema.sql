-- What this schema is.
--
-- The installer creates the schema and sets search_path to it; every name in these files is
-- unqualified, and every public function keeps that path (SET search_path FROM CURRENT), so the
-- queue may live in a schema of any name.  Names that begin with _ are private to the schema.

create table meta (
    key   text primary key,
    value text not null
);
comment on table meta is 'What is installed here: product (tells our schema from a foreign one) and version.';

insert into meta (key, value) values ('product', 'absurd-observatory'), ('version', '2');
