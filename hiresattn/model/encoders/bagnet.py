"""BagNet-77, TNet's encoder for ImageNet: the receptive field of its last map is 77 px."""

from torch import Tensor, nn
from torch.nn import functional

from hiresattn.model.encoders.base import Encoded
from hiresattn.model.init import initialise
from hiresattn.shapes import Float

#: Slope of the leaky rectifier.
_SLOPE = 0.2


class _Block(nn.Module):
    """1x1, 3x3 (or 1x1), 1x1 to four times the width, and a shortcut; no normalisation, biases throughout.

    Args:
        inside: Input channels.
        width: Channels of the middle convolution; the output has ``4 * width``.
        kernel: Side of the middle convolution, 1 or 3.
        stride: Of the middle convolution.
        valid: Without padding; the shortcut is cropped by a px on every side.
    """

    def __init__(self, inside: int, width: int, kernel: int, *, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inside, width, 1)
        self.middle = nn.Conv2d(width, width, kernel, stride=stride)
        self.expand = nn.Conv2d(width, 4 * width, 1)
        same = stride == 1 and inside == 4 * width
        self.shortcut = None if same else nn.Conv2d(inside, 4 * width, 1, stride=stride)
        self.valid = valid

    def forward(self, x: Tensor) -> Tensor:
        """The input (or its shortcut) plus its convolutions, rectified."""
        y = _rectified(self.squeeze(x))
        if not self.valid:
            y = _padded(y, self.middle.kernel_size[0], self.middle.stride[0])
        y = self.expand(_rectified(self.middle(y)))
        if self.valid and self.middle.kernel_size[0] == 3:
            x = x[:, :, 1:-1, 1:-1]
        return _rectified(y + (x if self.shortcut is None else self.shortcut(x)))


class BagNet77(nn.Module):
    """Residual blocks whose receptive field ends at 77 px.

    Args:
        channels: Bands of a crop.
        drop: Share of the last map's channels dropped in training, whole channels at a time.

    Source:
        TNet, the BagNet-77 variant of the ImageNet configuration; TensorFlow's SAME padding, Glorot's
        initialisation.
    """

    def __init__(self, *, channels: int, drop: float = 0.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [
                nn.Conv2d(channels, 64, 3),
                _part(64, 64, wide=1, stride=2),
                _part(256, 128, wide=2, stride=2),
                _part(512, 256, wide=4, stride=2, valid=True),
                _part(1024, 512, wide=1, valid=True),
                nn.Conv2d(2048, 512, 1),
            ]
        )
        self.drop = drop
        self.stage_channels = (64, 256, 512, 1024, 2048, 512)
        self.feature_width = 512
        initialise(self, "glorot")

    def forward(self, crops: Float[Tensor, "n c s s"]) -> Encoded:
        """Encode crops; the vector is the mean of the last map."""
        stages = []
        x = crops
        for part in self.parts:
            x = part(x)
            if isinstance(part, nn.Conv2d):
                x = _rectified(x)
            stages.append(x)
        x = functional.dropout2d(x, self.drop, training=self.training)
        return Encoded(tuple(stages), x.mean((2, 3)))


def _part(inside: int, width: int, *, wide: int, stride: int = 1, valid: bool = False) -> nn.Sequential:
    """Two blocks of 3x3 convolutions and ``wide`` of 1x1."""
    return nn.Sequential(
        _Block(inside, width, 3, stride=stride, valid=valid),
        _Block(4 * width, width, 3),
        *(_Block(4 * width, width, 1) for _ in range(wide)),
    )


def _rectified(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding: an odd px goes after."""
    pads = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads) if any(pads) else x
