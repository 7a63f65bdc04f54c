"""Arguments that the publishers of encoders tell to load them with, where their repositories don't hold them."""

from typing import Any

_DINOV2 = {"init_values": 1e-5}
_GATED_MLP = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}

#: By name on the hub, lower case: arguments for timm, from the encoders' model cards.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "mahmoodlab/uni": {**_DINOV2, "dynamic_img_size": True},
    "mahmoodlab/uni2-h": {
        **_DINOV2,
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
    },
    "paige-ai/virchow": _GATED_MLP,
    "paige-ai/virchow2": _GATED_MLP,
    "bioptimus/h-optimus-0": {**_DINOV2, "dynamic_img_size": False},
    "bioptimus/h-optimus-1": {**_DINOV2, "dynamic_img_size": False},
}
