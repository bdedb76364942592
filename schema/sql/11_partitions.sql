-- Partitions of `task` (by the time in its id), `log` (by that of its task) and `run` (by the time it finished), a
-- week each.
-- Pruning takes the tasks; the room they took is freed by dropping a week as a whole, see drop_partition().

create table task_default partition of task default;
create table run_default partition of run default;
