"""``absurd serve``: the web interface."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from absurd.cli.catalog import load_here, with_modules
from absurd.cli.output import emit, import_option, json_option, settings_of
from absurd.errors import ConfigurationError

if TYPE_CHECKING:
    from absurd.web.services.pictures import Painter


@click.command(epilog="Example: absurd serve --host 0.0.0.0 --port 8714")
@click.option("--host", "web_host", metavar="ADDRESS", help="Where to listen.  [ABSURD_WEB_HOST; 127.0.0.1]")
@click.option("--port", "web_port", type=int, metavar="N", help="0: any that is free.  [ABSURD_WEB_PORT; 8714]")
@click.option(
    "--products",
    "web_products",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Show a file of `absurd export --products` instead of a database.  [ABSURD_WEB_PRODUCTS]",
)
@import_option
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    web_host: str | None,
    web_port: int | None,
    web_products: Path | None,
    modules: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve the dashboard and the REST interface until told to stop.

    Until a token was made (`absurd token create`) it is there for programs on this machine alone.
    Params of tasks are checked by executors that can be imported here.

    With --products it shows what a file of products holds, on this machine alone; there is no queue then.
    """
    missing = [name for name in ("fastapi", "jinja2", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} missing: this needs `pip install 'absurd[web]'`")
    settings = with_modules(settings_of(ctx, web_host=web_host, web_port=web_port, web_products=web_products), modules)
    from absurd.telemetry import configure_logging
    from absurd.web import server

    configure_logging(settings)
    load_here(settings)
    server.serve(
        settings, lambda url: emit({"url": url}, as_json=as_json, text=f"Serving {url}; Ctrl-C stops it."), _painter()
    )


def _painter() -> Painter | None:
    """What makes pictures of FITS files, where the extra `astro` is; astropy is imported with the first picture."""
    if any(importlib.util.find_spec(name) is None for name in ("astropy", "PIL")):
        return None
    return _Portrait()


class _Portrait:
    """`absurd.tasks.cutout.portrait`, imported when it is asked."""

    def paint(self, path: Path, largest: int | None = None) -> bytes:
        from absurd.tasks.cutout.portrait import paint

        return paint(path, largest)

    def cut(
        self, path: Path, ra: float, declination: float, size: float, unit: Literal["arcsec", "pixel"], form: str
    ) -> bytes:
        from absurd.tasks.cutout.portrait import cut

        return cut(path, ra, declination, size, unit, form)
