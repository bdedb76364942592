-- Gains of antennas in files: what each set was solved from and where it holds; see 67_gains.sql.

create table gain_set (
    id             bigint generated always as identity primary key,
    telescope      text not null,
    path           text not null,
    checksum       text not null,
    bytes          bigint not null,
    kinds          text[] not null,
    source         text not null,
    ra             double precision,
    declination    double precision not null,
    strip          double precision not null,
    lowest_hz      double precision not null,
    highest_hz     double precision not null,
    observed_from  timestamptz not null,
    observed_until timestamptz not null,
    observed_at    timestamptz not null,
    valid_from     timestamptz not null,
    valid_until    timestamptz not null,
    state          text not null,
    reason         text,
    superseded_by  bigint,
    quality        jsonb,
    provenance     jsonb,
    task_id        uuid,
    registered_at  timestamptz not null,
    decided_at     timestamptz not null,
    unique (path, checksum),
    constraint gain_set_telescope_valid check (telescope ~ '^[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}$'),
    constraint gain_set_checksum_valid check (checksum ~ '^[0-9a-f]{64}$'),
    constraint gain_set_kinds_known check (cardinality(kinds) > 0 and kinds <@ '{gain,bandpass,delay}'),
    constraint gain_set_state_known check (state in ('candidate', 'valid', 'superseded', 'quarantined')),
    constraint gain_set_reason_told check (state <> 'quarantined' or reason <> ''),
    constraint gain_set_superseded_by_one check ((state = 'superseded') = (superseded_by is not null)),
    constraint gain_set_on_sky check (
        declination >= -90 and declination <= 90 and strip > 0 and strip <= 180 and (ra is null or ra >= 0 and ra < 360)),
    constraint gain_set_band check (lowest_hz >= 0 and highest_hz > lowest_hz and highest_hz < 1e15),
    constraint gain_set_times check (
        valid_from <= observed_from and observed_from <= observed_at and observed_at <= observed_until
        and observed_from < observed_until and observed_until <= valid_until and isfinite(valid_from) and isfinite(valid_until)),
    -- Of what one telescope saw at one time, declination and frequency one set is valid, whoever registers when.  A
    -- range that holds one number stands for the name: of text alone GiST keeps no order without an extension.
    constraint gain_set_one_valid exclude using gist (
        int8range(hashtextextended(telescope, 0) >> 1, hashtextextended(telescope, 0) >> 1, '[]') with &&,
        tstzrange(observed_from, observed_until) with &&,
        numrange((declination - strip / 2)::numeric, (declination + strip / 2)::numeric) with &&,
        numrange(lowest_hz::numeric, highest_hz::numeric) with &&) where (state = 'valid')
);
create index gain_set_nearest on gain_set (telescope, observed_at) where state = 'valid';
create index gain_set_observed on gain_set (observed_at desc, id desc);
comment on table gain_set is
    'Gains that were solved and stored in a folder. A row is written once that folder is whole; of it only for what it holds (valid_from, valid_until, strip), state, reason, superseded_by, quality and decided_at change.';
comment on column gain_set.checksum is 'SHA-256 of what the folder holds: whoever applies it compares.';
comment on column gain_set.kinds is 'Of its tables, in the order in which they are applied.';
comment on column gain_set.source is 'The calibrator that was looked at.';
comment on column gain_set.ra is 'Right ascension of the field that was looked at, degrees, ICRS; null where several were.';
comment on column gain_set.declination is 'Where the telescope pointed, degrees, ICRS.';
comment on column gain_set.strip is 'How far from its declination it may be used, degrees.';
comment on column gain_set.lowest_hz is 'Lower edge of the lowest channel it was solved from; highest_hz the upper one of the highest.';
comment on column gain_set.observed_at is 'The middle of the recording: from there ages are counted.';
comment on column gain_set.state is 'candidate: has yet to pass its gates; valid; superseded by a later one of the same recording; quarantined.';
comment on column gain_set.reason is 'Why it is quarantined.';
