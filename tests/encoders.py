"""Encoders as others publish them: a folder with timm's config.json and weights."""

import json

import timm
import torch
from safetensors.torch import save_file

#: Statistics that no data set measures.
MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.25, 0.1)


def write_encoder(folder, architecture="test_vit", *, classes=0, size=None, pickled=False, **args):
    """Write a tiny encoder with random weights in timm's format.

    Returns:
        The timm model, in evaluation mode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    layers = {"SwiGLUPacked": timm.layers.SwiGLUPacked}
    more = {
        name: layers.get(value, value) if isinstance(value, str) else value for name, value in args.items()
    }
    body = timm.create_model(architecture, num_classes=classes, **more).eval()
    side = size or body.pretrained_cfg["input_size"][1]
    config = {
        "architecture": architecture,
        "num_classes": classes,
        "model_args": args,
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "mean": MEAN,
            "std": STD,
            "num_classes": classes,
            "license": "cc-by-nc-4.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: value.contiguous() for name, value in body.state_dict().items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return body
