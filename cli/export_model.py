"""``hiresattn export-model``: the network of a model for another engine, beside its weights."""

import click

from hiresattn_cli.help import Command, group


@click.command(
    "export-model",
    cls=Command,
    short_help="Write a model's network for ONNX Runtime.",
    example="hiresattn export-model model --to onnx",
)
@click.argument("model", metavar="MODEL")
@group(
    "Options",
    click.option(
        "--to", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="Format of the network."
    ),
)
def export_model(*, model: str, to: str) -> None:  # noqa: ARG001 - there is one format
    """Write the network of MODEL, a directory, for ONNX Runtime.

    The directory gets the network, and a few crops with what PyTorch makes of them. `hiresattn classify` then runs
    it with ONNX Runtime, which on the CPU takes less time, and needs no PyTorch (--engine says which is taken).
    """
    from hiresattn.card import NETWORK
    from hiresattn.inference.onnx_export import export_onnx

    export_onnx(model)
    click.echo(f"{model}/{NETWORK}: agrees with PyTorch", err=True)
