"""Groups of commands: how their errors end. Imported by ``rio``, so that nothing heavy is here."""

import re
from collections import UserDict
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import click

INTERRUPTED = 130


#: An option as Python calls it: with a value, of several words, or one of two that are no other words in messages.
_PYTHON = re.compile(
    r"(?<![\w./-])(?<!to )(?:([a-z_]+)=(?=[\w.])|([a-z]+(?:_[a-z]+)+|overwrite|resume)(?![\w./=-]))"
)


def with_flags(message: str, command: click.Command | None) -> str:
    """A message with options as the command line calls them: ``--assume-mpp 0.5`` for ``assume_mpp=0.5``."""
    given = [one for one in command.params if isinstance(one, click.Option)] if command else []
    flags = {one.name: max(one.opts, key=len) for one in given}

    def flag(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return match[0] if name not in flags else f"{flags[name]} " if match[1] else flags[name]

    return _PYTHON.sub(flag, message)


class Commands(UserDict[str, Any]):
    """Commands by name, in order; each is imported when it is asked for, from the module of its name.

    Args:
        names: Their names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(names))

    def __getitem__(self, name: str) -> click.Command:
        if self.data[name] is None:
            own = name.replace("-", "_")
            self.data[name] = getattr(import_module(f"hiresattn_cli.{own}"), own)
        return self.data[name]


class Group(click.Group):
    """A group whose commands end in one line on stderr and an exit status, never in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; typed errors, packages that aren't there and files that can't be written become one line.

        ``Error: …``, exit 1.
        """
        from hiresattn.errors import HiresattnError, missing_package
        from hiresattn_cli.output import one_line

        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly
        except (HiresattnError, OSError) as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise click.ClickException(with_flags(one_line(error), command)) from error
        except ImportError as error:
            missing = missing_package(error, f"`{ctx.command_path} {ctx.invoked_subcommand or '…'}`")
            if missing is None:
                raise
            raise click.ClickException(one_line(missing)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. What was written so far is kept.", err=True)
            ctx.exit(INTERRUPTED)
