"""The dashboard: pages for people at ``/``, made here and whole without JavaScript.

A page reads through the same calls as the REST interface, and its forms change through the same SQL functions, with
the same record of who did it.  ``static/live.js`` fetches the page anew when something happens and puts in what
differs: there is no second way to draw anything.
"""

from __future__ import annotations

from absurd.web.dashboard import (
    dead_letters,
    login,
    overview,
    queues,
    schedules,
    sessions,
    sky,
    tasks,
    workers,
    workflows,
)

ROUTERS = [
    each.router for each in (login, overview, queues, tasks, workflows, schedules, dead_letters, workers, sky, sessions)
]
"""One file for each kind of page."""
