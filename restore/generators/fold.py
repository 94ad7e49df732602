"""Turn a trained generator into a fast one that computes the same: norms folded, channels last, weights packed.

Only what is exact is folded. A batch norm before a zero-padded convolution is not: the padding would have to be
the norm's image of zero. Such norms stay, in fp32.
"""

from __future__ import annotations

import math
import platform
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import register_flop_formula

from restore.generators.blocks import SelfAttention, SpectralConv2d, WeightNormConv2d

M = TypeVar("M", bound=nn.Module)

PACKS: bool = torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")
"""Whether `pack` works on this machine."""


class FoldedAttention(nn.Module):
    """`SelfAttention` for inference: one 1x1 convolution makes query, key and value, and the gain is in its weight."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        query, key = attention.query.normalized(), attention.key.normalized()
        weight = torch.cat((query, key, attention.gamma * attention.value.normalized()))[..., None].detach()
        self.split = (len(query), len(key), len(weight) - len(query) - len(key))
        self.conv = _plain(weight)

    def forward(self, x: Tensor) -> Tensor:
        places = self.conv(x).permute(0, 2, 3, 1).flatten(1, 2)
        query, key, value = places.split(self.split, dim=-1)
        # Logits of trained networks are large: bf16 would change the weights by a tenth. Queries are normalised over.
        beta = torch.softmax(key.float() @ query.float().transpose(1, 2), dim=-1).to(value.dtype)
        return torch.add(x, (beta @ value).unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2))


class PackedConv2d(nn.Module):
    """A convolution, and the ReLU after it, with the weight in the order in which oneDNN's kernel reads it.

    An ordinary convolution brings its weight into that order in every call, which for the 3x3 convolutions of a few
    thousand channels at the bottom of a U-Net takes longer than the convolution. The best order depends on the size of
    the input, so the first call packs.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        assert not isinstance(conv.padding, str)
        self.places = [list(conv.padding), list(conv.stride), list(conv.dilation)]
        self.groups, self.after = conv.groups, "relu" if relu else "none"
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.weight = conv.weight.detach()
        self.dtype = self.weight.dtype
        self.lock = Lock()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if not self.weight.is_mkldnn:
            with self.lock:
                self._pack(x)
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            x, self.weight, self.bias, *self.places, self.groups, self.after, [], ""
        )

    def _pack(self, x: Tensor) -> None:
        if not self.weight.is_mkldnn:
            weight = self.weight.contiguous().to_mkldnn()
            reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
            self.weight = reorder(weight, *self.places, self.groups, list(x.shape))


def fold(module: M) -> M:
    """Fold spectral, weight and batch norms into convolutions, and lay the weights out channels last.

    Where a batch norm is registered right after a convolution, it must also follow it in the flow; that is so in all
    generators here. A generator with a `folded` method of its own is folded by that first.

    Returns:
        The module in eval mode, changed in place unless it folds itself; its state dict is no longer the published one.
    """
    own = getattr(module, "folded", None)
    module = own() if own else module
    module.eval().requires_grad_(False)
    _replace_norms(module)
    for parent in module.modules():
        _fold_batch_norms(parent)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def cast(module: M, dtype: torch.dtype) -> M:
    """Convert the convolutions, in place, and let them convert their input.

    What is left of the batch norms, and what a generator does before and after its convolutions, stays in fp32.
    """
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            child.to(dtype).register_forward_pre_hook(_converted)
    return module


def pack(module: M) -> M:
    """Pack all 2-D convolutions for oneDNN, in place, with the ReLU registered after them; for a CPU, after `fold`."""
    for parent in module.modules():
        children = list(parent.named_children())
        for i, (name, child) in enumerate(children):
            if isinstance(child, nn.Conv2d):
                after = next((j for j in range(i + 1, len(children)) if not isinstance(children[j][1], nn.Identity)), i)
                relu = isinstance(children[after][1], nn.ReLU)
                setattr(parent, name, PackedConv2d(child, relu))
                if relu:
                    setattr(parent, children[after][0], nn.Identity())
    return module


def _converted(conv: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].to(conv.weight.dtype)  # type: ignore[arg-type]


def _replace_norms(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, SelfAttention):
            setattr(module, name, FoldedAttention(child).eval())
        elif isinstance(child, SpectralConv2d | WeightNormConv2d):
            setattr(module, name, _plain(child.normalized(), child.bias, child.padding))
        else:
            _replace_norms(child)


def _plain(weight: Tensor, bias: Tensor | None = None, padding: tuple[int, ...] | str = (0, 0)) -> nn.Conv2d:
    outputs, inputs, *kernel = weight.shape
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bias is not None, device="meta")  # type: ignore[arg-type]
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return conv.eval()


def _fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm among the children into the convolution just before it."""
    before: tuple[str, nn.Module] = ("", module)
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        before = (name, child)


def _flops(x: list[int], weight: list[int], *_: object, out_shape: list[int], **__: object) -> int:
    """Count multiplications and additions of a packed convolution, as torch does for an ordinary one."""
    return 2 * x[0] * math.prod(out_shape[2:]) * math.prod(weight)


if PACKS:
    register_flop_formula(torch.ops.mkldnn._convolution_pointwise)(_flops)
