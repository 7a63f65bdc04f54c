"""``hiresattn merge``: the outputs of a job array as one."""

import click

from hiresattn_cli.help import Command, group
from hiresattn_cli.output import one_line
from hiresattn_cli.records import SOME_FAILED

#: Missing cases that are named.
_NAMED = 20


@click.command(
    cls=Command,
    short_help="Put the outputs of a job array (classify --shard) together.",
    example="hiresattn merge out/shard-*/ -o all/",
)
@click.argument("parts", nargs=-1, required=True, metavar="PART...")
@group(
    "Options",
    click.option(
        "-o",
        "--output",
        required=True,
        metavar="FILE|DIR/",
        help="Results folder, or file of records (.jsonl).",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what is there."),
)
@click.pass_context
def merge(ctx: click.Context, /, parts: tuple[str, ...], *, output: str, overwrite: bool) -> None:
    """Put the outputs of the shards of a run together: what `classify` in one process writes, in its order.

    PART is what `classify --shard` wrote: a folder, a .jsonl file, or the folder that holds the shards' folders.

    Shards of another model, options or sources are refused. Exit status 3: cases are missing, or failed.
    """
    from hiresattn.cluster.merge import merge as merge_parts

    made = merge_parts(parts, output, overwrite=overwrite)
    for name in made.missing_shards:
        click.echo(f"Error: shard {name} is missing; run it, then merge again", err=True)
    for name in made.missing[:_NAMED]:
        click.echo(f"Error: no record of {one_line(name)}; resume its shard, then merge again", err=True)
    if len(made.missing) > _NAMED:
        click.echo(f"Error: no record of {len(made.missing) - _NAMED} more", err=True)
    if ctx.obj >= 0:
        for note in made.notes:
            click.echo(f"Warning: {note}", err=True)
        failed = f", {made.failed} of them failed" if made.failed else ""
        click.echo(f"{made.cases} records{failed}, in {output}", err=True)
    if made.failed or made.missing or made.missing_shards:
        ctx.exit(SOME_FAILED)
