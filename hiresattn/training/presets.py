"""Named training options: starting points, the published configurations, and recipes of several trainings."""

from dataclasses import replace

from hiresattn.training.options import TrainOptions

#: How TNet is trained, where the defaults differ.
_PAPER = TrainOptions(
    vary_k=False,
    select="best",
    estimator="reinforce",
    batch_size=64,
    optimizer="adam",
    schedule="step",
    warm_up=0.0,
    weight_decay=0.0,
    clip=None,
    value_range=(0.0, 255.0),
    squash=448,
    filter="bilinear",
    augment="mirror",
)
_FMOW = replace(_PAPER, architecture="tnet-fmow", crop_size=224, lr=1e-3)
#: An encoder that sees root regions only.
_ALONE = replace(_PAPER, crop_size=224, squash=224, k=(0,), image_share=1.0)

#: Named starting points for ``hiresattn train --preset``.
PRESETS: dict[str, TrainOptions] = {
    "small": TrainOptions(),
    "quick": TrainOptions(epochs=6),
    "timm": TrainOptions(
        encoder="efficientnet_b0", crop_size=224, grid=5, fraction=0.34375, k=(3, 2), batch_size=8, lr=3e-4
    ),
    "tnet-imagenet": replace(
        _PAPER, architecture="tnet-imagenet", crop_size=77, squash=224, k=(3,), epochs=200, lr=1e-4
    ),
    "bagnet77": replace(_ALONE, architecture="bagnet77", epochs=200, lr=1e-4),
    "tnet-fmow-448": replace(_FMOW, squash=448, k=(2,), image_share=0.2, encoder_drop=0.3, epochs=40),
    "tnet-fmow": replace(_FMOW, squash=896, k=(2, 1), image_share=0.05, glimpse_loss_depths=2, epochs=10),
    "efficientnet-b0": replace(  # its decay is the gradient of 1e-5 times the sum of squares
        _ALONE, architecture="efficientnet-b0", epochs=60, lr=1e-3, weight_decay=2e-5
    ),
}

#: Options of recipes, trainings of several steps, for ``hiresattn train --recipe``. In ``distil`` a cell is an eighth
#: of its region, cells overlap by half, and batch normalisation lets the features of cells be compared. A teacher
#: is chosen, and the model calibrated and measured, on validation images: a share, where no row is of split ``val``.
RECIPES: dict[str, TrainOptions] = {
    "distil": TrainOptions(
        recipe="distil",
        encoder="small-bn",
        scorer="evidence",
        coarse_encoder=True,
        position=False,
        grid=15,
        fraction=0.125,
        k=(3,),
        batch_size=16,
        weight_decay=0.1,
        epochs=24,
        val_fraction=0.15,
    ),
}
