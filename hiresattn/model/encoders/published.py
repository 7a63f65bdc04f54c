"""What the publishers of encoders tell to load them with, where their ``config.json`` need not say it."""

from typing import Any

_SCALED = {"init_values": 1e-5}
_GATED_MLP = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_VIRCHOW = {"model_args": _GATED_MLP}
_H_OPTIMUS: dict[str, dict[str, Any]] = {
    "model_args": {**_SCALED, "dynamic_img_size": False},
    "pretrained_cfg": {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)},
}

#: By name on the hub, lower case: what comes on top of the repository's ``config.json``, from model cards.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "mahmoodlab/uni": {"model_args": {**_SCALED, "dynamic_img_size": True}},
    "mahmoodlab/uni2-h": {
        "model_args": {
            **_SCALED,
            **_GATED_MLP,
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
        }
    },
    "paige-ai/virchow": _VIRCHOW,
    "paige-ai/virchow2": _VIRCHOW,
    "bioptimus/h-optimus-0": _H_OPTIMUS,
    "bioptimus/h-optimus-1": _H_OPTIMUS,
}
