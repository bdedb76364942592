"""The dashboard: pages for people at ``/``, made here and whole without JavaScript.

A page reads through the same calls as the REST interface, and its forms change through the same SQL functions, with
the same record of who did it.  ``static/live.js`` fetches the page anew when something happens and puts in what
differs: there is no second way to draw anything.
"""

from __future__ import annotations

from absurd.web.dashboard import (
    alerts,
    assets,
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

_QUEUE = (login, overview, queues, tasks, workflows, schedules, dead_letters, workers, alerts)
_PRODUCTS = (assets, sky, sessions)

ROUTERS = [each.router for each in (*_QUEUE, *_PRODUCTS)]
"""One file for each kind of page."""
PRODUCT_ROUTERS = [each.router for each in _PRODUCTS]
"""Those that are there with a file of products, where there is no queue."""
