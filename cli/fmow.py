"""``hiresattn fmow``: the tools for Functional Map of the World."""

import click

from hiresattn_cli import options
from hiresattn_cli.output import json_line


@click.group()
def fmow() -> None:
    """Index, convert and score Functional Map of the World (fMoW)."""


@fmow.command()
@click.argument("predictions", metavar="PREDICTIONS")
@click.argument("truth", metavar="TRUTH")
@options.as_json
@click.pass_context
def score(ctx: click.Context, *, predictions: str, truth: str, as_json: bool) -> None:
    """Print the challenge's score (protocol A): weighted F1 over box IDs, six decimals.

    Both are files of lines boxID,category. Each box of TRUTH needs a prediction; false_detection is a
    category that weighs nothing. --json adds each category's counts and F1.
    """
    from hiresattn.fmow.score import challenge_score, read_lines

    found = challenge_score(read_lines(predictions), read_lines(truth, truth=True), predictions)
    if found.ignored and ctx.obj >= 0:
        click.echo(f"Warning: {predictions}: {found.ignored} boxes that {truth} doesn't have", err=True)
    click.echo(json_line(found.to_json()) if as_json else f"{found.score:.6f}")
