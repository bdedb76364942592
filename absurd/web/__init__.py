"""The web interface: REST under ``/api/v1`` and pages for people, behind tokens.  Needs the extra ``web``.

A request passes `absurd.web.guard` (headers, errors, log), `absurd.web.access` (who calls) and a route, which parses,
makes calls of the core through its `absurd.web.desk.Desk`, and answers.  State is changed by SQL functions alone.
"""
