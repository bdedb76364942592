-- Partitions of `task` (by the time in its id) and `run` (by the time it finished), a week each.
-- History leaves by dropping them, never by DELETE.

create table task_default partition of task default;
create table run_default partition of run default;
