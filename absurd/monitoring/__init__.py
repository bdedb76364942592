"""Files for programs that watch: a dashboard for Grafana and alert rules for Prometheus, over `absurd.metrics`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
ALERTS = FOLDER / "alerts.yaml"
"""Rules of alerts, as ``rule_files`` of Prometheus names them."""
DASHBOARD = FOLDER / "dashboard.json"
"""A dashboard, as Grafana imports it."""
