"""``rio hiresattn``: the same commands as a plugin of rasterio's, with its GDAL settings and credentials.

rio imports this module whatever it is asked: nothing heavy here.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import click

from hiresattn_cli.groups import Group


class _Plugin(Group):
    """A group whose commands are loaded when one is asked for."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(_commands())

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """A command; None = there is none of that name."""
        return _commands().get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command as rio was called: with its verbosity, profile and other settings."""
        given = ctx.obj if isinstance(ctx.obj, dict) else {}
        ctx.obj = given.get("verbosity", 0)
        with given.get("env") or nullcontext():
            return super().invoke(ctx)


def _commands() -> Mapping[str, click.Command]:
    from hiresattn_cli.main import cli

    return cli.commands


@click.group("hiresattn", cls=_Plugin, short_help="Classify scenes by looking at a fraction of them.")
def hiresattn() -> None:
    """Classify scenes by looking at a fraction of them: the commands of `hiresattn`.

    rio's own options hold: --aws-profile, --aws-no-sign-requests, -v, -q. Exit status: 0 done, 1 failed, 2 wrong usage,
    3 some of several sources failed.
    """
