-- Products of the pipeline: images, mosaics and tables in files, and what was measured in them; see 68_products.sql.

create table product (
    id             bigint generated always as identity primary key,
    kind           text not null,
    path           text collate "C" not null,
    checksum       text not null,
    bytes          bigint not null,
    state          text not null,
    reason         text,
    observed_from  timestamptz,
    observed_until timestamptz,
    facts          jsonb not null default '{}',
    task_id        uuid not null,
    stored_at      timestamptz not null,
    decided_at     timestamptz not null,
    unique (path, checksum),
    constraint product_kind_known check (kind in ('image', 'mosaic', 'table')),
    constraint product_state_known check (state in ('candidate', 'accepted', 'superseded', 'quarantined')),
    constraint product_reason_told check (state <> 'quarantined' or reason <> ''),
    constraint product_times check (observed_from <= observed_until)
);
create unique index product_present on product (path) where state in ('candidate', 'accepted');
create index product_observed on product (observed_from desc nulls last, id desc);
create index product_task on product (task_id);
comment on table product is
    'Files that the pipeline has made, each by its path and content. A row is written with the completion of its task, and stays.';
comment on column product.checksum is 'SHA-256 of the file.';
comment on column product.state is
    'candidate: has yet to pass its gates; accepted, as tables are at once; superseded: another file has its path now; quarantined.';
comment on column product.reason is 'Why it is quarantined.';
comment on column product.observed_from is 'When the first of what is in it was observed; null: that is not told.';
comment on column product.facts is 'What else is known of it, such as the files beside it.';
comment on column product.task_id is 'The task that has made it, last.';

create table sky_image (
    product_id        bigint primary key,
    telescope         text,
    ra                double precision not null,
    declination       double precision not null,
    frequency_hz      double precision,
    bandwidth_hz      double precision,
    beam_major_arcsec double precision,
    beam_minor_arcsec double precision,
    beam_angle_deg    double precision,
    rms_jy            double precision,
    thermal_jy        double precision,
    peak_jy           double precision,
    dynamic_range     double precision,
    constraint sky_image_on_sky check (ra >= 0 and ra < 360 and declination >= -90 and declination <= 90)
);
comment on table sky_image is 'What there is to know of the products that are images or mosaics.';
comment on column sky_image.ra is 'Right ascension of its centre, degrees, ICRS.';
comment on column sky_image.beam_major_arcsec is 'Long axis of the restoring beam, at half maximum.';
comment on column sky_image.beam_angle_deg is 'Of the long axis, from north through east.';
comment on column sky_image.rms_jy is 'Scatter of what cleaning has left, Jy/beam; of a mosaic the median of its noise map.';
comment on column sky_image.thermal_jy is 'Noise that the weights of the visibilities promise, Jy/beam.';
comment on column sky_image.dynamic_range is 'Peak over rms.';

create table product_input (
    product_id bigint not null,
    path       text collate "C" not null,
    role       text not null,
    input_id   bigint,
    primary key (product_id, path)
);
create index product_input_of on product_input (input_id) where input_id is not null;
comment on table product_input is 'What a product was made of.';
comment on column product_input.role is 'What it was for, such as visibilities, tile or catalogue.';
comment on column product_input.input_id is 'The product that had this path then; null: it is none.';

create table source (
    id          bigint generated always as identity primary key,
    name        text not null,
    ra          double precision not null,
    declination double precision not null,
    product_id  bigint,
    found_at    timestamptz not null,
    constraint source_on_sky check (ra >= 0 and ra < 360 and declination >= -90 and declination <= 90)
);
create index source_place on source using gist (point(ra, declination));
comment on table source is 'Sources of the sky. Each is what lies at its position, whatever catalogues call it: a name or place never changes.';
comment on column source.name is 'What the catalogue called it that it was first in.';
comment on column source.ra is 'Degrees, ICRS, where it was first.';
comment on column source.product_id is 'The table that it was first in.';

create table photometry (
    source_id      bigint not null,
    observed_at    timestamptz not null,
    image          text collate "C" not null,
    product_id     bigint not null,
    image_id       bigint,
    name           text not null,
    frequency_hz   double precision,
    flux_jy        double precision,
    error_jy       double precision,
    integrated_jy  double precision,
    rms_jy         double precision,
    background_jy  double precision,
    snr            double precision,
    detected       boolean not null,
    upper_limit_jy double precision,
    chi_squared    double precision,
    blend          bigint,
    flags          integer not null,
    primary key (source_id, observed_at, image)
);
create index photometry_observed on photometry (observed_at, image, source_id);
comment on table photometry is
    'One row for each source and image it was measured in, whether it was seen or not. One that is measured again in the same image is replaced.';
comment on column photometry.observed_at is 'When the image was observed; -infinity: it does not tell.';
comment on column photometry.image is 'Path of the image.';
comment on column photometry.product_id is 'The table it was written to.';
comment on column photometry.image_id is 'The product that the image is; null: it is none.';
comment on column photometry.name is 'What the catalogue calls the source that it was measured by.';
comment on column photometry.flux_jy is 'Height of its Gaussian, Jy/beam; null: nothing could be measured.';
comment on column photometry.upper_limit_jy is 'Of a source that was not detected, Jy/beam.';
comment on column photometry.blend is 'Sources of an image with the same number were fitted together.';
comment on column photometry.flags is 'Bits: 1 outside, 2 pixels missing, 4 blended, 8 inseparable, 16 no noise.';

create table variability (
    product_id       bigint not null,
    source_id        bigint not null,
    kind             text not null,
    epochs           integer not null,
    detections       integer not null,
    mean_jy          double precision,
    weighted_mean_jy double precision,
    eta              double precision,
    v                double precision,
    vs               double precision,
    m                double precision,
    sigma_deviation  double precision,
    false_alarm      double precision,
    pair_false_alarm double precision,
    ese_score        double precision,
    ese_confidence   text,
    reference        boolean not null,
    primary key (product_id, source_id),
    constraint variability_kind_known check (kind in ('steady', 'variable', 'transient', 'not judged'))
);
create index variability_changing on variability (product_id, kind) where kind in ('variable', 'transient');
create index variability_source on variability (source_id);
comment on table variability is 'How much the flux densities of sources change, by the table that tells it.';
comment on column variability.eta is 'Reduced chi squared about the weighted mean.';
comment on column variability.v is 'Standard deviation over the mean.';
comment on column variability.vs is 'Difference of two epochs over its error, the largest; m is that over their mean.';
comment on column variability.ese_score is 'Of an extreme scattering event, 0 to 10.';
comment on column variability.reference is 'Whether the flux scale of the epochs goes by it.';

create table qa_result (
    product_id  bigint not null,
    gate        text not null,
    part        text not null default '',
    value       double precision,
    unit        text not null default '',
    verdict     text not null,
    limits      jsonb not null,
    note        text not null default '',
    measured_at timestamptz not null,
    primary key (product_id, gate, part),
    constraint qa_result_verdict_known check (verdict in ('ok', 'warn', 'fail', 'none'))
);
comment on table qa_result is 'What gates have measured of a product, the last time.';
comment on column qa_result.part is 'Of which part of it.';
comment on column qa_result.verdict is 'none: it could not be measured, and need not be.';
comment on column qa_result.limits is 'By which it was judged: warn_below, fail_below, warn_above, fail_above.';
