"""The default generator: small enough for a CPU and to ship.

An EfficientNet-Lite encoder, a U-Net decoder with self-attention at 1/16, and for every second pixel a
distribution over colours (bins of the ab plane) instead of one colour. What a thing can be coloured is
often ambiguous, and the mean of two plausible colours is grey; the annealed mean of a distribution is not.

Sources: Zhang, Isola and Efros 2016, "Colorful Image Colorization" (bins, annealed mean); Aitken et al. 2017,
"Checkerboard artifact free sub-pixel convolution" (ICNR); Sugawara et al. 2018 (blur after the shuffle).
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from restore.generators.efficientnet import EfficientNetLite

GREY_MEAN, GREY_STD = 0.449, 0.226
"""Mean and deviation of ImageNet's grey: those of its three channels, averaged."""

STRIDE = 32
"""Sizes must be multiples of this."""

_DECODERS = {
    "lite0": ((128, 192), (96, 128), (64, 80), (40, 48)),
    "lite1": ((128, 192), (96, 128), (64, 80), (40, 48)),
    "lite2": ((256, 384), (192, 288), (128, 192), (80, 96)),
}
"""By encoder, channels at 1/16, 1/8, 1/4 and 1/2 size: of what is doubled, and after joining the encoder's."""


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Shuffle(nn.Module):
    """Double the size: 1x1 convolution, pixel shuffle, 2x2 blur against the checkerboard."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, 4 * outputs, 1)
        start = nn.init.kaiming_normal_(torch.empty(outputs, inputs, 1, 1)).repeat_interleave(4, 0)
        self.conv.load_state_dict({"0.weight": start}, strict=False)  # ICNR: the four sub-pixels start equal

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.conv(x), 2)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, 1)


class Up(nn.Module):
    """One step of the decoder: double the size, join the encoder's features, convolve."""

    def __init__(self, inputs: int, skip: int, shuffled: int, outputs: int) -> None:
        super().__init__()
        self.shuffle = Shuffle(inputs, shuffled)
        self.conv = ConvNorm(shuffled + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat((self.shuffle(x), skip), 1))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Let every place see the whole picture, so that one thing gets one colour.

    Queries and keys have unit length and the scale is bounded, so logits stay small in half precision too.
    The gain starts at zero: at first this is the identity.

    Sources: Zhang et al. 2019, "Self-Attention GAN"; Henry et al. 2020, "Query-Key Normalization".
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(-1, -2).unbind(1)
        query = F.normalize(query.float(), dim=-1) * self.log_scale.float().exp().clamp_max(50.0)
        key = F.normalize(key.float(), dim=-1)
        seen = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value, scale=1.0)
        seen = seen.transpose(-1, -2).reshape(batch, channels, height, width)
        update: Tensor = self.out(seen)
        return x + self.gamma.to(x.dtype) * update


class Compact(nn.Module):
    """Grey to ab at half size.

    The state dict holds the colour bins too, so weights carry the palette that they were trained with.

    Attributes:
        bins: Colours that the output is a distribution over, shape (K, 2), ab.
        temperature: Of the annealed mean: 1 is the mean (calm), towards 0 the mode (vivid, patchy).
    """

    bins: Tensor

    def __init__(
        self,
        pixels: int = 256,
        bins: int = 96,
        temperature: float = 0.7,
        dropout: float = 0.0,
        encoder: str = "lite0",
    ) -> None:
        """Build the network with random weights.

        Args:
            pixels: Square root of the area that a picture is coloured at.
            bins: Number of colours in the palette.
            temperature: See the class.
            dropout: Share of the deepest feature maps dropped in training.
            encoder: Variant of EfficientNet-Lite; the decoder's widths follow it. `lite2` is for GPUs.

        Raises:
            ConfigError: There is no such variant.
        """
        super().__init__()
        self.pixels, self.temperature = pixels, temperature
        self.encoder = EfficientNetLite(encoder)
        s2, s4, s8, s16, s32 = self.encoder.channels
        (_, wide16), (_, wide8), (_, wide4), (_, wide2) = widths = _DECODERS[encoder]
        self.drop = nn.Dropout2d(dropout)
        self.up16 = Up(s32, s16, *widths[0])
        self.attention = SelfAttention(wide16)
        self.up8 = Up(wide16, s8, *widths[1])
        self.up4 = Up(wide8, s4, *widths[2])
        self.up2 = Up(wide4, s2, *widths[3])
        self.head = nn.Conv2d(wide2, bins, 1)
        self.register_buffer("bins", torch.zeros(bins, 2))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size, multiples of 32, at which a frame of this size is coloured: its shape, our area."""
        scale = self.pixels / math.sqrt(height * width)
        high, wide = (max(1, round(n * scale / STRIDE)) * STRIDE for n in (height, width))
        return high, wide

    def forward(self, x: Tensor) -> Tensor:
        """Return logits over the bins.

        Args:
            x: Shape (B, 1, H, W), grey, `GREY_MEAN` taken off and divided by `GREY_STD`; multiples of 32.

        Returns:
            Shape (B, K, H / 2, W / 2).
        """
        s2, s4, s8, s16, s32 = self.encoder(x)
        y = self.attention(self.up16(self.drop(s32), s16))
        return self.head(self.up2(self.up4(self.up8(y, s8), s4), s2))  # type: ignore[no-any-return]

    def colorize(self, gray: Tensor) -> Tensor:
        """Colour grey pictures.

        Args:
            gray: Shape (B, 1, H, W), float32, sRGB-coded, [0, 1]; H and W multiples of 32.

        Returns:
            a* and b* (D65), shape (B, 2, H / 2, W / 2), float32.

        Raises:
            ValueError: `gray` is not one channel, or its size is no multiple of 32.
        """
        if gray.ndim != 4 or gray.shape[1] != 1 or gray.shape[2] % STRIDE or gray.shape[3] % STRIDE:
            raise ValueError(f"expected grey (B, 1, H, W) with H and W multiples of {STRIDE}, not {tuple(gray.shape)}")
        x = (gray - GREY_MEAN) / GREY_STD
        return self.decode(self(x.to(self.encoder._conv_stem.weight.dtype)))

    def decode(self, logits: Tensor) -> Tensor:
        """Return the annealed mean of the colour bins, float32, shape (B, 2, H, W), for logits (B, K, H, W)."""
        last = logits.permute(0, 2, 3, 1)  # contiguous, as the network is channels-last
        if self.temperature != 1:
            last = last.float() / self.temperature
        with torch.autocast(logits.device.type, enabled=False):
            ab = torch.softmax(last, -1, dtype=torch.float32) @ self.bins.float()
        return ab.permute(0, 3, 1, 2)

    def folded(self) -> Compact:
        """Return a copy for inference: batch norms and the temperature are folded into their convolutions."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        for module in network.modules():
            _fold_children(module)
        for parameter in network.head.parameters():
            parameter.div_(self.temperature)
        network.temperature = 1.0
        return network


def _fold_children(module: nn.Module) -> None:
    """Fold each batch norm among the children into the convolution just before it."""
    previous = ""
    for name, child in list(module.named_children()):
        before = getattr(module, previous, None) if previous else None
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            setattr(module, previous, fuse_conv_bn_eval(before, child))
            setattr(module, name, nn.Identity())
        previous = name
