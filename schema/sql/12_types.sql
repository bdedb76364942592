-- Rows that public functions return.  Others may have built on them: they grow by "alter type".

create type queue_stats as (
    blocked bigint, pending bigint, sleeping bigint, running bigint, completed bigint, failed bigint, cancelled bigint);
