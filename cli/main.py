"""The command ``hiresattn``. One command per file; heavy imports inside the commands."""

import logging
import os

import click

from hiresattn import __version__
from hiresattn_cli.groups import Commands, Group
from hiresattn_cli.output import flush_streams, one_line, open_streams, write_anything

#: In the order of the documentation.
_COMMANDS = (
    "init",
    "info",
    "convert",
    "classify",
    "train",
    "evaluate",
    "locate",
    "merge",
    "status",
    "export",
    "report",
    "view",
    "export-attention",
    "export-model",
    "extract",
    "describe",
    "demo",
    "doctor",
    "fmow",
    "bench",
)


class _Stderr(logging.Handler):
    """Log records as single lines on whatever stderr is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        click.echo(f"{record.levelname.capitalize()}: {one_line(record.getMessage())}", err=True)


@click.group(
    cls=Group,
    commands=Commands(_COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-v", "--verbose", count=True, help="More messages on stderr (twice: even more).")
@click.option("-q", "--quiet", count=True, help="Fewer messages on stderr: errors only.")
@click.version_option(__version__, prog_name="hiresattn")
@click.pass_context
def cli(ctx: click.Context, verbose: int, quiet: int) -> None:
    """Classify gigapixel images by looking at a fraction of them.

    Data goes to stdout; messages and the progress bar go to stderr. Exit status: 0 done, 1 failed,
    2 wrong usage, 3 some of several sources failed, 130 interrupted.
    """
    # Waiting threads that spin take the cores from the readers: five times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ctx.obj = verbose - quiet
    level = logging.WARNING + 10 * (quiet - verbose)
    logging.basicConfig(level=max(level, logging.DEBUG), handlers=[_Stderr()], force=True)
    logging.captureWarnings(capture=True)


def main() -> None:
    """Run the command line; the entry point."""
    open_streams()
    write_anything()
    try:
        cli(prog_name="hiresattn")
    finally:
        flush_streams()


if __name__ == "__main__":
    main()
