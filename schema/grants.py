"""Which functions of the schema each kind of role may call.

The tables themselves are nobody's: all functions named here are SECURITY DEFINER, so a role needs
no more than EXECUTE on them.  Nothing is granted to PUBLIC.
"""

from __future__ import annotations

from typing import Literal, get_args

Profile = Literal["reader", "spawner", "worker", "admin"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

READER = frozenset({
    "await_tasks", "changed_subbands", "clock_time", "count_dead_letters", "count_products", "find_gain_sets",
    "find_images", "find_product", "find_sources", "get_checkpoints", "get_dead_letter", "get_gain_set", "get_identity",
    "get_image_files", "get_light_curve", "get_log", "get_metrics", "get_photometry", "get_product", "get_publications",
    "get_queue_stats", "get_results", "get_schedule", "get_state", "get_states", "get_status", "get_stored_gain_set",
    "get_subband_group", "get_task", "get_workflow", "get_workflow_state", "group_dead_letters", "list_alert_events",
    "list_alerts", "list_dead_letters", "list_executors", "list_gain_sets", "list_image_files", "list_image_indexes",
    "list_intakes", "list_products", "list_queues", "list_resources", "list_schedules", "list_session_files",
    "list_sessions", "list_subband_groups", "list_subbands", "list_tasks", "list_ticks", "list_variability",
    "list_workers", "list_workflows", "measure_alert", "read_products", "task_why",
})  # fmt: skip
"""Looks at everything; changes nothing (`await_tasks` only asks for a notification)."""

SPAWNER = READER | {
    "cancel_task", "cancel_workflow", "convert_subband_group", "edit_task", "emit_event", "new_task_id", "remove_alert",
    "remove_schedule", "requeue_dead_letters", "rerun_task", "respawn_task", "retry_task", "retry_workflow",
    "set_alert", "set_schedule", "set_schedule_paused", "silence_alert", "spawn_plain", "spawn_task", "spawn_tasks",
    "spawn_workflow", "tell_session", "trigger_schedule",
}  # fmt: skip
"""Hands in work, and takes it back."""

WORKER = SPAWNER | {
    "accept_gain_set", "accept_product", "advance_marks", "append_log", "beat", "begin_conversion", "cancel_overdue",
    "cancel_runs", "check_claim", "claim_runs", "complete_runs", "create_queue", "drop_partition", "drop_queue",
    "end_conversion", "end_notice", "ensure_partitions", "fail_runs", "fire_schedule", "fold_tallies", "forget_images",
    "forget_subbands", "get_due_schedules", "get_names", "get_neighbours", "get_overdue_publications", "give_up_worker",
    "lease_worker", "maintain", "mark_published", "move_ended", "promote_timers", "prune_ended", "prune_ticks",
    "put_images", "quarantine_gain_set", "quarantine_product", "record_subbands", "recover_runs", "register_executors",
    "register_gain_set", "register_worker", "resign_leader", "return_runs", "set_checkpoint", "set_intake",
    "set_listening", "set_next_due", "set_progress", "settle_subband_groups", "step", "step_alerts", "suspend_runs",
    "sweep_late", "unregister_worker",
}  # fmt: skip
"""Claims runs and reports on them, and does the upkeep that every worker does."""

FUNCTIONS: dict[Profile, frozenset[str] | None] = {
    "reader": READER,
    "spawner": SPAWNER,
    "worker": WORKER,
    "admin": None,
}
"""By profile; None means every function whose name does not begin with ``_``."""
