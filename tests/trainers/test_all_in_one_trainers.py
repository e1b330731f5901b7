"""All in one: everything off is the U-Net itself, what is on learns, what is off is not there, losses add up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_covid import trainers
from nnunet_covid.losses.inf_net import edge_bce
from nnunet_covid.losses.ssa_net import distillation_loss
from nnunet_covid.networks.inf_net import append_background
from nnunet_covid.nnunet.trainer_names import TRAINERS
from nnunet_covid.trainers.collaborative import CollaborativeTrainer

ROWS = [name for name, module in TRAINERS.items() if module == "all_in_one"]
ON_TIMM = [name for name, module in TRAINERS.items() if module == "all_in_one_timm"]
IN_3D = {"dims": 3, "stages": 4, "patch": [16, 32, 32]}
REGIONS = {"background": 0, "lesion": [1, 2], "core": [2], "ignore": 3}
PARTS = {
    "general_encoder": {"general_encoder"},
    "edge_attention": {"inf_net.edge_attention"},
    "partial_decoder": {"inf_net.global_map"},
    "reverse_attention": {"inf_net.global_map", "inf_net.cascade"},
    "spatial_convolution": {"spatial_convolution"},
    "self_attention": set[str](),
}
"""Switch to the modules that it brings."""


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An initialised trainer on the CPU that has not looked at any data and asks for no link."""
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    monkeypatch.setattr(CollaborativeTrainer, "usable_link", lambda *_: None)

    def build(
        kind: str | type, labels: dict[str, Any] | None = None, *, weights: str | None = None, **plans: Any
    ) -> Any:
        torch.manual_seed(0)
        chosen = getattr(trainers, kind) if isinstance(kind, str) else kind
        if hasattr(chosen, "encoder_weights"):
            chosen = type(chosen.__name__, (chosen,), {"encoder_weights": weights})
        data = planned.dataset_json(labels, **({"regions_class_order": [1, 2]} if labels else {}))
        configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
        settings = planned.plans(**{"stages": 5, "patch": [64, 64], **plans})
        made = chosen(settings, configuration, 0, data, torch.device("cpu"))
        made.initialize()
        made.network.train()
        return made

    return build


def batch(trainer: Any, labels: int = 2) -> dict[str, Any]:
    """Two images with blobs, their targets at every scale, and two images of another disease."""
    size = trainer.configuration_manager.patch_size
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, labels, (2, 1, *(s // 8 for s in size)), generator=generator).float()
    whole = torch.nn.functional.interpolate(coarse, size=tuple(size))
    if trainer.label_manager.has_regions:
        values = [*trainer.label_manager.foreground_regions, trainer.label_manager.ignore_label]
        whole = torch.cat([torch.isin(whole, torch.tensor(value)).float() for value in values], 1)
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(s * f) for s, f in zip(size, scale, strict=True)] for scale in scales]
    target = [torch.nn.functional.interpolate(whole, size=s).short() for s in sizes]
    images = torch.randn(2, 2, *size, generator=generator)
    return {"data": images[:, :1], "target": target, "other": images[:, 1:]}


def switched_on(trainer: Any) -> set[str]:
    """The modules that belong to what is on."""
    return {"encoder", "decoder"} | set().union(*(parts for name, parts in PARTS.items() if getattr(trainer, name)))


@pytest.mark.parametrize(
    ("name", "stock", "plans"),
    [
        ("AllInOneUNetTrainer", nnUNetTrainer, {}),
        ("AllInOneUNetTrainer", nnUNetTrainer, {"residual": True}),
        ("AllInOneUNetTrainer", nnUNetTrainer, IN_3D),
        ("AllInOnePretrainedUNetTrainer", trainers.UNetPretrainedTrainer, {}),
        ("AllInOnePretrainedUNetTrainer", trainers.UNetPretrainedTrainer, {"patch": [50, 70]}),
    ],
    ids=["2D", "residual", "3D", "timm", "timm, any size"],
)
def test_everything_off_is_the_u_net_itself(make: Any, name: str, stock: type, plans: dict[str, Any]) -> None:
    """The same weights give the same maps and loss, and after a step the same weights, to the last bit."""
    mine, theirs = make(name, **plans), make(stock, **plans)
    for key in [key for key in theirs.network.state_dict() if not key.startswith("decoder.encoder")]:
        theirs.network.state_dict()[key].copy_(mine.network.state_dict()[key])
    assert set(mine.network.state_dict()) == {
        key for key in theirs.network.state_dict() if not key.startswith("decoder.encoder")
    }
    data = batch(mine)
    for a, b in zip(mine.network(data["data"]), theirs.network(data["data"]), strict=True):
        assert torch.equal(a, b)
    assert mine.train_step(data) == theirs.train_step(data)
    own = theirs.network.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in mine.network.state_dict().items())


@pytest.mark.parametrize("plans", [{}, IN_3D], ids=["2D", "3D"])
@pytest.mark.parametrize("name", [*ROWS, "AllInOnePretrainedTrainer"])
def test_what_is_on_learns_and_what_is_off_is_not_there(make: Any, name: str, plans: dict[str, Any]) -> None:
    if "Pretrained" in name and plans:
        return
    trainer = make(name, **plans)
    there = {key for parts in PARTS.values() for key in parts if dict(trainer.network.named_modules()).get(key)}
    assert there == switched_on(trainer) - {"encoder", "decoder"}
    data = batch(trainer)
    if trainer.general_encoder:
        outputs, bottleneck = trainer.network(data["data"], data["other"], None, True)
        loss = trainer.loss(outputs, data["target"]) + sum(trainer.relation_losses(bottleneck))
    else:
        loss = trainer.loss(trainer.network(data["data"]), data["target"])
    loss.backward()
    # the weight of the coarsest map of the decoder is zero, as in stock nnU-Net
    unused = {name for name, p in trainer.network.named_parameters() if p.grad is None}
    assert unused <= {f"decoder.seg_layers.0.{kind}" for kind in ("weight", "bias")}
    for part in switched_on(trainer):
        gradients = [p.grad.abs().max() for p in trainer.network.get_submodule(part).parameters() if p.grad is not None]
        assert max(gradients) > 0, part


def test_the_losses_are_those_of_the_parts(make: Any) -> None:
    trainer = make("AllInOneNoGeneralTrainer")
    data = batch(trainer)
    outputs = trainer.network(data["data"])
    maps, guides, edges, stages = outputs[:4], outputs[4:10], outputs[10], outputs[11:]
    assert trainer.number_of_maps == len(guides)
    assert len(stages) == 4
    reference = (data["target"][0] == 1).float()
    expected = nnUNetTrainer._build_loss(trainer)(maps, data["target"])
    expected += 0.1 * distillation_loss(stages, standardise=True)
    stock = nnUNetTrainer._build_loss(trainer).loss
    shares = [0.5**i for i in range(6)]
    for share, guide in zip(shares, [guides[0], *map(append_background, guides[1:])], strict=True):
        expected += share / sum(shares) * stock(torch.cat((0 * guide[:, :1], guide[:, 1:]), 1), data["target"][0])
    expected += 0.2 * edge_bce(edges, reference)
    torch.testing.assert_close(trainer.loss(outputs, data["target"]), expected)


@pytest.mark.parametrize("name", ["AllInOneTrainer", "AllInOnePretrainedTrainer"])
def test_the_forward_pass_is_made_of_the_papers_parts(make: Any, name: str) -> None:
    network = make(name).network.eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        *finer, deepest = network.encoder(x)
        own = [*finer, deepest]
        deepest = network.spatial_convolution(torch.cat((deepest, network.general_encoder(x)[-1]), 1))
        read = [*([] if network.full_resolution is None else [network.full_resolution(x)]), *finer, deepest]
        maps, edges = network.inf_net.read(read)
        decoded = network.decoder(read)
        found = network(x)
        up = torch.nn.functional.interpolate
        expected = [decoded[0] + append_background(maps[-1]), *decoded[1:], append_background(maps[-1])]
        expected += [up(m, size=(64, 64), mode="bilinear") for m in [*maps[-2::-1], edges]]
        expected += [own[stage] for stage in network.distilled]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
        network.deep_supervision = False
        torch.testing.assert_close(network(x), expected[0])


def test_prediction_asks_for_no_edges_that_nothing_needs(make: Any) -> None:
    asked = []
    for name, wanted in (("AllInOneEdgeTrainer", 0), ("AllInOneInfNetTrainer", 1)):
        network = make(name).network
        network.inf_net.edge_attention.register_forward_hook(lambda *_, name=name: asked.append(name))
        network.deep_supervision = False
        network(torch.randn(1, 1, 64, 64))
        assert asked.count(name) == wanted


@pytest.mark.parametrize(
    ("kind", "plans"),
    [
        ("AllInOneTrainer", {"strides": [[s, s] for s in (1, 2, 2, 2, 1, 2, 2)]}),
        (type("Enlarged", (trainers.AllInOnePretrainedTrainer,), {"enlargement": 2}), {}),
    ],
    ids=["a stage without a stride", "timm, enlarged"],
)
def test_the_loss_knows_how_many_maps_the_network_gives(make: Any, kind: Any, plans: dict[str, Any]) -> None:
    trainer = make(kind, **plans)
    network = trainer.network
    maps, _ = network.inf_net.read([torch.randn(2, c, s, s) for c, s in _sizes(network)])
    assert trainer.number_of_maps == len(maps)
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])


def _sizes(network: Any) -> list[tuple[int, int]]:
    """Channels and side of each feature that Inf-Net's parts read."""
    seen: list[tuple[int, int]] = []
    read = network.inf_net.read
    network.inf_net.read = lambda features, **kw: (
        seen.extend((f.shape[1], f.shape[2]) for f in features),
        read(features, **kw),
    )[1]
    network(torch.randn(2, 1, 64, 64))
    network.inf_net.read = read
    return seen


@pytest.mark.parametrize("given", [False, True])
def test_a_general_encoder_with_weights_of_its_own_keeps_them(make: Any, tmp_path: Path, *, given: bool) -> None:
    encoder = make("AllInOnePretrainedTrainer").network.encoder
    for parameter in encoder.parameters():
        torch.nn.init.constant_(parameter, 0.25)
    torch.save(
        {"network_weights": {f"encoder.{key}": value for key, value in encoder.state_dict().items()}},
        tmp_path / "other.pth",
    )
    imagenet = {key: torch.full_like(value, 0.5) for key, value in encoder.model.state_dict().items()}
    torch.save(imagenet, tmp_path / "imagenet.pth")
    settings = {"general_weights": str(tmp_path / "other.pth") if given else None}
    kind = type("Kept", (trainers.AllInOnePretrainedTrainer,), settings)
    trainer = make(kind, weights=str(tmp_path / "imagenet.pth"))
    found = next(trainer.network.general_encoder.parameters())
    assert torch.all(next(trainer.network.encoder.parameters()) == 0.5)
    assert torch.all(found == (0.25 if given else 0.5))


@pytest.mark.parametrize("name", ["AllInOneTrainer", "AllInOnePretrainedNoGeneralTrainer"])
@pytest.mark.parametrize("labels", [None, REGIONS], ids=["label maps", "regions and ignore label"])
def test_a_step_is_finite_and_moves_everything(make: Any, name: str, labels: dict[str, Any] | None) -> None:
    trainer = make(name, labels)
    before = {key: p.detach().clone() for key, p in trainer.network.named_parameters()}
    result = trainer.train_step(batch(trainer, labels=4 if labels else 2))
    assert np.isfinite(result["loss"])
    assert ("general_relation" in result) == trainer.general_encoder
    same = [key for key, p in trainer.network.named_parameters() if torch.equal(p, before[key])]
    assert [key for key in same if not key.startswith("decoder.seg_layers.0")] == []
    trainer.network.eval()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(batch(trainer))["loss"])


def test_a_network_compiles_without_graph_breaks_in_3d(make: Any) -> None:
    """In 2D, planned and timm, ``tests/matrix`` compiles whole trainings."""
    trainer = make("AllInOneTrainer", **IN_3D)
    network, x = trainer.network.eval(), torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        for eager, traced in zip(network(x), compiled(x), strict=True):
            torch.testing.assert_close(traced, eager, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "plans", "said"),
    [
        ("AllInOneEdgeTrainer", {}, {"stages": 3}, "Inf-Net needs at least 4 encoder stages.*switch that part off"),
        ("AllInOneSpatialTrainer", {"kernel": 4}, {}, "kernel = 4, but a kernel must be odd and positive"),
        ("AllInOneDistillationTrainer", {"distillation_exponent": 0.5}, {}, "exponent"),
        ("AllInOnePretrainedTrainer", {}, IN_3D, "works in 2D only: .* the same name without 'Pretrained'"),
        ("AllInOneReverseTrainer", {"enable_deep_supervision": False}, {}, "keep deep supervision on"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    make: Any, name: str, settings: dict[str, Any], plans: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> None:
        made = make(type(name, (getattr(trainers, name),), settings), **plans)
        made.enable_deep_supervision = settings.get("enable_deep_supervision", True)
        made._build_loss()

    with pytest.raises(SystemExit) as stop:
        build()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1


def test_every_row_has_its_twin_on_a_timm_encoder() -> None:
    assert [name.replace("AllInOne", "AllInOnePretrained") for name in ROWS] == ON_TIMM
    for name, twin in zip(ROWS, ON_TIMM, strict=True):
        one, other = getattr(trainers, name), getattr(trainers, twin)
        assert [getattr(one, part) for part in PARTS] == [getattr(other, part) for part in PARTS]
        assert issubclass(other, one)
