"""Any timm encoder as a list of features, for one grey channel or many, and where its weights come from."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from nnunet_covid.networks.conv import PAPER_STYLE
from nnunet_covid.networks.encoder_description import EncoderDescription


class NormThenActivation(nn.Module):
    """timm's batch norm with an activation inside, as two modules.

    torch's conversion for several GPUs puts a plain SyncBatchNorm in the place of any batch norm, and would drop the
    activation without a word. Its state has the names of timm's, so that weights and checkpoints fit as before.
    """

    def __init__(self, layer: BatchNormAct2d) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        self.norm.load_state_dict(layer.state_dict())
        self.drop = layer.drop
        self.act = layer.act
        self._register_load_state_dict_pre_hook(self._rename)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self.norm(x)))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.norm.state_dict(*args, **kwargs)

    @staticmethod
    def _rename(state: dict[str, Any], prefix: str, *_: Any) -> None:
        for key in [k for k in state if k.startswith(prefix)]:
            state[f"{prefix}norm.{key.removeprefix(prefix)}"] = state.pop(key)


def norms_apart(module: nn.Module) -> nn.Module:
    """The module with every :class:`BatchNormAct2d` inside it replaced by a :class:`NormThenActivation`."""
    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d):
            setattr(module, name, NormThenActivation(child))
        else:
            norms_apart(child)
    return module


class TimmEncoder(nn.Module):
    """A timm ``features_only`` encoder (2D).

    A grey image is given as one channel: the first convolution is built for it, and weights of a three-channel model
    are summed over the colours when they are loaded, which equals three equal channels at a third of the cost. Further
    channels, a lung mask for one, start with weights of zero.

    Args:
        name: A model name of timm, for example ``res2net50d``.
        in_channels: Channels of the image.

    Raises:
        ValueError: If timm does not know the name or the model has no feature pyramid.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        try:
            model = timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=False)
        except (RuntimeError, AttributeError, TypeError) as e:
            msg = f"timm has no encoder '{name}' with a feature pyramid ({e}); see timm.list_models()"
            raise ValueError(msg) from e
        self.model = norms_apart(model)
        self.name = name

    @property
    def description(self) -> EncoderDescription:
        """Channels and strides as timm states them; batch normalisation and ReLU as in the paper."""
        info: Any = self.model.feature_info
        strides = tuple((int(r), int(r)) for r in info.reduction())
        return EncoderDescription(
            channels=tuple(info.channels()),
            strides=strides,
            axes=((True, True),) * len(strides),
            style=PAPER_STYLE,
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of an image (B, in_channels, H, W), shallow to deep."""
        return self.model(x)
