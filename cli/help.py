"""Help of a command: its options in groups, and an example."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_type_hints

import click

F = TypeVar("F", bound=Callable[..., Any])
_REST = "Options"
#: Bounds as click writes them, such as ``x>=1``; left out, since errors have them.
_BOUNDS = re.compile(r"(; )?[\d.]*<?=?x[<>]=?[\d.]*")
_DEFAULT = re.compile(r" *\[default: ([^]]*)\]")


class Command(click.Command):
    """A command whose help shows its options by group, and an example at the end."""

    def __init__(self, *args: Any, example: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.example = example
        self.groups: dict[str, str] = vars(self.callback).get("help_groups", {}) if self.callback else {}

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where a damaged image ends it that could be left out, the error says with which option."""
        from hiresattn.errors import NotFoundError, OpenError, ReadError

        try:
            return super().invoke(ctx)
        except NotFoundError:
            raise  # a model, a table; or an image, of which the path is to be mended
        except (OpenError, ReadError) as error:
            skips = ctx.params.get("on_error", "skip") == "skip"
            if skips or str(error).startswith(f"{ctx.params.get('manifest')}:"):
                raise
            raise type(error)(f"{error}; --on-error skip leaves out such images") from error

    def grouped(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """The command's options by group, in the order of the source; ``--help`` joins the last."""
        found: dict[str, list[click.Parameter]] = {}
        for one in self.get_params(ctx):
            if isinstance(one, click.Option) and not one.hidden:
                last = next(reversed(found), _REST) if "--help" in one.opts else _REST
                found.setdefault(self.groups.get(one.name or "", last), []).append(one)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        for title, parameters in self.grouped(ctx).items():
            records = [(names, _plain(text)) for one in parameters for names, text in [_record(one, ctx)]]
            with formatter.section(title):
                formatter.write_dl(records, col_max=26)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def group(title: str, *options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Decorate a command's function with options that its help shows under one title."""

    def add(function: F) -> F:
        for option in reversed(options):
            option(function)
            name = vars(function)["__click_params__"][-1].name
            vars(function).setdefault("help_groups", {})[name] = title
        return function

    return add


@dataclass(frozen=True)
class Described:
    """An option of a command, or a key of ``train --config``, as documentation shows it."""

    command: str
    """Words of the command, such as ``fmow index``."""
    group: str
    """Title that its help shows it under."""
    option: str
    """Names and value, such as ``-m, --model MODEL``."""
    help: str
    """What it does."""
    default: str
    """Its default; empty = none."""


def described() -> Iterator[Described]:
    """Every option of every command, in the order of the help."""
    from hiresattn_cli.main import cli

    yield from _described(cli, click.Context(cli, info_name="hiresattn"), ())


def examples() -> Iterator[tuple[str, str]]:
    """The words of each command, and its example."""
    from hiresattn_cli.main import cli

    for words, command in _commands(cli, ()):
        yield words, getattr(command, "example", "")


def described_keys() -> Iterator[Described]:
    """The keys of ``train --config``, ``preset`` and fields of ``TrainOptions``: type, default and documentation."""
    from hiresattn.option_types import type_words
    from hiresattn.training.options import TrainOptions

    yield Described(
        "train", "Keys of --config", "preset (text in quotes)",
        "Named set of options, which the other keys and flags win over.", "",
    )  # fmt: skip
    documented, hints = _docstrings(TrainOptions), get_type_hints(TrainOptions)
    for one in fields(TrainOptions):
        default = None if one.default is MISSING else one.default
        yield Described(
            "train", "Keys of --config", f"{one.name} ({type_words(hints[one.name])})",
            documented.get(one.name, ""), toml(default),
        )  # fmt: skip


def toml(value: Any) -> str:
    """A default as a TOML file would have it; empty where it is None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, tuple) else f"{value:g}"


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*words, name))
    else:
        yield " ".join(words), command


def _described(command: click.Command, ctx: click.Context, words: tuple[str, ...]) -> Iterator[Described]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _described(inner, click.Context(inner, parent=ctx, info_name=name), (*words, name))
    if not isinstance(command, Command):
        return
    for title, parameters in command.grouped(ctx).items():
        for one in parameters:
            if "--help" not in one.opts:
                names, text = _record(one, ctx)
                text = _plain(text)
                match = _DEFAULT.search(text)
                default = match[1] if match else ""
                yield Described(" ".join(words), title, names, _DEFAULT.sub("", text), default)


def _record(option: click.Parameter, ctx: click.Context) -> tuple[str, str]:
    """Names and help of an option that isn't hidden."""
    return option.get_help_record(ctx) or ("", "")


def _plain(text: str) -> str:
    """A help text without bounds."""
    return _BOUNDS.sub("", text).replace("  []", "").replace("[; ", "[")


def _docstrings(cls: type) -> dict[str, str]:
    """The string below each field of a class, on one line and without markup."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match text:
                case ast.Expr(ast.Constant(str(words))):
                    found[field.target.id] = " ".join(words.split()).replace("``", "`")
    return found
