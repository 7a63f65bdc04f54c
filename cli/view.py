"""``hiresattn view``: images, and where a search looked in them, in the browser."""

import os
import sys
import webbrowser
from typing import Any

import click

from hiresattn.errors import counted
from hiresattn_cli import options
from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.sources import expand_sources


@click.command(
    cls=Command,
    short_help="Look at images, and at where a search looked, in the browser.",
    example="hiresattn view slide.svs --results out/",
)
@click.argument("names", nargs=-1, metavar="[SRC]...")
@group(
    "Options",
    click.option(
        "--results",
        metavar="DIR|FILE",
        help="What `classify -o` wrote: regions and answers are drawn over the images. Without SRC its images are "
        "shown.",
    ),
    options.value_range,
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        help="Port on this computer; 0 = a free one. [default: 0]",
    ),
    click.option("--no-open", is_flag=True, help="Print the address only; open no browser."),
)
@click.pass_context
def view(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    *,
    results: str | None,
    value_range: Any,
    port: int,
    no_open: bool,
) -> None:
    """Show images in the browser, however large, and over them the regions that a search looked at.

    SRC is as of `classify`. Any image that opens can be seen. The page comes from this computer and needs no network;
    only the images named can be reached, only from this computer, and only with the address that is printed. Ctrl-C
    ends it.
    """
    if not names and results is None:
        raise click.UsageError("name an image, or --results")
    from hiresattn.datasets.sources import Unusable
    from hiresattn.inference.read_records import read_records
    from hiresattn.report.changed import without_changed
    from hiresattn.report.server import ViewerServer, images_to_view

    found = expand_sources(names) if names else []
    for one in found:
        if isinstance(one, Unusable):
            _warn(one.error)
    wanted = [str(getattr(one, "source", one)) for one in found if not isinstance(one, Unusable)]
    records = without_changed(read_records(results), _warn) if results else ()
    images = images_to_view(wanted, records) if wanted or not names else []
    with ViewerServer(images, port, value_range) as server:
        if len(images) == 1:
            server.described(0)  # what can't be read is said here, not in the browser
        click.echo(server.address)
        if ctx.obj >= 0:
            click.echo(
                f"{counted(len(images), 'image')}; Ctrl-C ends it. From another computer: ssh -L "
                f"{server.server_port}:127.0.0.1:{server.server_port} THIS-ONE, and the same address there.",
                err=True,
            )
        sys.stdout.flush()
        if not no_open and _has_windows():
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)


def _warn(note: str) -> None:
    click.echo(f"Warning: {one_line(note)}", err=True)


def _has_windows() -> bool:
    """Whether a browser could open a window; one that runs in the terminal would only be in the way."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
