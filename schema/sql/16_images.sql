-- Images of the sky in files: where each lies, so that those at a position are found without opening any; see 64_images.sql.

create table image_index (
    id         integer generated always as identity primary key,
    name       text not null unique,
    created_at timestamptz not null,
    constraint image_index_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$')
);
comment on table image_index is 'Sets of images by name. Who changes what an index holds locks its row, so that it does not go meanwhile.';

create table image_file (
    id         bigint generated always as identity primary key,
    index_id   integer not null,
    uri        text collate "C" not null,
    version    text not null,
    error      jsonb,
    scanned_at timestamptz not null,
    unique (index_id, uri)
);
comment on table image_file is 'Files whose headers were read, also those without an image: read again only when their version is another.';
comment on column image_file.version is 'Size and time of the last change.';
comment on column image_file.error is 'Why it holds no image that can be used: code and message.';

create table image (
    file_id     bigint not null,
    hdu         integer not null,
    index_id    integer not null,
    bounds      box not null,
    band        text,
    band_told   boolean not null,
    hdus        jsonb not null,
    wcs         text,
    shape       integer[] not null,
    footprint   double precision[],
    observed_at timestamptz,
    tract       integer,
    patch       integer,
    primary key (file_id, hdu),
    constraint image_shape_is_plane check (cardinality(shape) = 2 and shape[1] > 0 and shape[2] > 0),
    constraint image_bounds_on_sky check (
        (bounds[1])[0] >= 0 and (bounds[1])[0] <= 360 and (bounds[0])[0] <= (bounds[1])[0] + 360 and (bounds[1])[1] >= -90 and (bounds[0])[1] <= 90)
);
-- A range that holds one number stands for the number: of numbers alone GiST keeps no order without an extension.
create index image_bounds on image using gist (int4range(index_id, index_id, '[]'), bounds);
comment on table image is 'Image HDUs of files. A row is written once: a file that has changed gets new ones.';
comment on column image.bounds is
    'Right ascension and declination in degrees, ICRS, that hold all of it; beyond 360 where it crosses 0, all right ascensions where it holds a pole.';
comment on column image.band_told is 'Whether a header tells the band; else it is a word of the file''s name, and others may be meant.';
comment on column image.hdus is 'The HDU of each plane, by its name.';
comment on column image.wcs is 'The cards of the header that tell the WCS, a line each; null: it needs tables of the file, and is read from there.';
comment on column image.shape is '(ny, nx).';
comment on column image.footprint is 'Right ascension and declination of its corners in order; null where one is not on the sky.';
comment on column image.observed_at is 'When the exposure began; null: its headers do not tell.';
