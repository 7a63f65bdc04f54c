"""Groups of commands: how their errors end. Imported by ``rio``, so that nothing heavy is here."""

from typing import Any

import click

INTERRUPTED = 130


class Group(click.Group):
    """A group whose commands end in one line on stderr and an exit status, never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; typed errors and files that can't be written become ``Error: …``, exit 1."""
        from hiresattn.errors import HiresattnError
        from hiresattn_cli.output import one_line

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly
        except (HiresattnError, OSError) as error:
            raise click.ClickException(one_line(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. What was written so far is kept.", err=True)
            ctx.exit(INTERRUPTED)
