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
    click.option(
        "--int8",
        metavar="IMAGES",
        help="A network of 8 bits, too, for values as in these images (manifest, folder, glob), and how right it is.",
    ),
)
def export_model(*, model: str, to: str, int8: str | None) -> None:  # noqa: ARG001 - there is one format
    """Write the network of MODEL, a directory, for ONNX Runtime.

    The directory gets the network, and a few crops with what PyTorch makes of them. `hiresattn classify` then runs
    it with ONNX Runtime, which on the CPU takes less time, and needs no PyTorch (--engine says which is taken; that of
    8 bits only where it is named: --engine onnx-int8).
    """
    from hiresattn.card import INT8, NETWORK
    from hiresattn.inference.onnx_export import export_onnx
    from hiresattn.inference.onnx_int8 import export_int8

    export_onnx(model)
    click.echo(f"{model}/{NETWORK}: agrees with PyTorch", err=True)
    if int8 is not None:
        found = export_int8(model, int8)
        right = ""
        if found.accuracy is not None:
            right = f", accuracy {found.accuracy:.3f} (before: {found.float_accuracy:.3f})"
        click.echo(
            f"{model}/{INT8[NETWORK]}: of {found.cases} cases {found.same_class:.1%} get the same class, scores are "
            f"up to {found.score_apart:.2g} apart{right}",
            err=True,
        )
