"""Parts shared by the generators: normalised convolutions, pixel-shuffle up-sampling, self-attention.

Parameter and buffer names, and their order, are those of the published checkpoints; `fold` removes the norms at load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _power_iteration(weight: Tensor, u: Tensor, v: Tensor) -> None:
    """Move `u` and `v`, in place, one step towards the leading singular pair of the matrix `weight`."""
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        v.copy_(F.normalize(weight.t() @ u, dim=0, eps=1e-12))
        u.copy_(F.normalize(weight @ v, dim=0, eps=1e-12))


def _spectral_weight(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    # The copies let autograd go back through one forward after another has stepped u and v.
    with torch.autocast(weight.device.type, enabled=False):
        return torch.div(weight, torch.dot(u.clone(), weight.flatten(1) @ v.clone()))


class SpectralConv2d(nn.Conv2d):
    """Same-size convolution whose weight is divided by its largest singular value.

    In training every forward makes one power iteration; otherwise the STORED vectors give the singular value, which
    is not the exact one, and the published weights rely on that. Keys: [bias,] weight_orig, weight_u, weight_v.

    Source: Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018, algorithm 1.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, bias: bool = False) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
        weight = nn.init.kaiming_normal_(self.weight.detach())
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        del self.weight
        self.weight_orig = nn.Parameter(weight)
        self.register_buffer("weight_u", F.normalize(torch.randn(channels_out, device=weight.device), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(weight[0].numel(), device=weight.device), dim=0))

    def normalized(self) -> Tensor:
        """Return the weight that the convolution uses."""
        if self.training:
            _power_iteration(self.weight_orig.flatten(1), self.weight_u, self.weight_v)
        return _spectral_weight(self.weight_orig, self.weight_u, self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalized(), self.bias)  # type: ignore[no-any-return]


class SpectralConv1d(nn.Conv1d):
    """A 1x1 convolution of a sequence, otherwise as `SpectralConv2d`, without bias."""

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1, bias=False)
        weight = nn.init.kaiming_normal_(self.weight.detach())
        del self.weight
        self.weight_orig = nn.Parameter(weight)
        self.register_buffer("weight_u", F.normalize(torch.randn(channels_out, device=weight.device), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(channels_in, device=weight.device), dim=0))

    def normalized(self) -> Tensor:
        """Return the weight that the convolution uses."""
        if self.training:
            _power_iteration(self.weight_orig.flatten(1), self.weight_u, self.weight_v)
        return _spectral_weight(self.weight_orig, self.weight_u, self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.normalized())


class WeightNormConv2d(nn.Conv2d):
    """A 1x1 convolution whose weight is a direction `weight_v` times a length `weight_g`, one an output channel.

    It is for a pixel shuffle of 2, so its output channels are a multiple of 4.

    Keys: bias, weight_g, weight_v. Source: Salimans and Kingma, Weight Normalization, 2016, equation 2.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        weight = _equal_subpixels(self.weight.detach())
        del self.weight
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True))
        self.weight_v = nn.Parameter(weight)

    def normalized(self) -> Tensor:
        """Return the weight that the convolution uses."""
        length = torch.linalg.vector_norm(self.weight_v, dim=(1, 2, 3), keepdim=True)
        return torch.mul(self.weight_v, self.weight_g / length)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normalized(), self.bias)  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Self-attention over all places of a feature map, added to the map with a learned gain.

    Source: Zhang et al., Self-Attention Generative Adversarial Networks, 2019, equations 1-3, without the last 1x1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.query = SpectralConv1d(channels, channels // 8)
        self.key = SpectralConv1d(channels, channels // 8)
        self.value = SpectralConv1d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2)
        query, key, value = self.query(places), self.key(places), self.value(places)
        beta = torch.softmax(query.transpose(1, 2) @ key, dim=1)
        return torch.add(x, (self.gamma * (value @ beta)).view_as(x))


class PixelShuffle(nn.Module):
    """Double a feature map: 1x1 convolution, ReLU, pixel-shuffle, 2x2 average against the checkerboard.

    Source: Sugawara et al., Super-Resolution using Convolutional Neural Networks without Any Checkerboard Artifacts,
    2018, as in fastai.
    """

    def __init__(self, conv: nn.Sequential) -> None:
        super().__init__()
        self.conv = conv
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return blur(F.pixel_shuffle(self.relu(self.conv(x)), 2))


def blur(x: Tensor) -> Tensor:
    """Average each pixel with its left, upper and upper left neighbour; the first row and column are repeated."""
    # Leaving the padding out of the mean is the same as repeating the edge, and needs no padded copy.
    return F.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)[..., :-1, :-1]


def _equal_subpixels(weight: Tensor) -> Tensor:
    """Draw weights of a convolution before a pixel shuffle, in place: the four sub-pixels start equal.

    Source: Aitken et al., Checkerboard artifact free sub-pixel convolution, 2017 (ICNR).
    """
    start = nn.init.kaiming_normal_(torch.empty_like(weight[::4]))
    return weight.copy_(start.repeat_interleave(4, 0))


def spectral_shuffle(channels_in: int, channels_out: int) -> PixelShuffle:
    """Return the up-sampling of a U-Net block: spectral norm, then batch norm."""
    conv = SpectralConv2d(channels_in, 4 * channels_out, 1)
    _equal_subpixels(conv.weight_orig.detach())
    return PixelShuffle(nn.Sequential(conv, nn.BatchNorm2d(4 * channels_out)))


def conv_relu_norm(channels_in: int, channels_out: int, attention: bool = False) -> nn.Sequential:
    """Return `spectral 3x3 convolution, ReLU, batch norm[, self-attention]`."""
    layers: list[nn.Module] = [SpectralConv2d(channels_in, channels_out), nn.ReLU(inplace=True)]
    layers.append(nn.BatchNorm2d(channels_out))
    return nn.Sequential(*layers, *([SelfAttention(channels_out)] if attention else []))
