"""A test per interface of nnU-Net and its libraries that we rely on; a failure names what moved, and who relies on it.

What the source imports, calls, overrides and reads is found in the source (``contract.py``); file layouts, constants
and sentences are written out here.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import contract
import numpy as np
import planned
import pytest
import torch
from contract import Call, Use, moved
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_data_set import TinyDataSet, make_tiny_data_set

import nnunet_covid.trainers as ours
from nnunet_covid.nnunet.preprocess import ENDINGS
from nnunet_covid.semi_supervised.training import LabelledAndPseudo, TrainingMixin
from nnunet_covid.trainers.base import LungInfectionTrainer, TimmWeightsTrainer
from nnunet_covid.trainers.inf_net_timm import InfNetTimmTrainer

REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}
STOCK = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"
USES = sorted(contract.uses(), key=lambda use: (str(use), use.file))
KINDS = [LungInfectionTrainer, TimmWeightsTrainer, InfNetTimmTrainer, TrainingMixin, LabelledAndPseudo]
KINDS += [getattr(ours, name) for name in ours.TRAINERS]
OVERRIDDEN = {
    "__init__", "_build_loss", "_get_deep_supervision_scales", "build_network_architecture", "configure_optimizers",
    "get_dataloaders", "get_tr_and_val_datasets", "get_training_transforms", "initialize", "load_checkpoint",
    "on_train_end", "on_train_epoch_end", "on_train_epoch_start", "on_train_start", "print_to_log_file",
    "set_deep_supervision_enabled", "train_step", "validation_step", "run_training",
    "save_checkpoint",
}  # fmt: skip
"""Methods of nnU-Net's trainer that ours are called in place of."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDataSet:
    return make_tiny_data_set(tmp_path_factory.mktemp("tiny"), labels=REGIONS,
                              regions_class_order=[1, 2])  # fmt: skip


@pytest.fixture
def stock(tiny: TinyDataSet, monkeypatch: pytest.MonkeyPatch) -> Any:
    """nnU-Net's own trainer, ready to train, with its loaders."""
    for name, value in {**tiny.environment(), "nnUNet_n_proc_DA": "0"}.items():
        monkeypatch.setenv(name, value)
    plans = json.loads((tiny.preprocessed / "testPlans.json").read_text())
    plans["continue_training"] = False
    dataset_json = json.loads((tiny.preprocessed / "dataset.json").read_text())
    made = nnUNetTrainer(plans, "2d", 0, dataset_json, torch.device("cpu"))
    made.initialize()
    return made


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use}-{use.file}")
def test_what_is_imported_is_there(use: Use) -> None:
    assert contract.resolve(use) is not None, moved(str(use), "is gone", use.file)


@pytest.mark.parametrize("call", contract.calls(), ids=str)
def test_what_is_called_takes_these_arguments(call: Call) -> None:
    called = contract.resolve(call.use)
    try:
        inspect.signature(called).bind(*[None] * call.positional, **dict.fromkeys(call.named))
    except TypeError as e:
        takes = f"takes {inspect.signature(called)} and not ({call.shape()}): {e}"
        pytest.fail(moved(str(call.use), takes, f"{call.use.file}:{call.line}"))


def test_the_trainer_has_the_methods_that_ours_replace() -> None:
    missing = sorted(name for name in OVERRIDDEN if not hasattr(nnUNetTrainer, name))
    assert not missing, moved(STOCK, f"has no {', '.join(missing)} any more", "trainers/")
    found = {name for kind in KINDS for name in contract.overridden(kind) if issubclass(kind, nnUNetTrainer)}
    assert found <= OVERRIDDEN | {"output_folder", "output_folder_base"}, "name what is overridden in OVERRIDDEN"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_method_that_replaces_one_takes_what_that_one_takes(kind: type) -> None:
    for name in contract.overridden(kind):
        theirs = next(vars(b)[name] for b in kind.__mro__ if b.__module__.split(".")[0] in contract.DISTRIBUTIONS
                      and name in vars(b))  # fmt: skip
        mine = inspect.getattr_static(kind, name)
        if not callable(getattr(kind, name, None)) or kind is LabelledAndPseudo:
            continue
        mine, theirs = (getattr(f, "__func__", f) for f in (mine, theirs))
        wanted = [p for p in inspect.signature(theirs).parameters if p not in ("self", "cls")]
        taken = inspect.signature(mine).parameters
        if any(p.kind is p.VAR_POSITIONAL for p in taken.values()):
            continue
        given = [p for p in taken if p not in ("self", "cls")]
        where = f"{kind.__module__}.{kind.__name__}.{name}({', '.join(given)})"
        assert given == wanted, moved(f"{STOCK}.{name}", f"takes ({', '.join(wanted)})", where)


def test_the_trainer_is_constructed_with_these_names() -> None:
    assert list(inspect.signature(nnUNetTrainer.__init__).parameters)[1:] == [
        "plans", "configuration", "fold", "dataset_json", "device",
    ], moved(f"{STOCK}.__init__", "takes other arguments", "trainers/base.py")  # fmt: skip


def test_what_our_trainers_read_from_themselves_is_there(stock: Any) -> None:
    for kind in KINDS:
        if issubclass(kind, nnUNetTrainer):
            for name, file in contract.attributes_of_self(kind).items():
                assert hasattr(stock, name), moved(STOCK, f"has no attribute '{name}' any more", file)


def check(thing: Any, called: str, *variables: str, but: tuple[str, ...] = ()) -> None:
    for name, files in contract.attributes_of(*variables).items():
        if name not in but:
            where = ", ".join(sorted(files))
            assert hasattr(thing, name), moved(called, f"has no '{name}' any more", where)


def test_plans_configuration_labels_and_predictor_have_what_we_read(stock: Any) -> None:
    handler = "nnunetv2.utilities.plans_handling.plans_handler."
    check(stock.plans_manager, f"{handler}PlansManager", "plans_manager")
    check(stock.configuration_manager, f"{handler}ConfigurationManager", "configuration_manager")
    labels = "nnunetv2.utilities.label_handling.label_handling.LabelManager"
    check(stock.label_manager, labels, "label_manager")
    for name in ("apply_inference_nonlin", "convert_probabilities_to_segmentation"):
        assert hasattr(stock.label_manager, name), moved(labels, f"has no '{name}' any more", "semi_supervised")
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    check(predictor, "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor", "predictor", "_predictor",
          but=("predict", "label_manager", "trainer_name", "list_of_parameters"))  # fmt: skip
    predictor.manual_initialization(
        stock.network, stock.plans_manager, stock.configuration_manager, None, stock.dataset_json, "nnUNetTrainer", (0,)
    )
    check(predictor, "nnunetv2.inference.predict_from_raw_data.nnUNetPredictor", "predictor", "_predictor",
          but=("predict",))  # fmt: skip
    with pytest.raises(KeyError):
        stock.configuration_manager.configuration["previous_stage"]
    assert stock.configuration_manager.previous_stage_name is None


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_planned_network_is_an_encoder_and_a_decoder(dims: int, residual: bool) -> None:
    from nnunet_covid.nnunet.architecture import build_planned_unet

    configuration = PlansManager(planned.plans(dims=dims, residual=residual, stages=4)).get_configuration(
        "2d" if dims == 2 else "3d_fullres"
    )
    unet: Any = build_planned_unet(configuration, 1, 2, deep_supervision=True)
    library = "dynamic_network_architectures.architectures.unet"
    expected = {
        unet.encoder: ["stages", "output_channels", "strides", "kernel_sizes", "conv_op", "norm_op", "norm_op_kwargs",
                       "nonlin", "nonlin_kwargs", "return_skips"],
        unet.decoder: ["deep_supervision", "encoder", "seg_layers", "stages", "transpconvs"],
        unet: ["initialize"],
    }  # fmt: skip
    for part, names in expected.items():
        for name in names:
            what = f"{type(part).__name__} has no '{name}' any more"
            assert hasattr(part, name), moved(library, what, "networks and nnunet/architecture.py")
    image = torch.zeros(1, 1, *[16] * dims)
    sizes = [tuple(m.shape[2:]) for m in unet(image)]
    assert sizes == [(16 // 2**i,) * dims for i in range(3)], moved(library, "orders its maps anew", "all trainers")
    skips = unet.encoder(image)
    assert len(skips) == 4, moved(library, "returns other features", "networks")
    assert all(".seg_layers." in n for n, p in unet.named_parameters() if p.shape[0] == 2 and n.startswith("decoder"))


def test_the_files_of_a_preprocessed_case_have_these_names_and_hold_this(tiny: TinyDataSet) -> None:
    folder = next(p for p in tiny.preprocessed.iterdir() if p.name.startswith("testPlans_"))
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2

    where = "nnunet/preprocess.py and auxiliary_data"
    names = {p.name.removeprefix("case_0") for p in folder.glob("case_0*")}
    assert names == set(ENDINGS), moved("nnunetv2.training.dataloading.nnunet_dataset", f"writes {names}", where)
    assert infer_dataset_class(str(folder)) is nnUNetDatasetBlosc2
    data, seg, previous, properties = nnUNetDatasetBlosc2(str(folder), ["case_0"]).load_case("case_0")
    assert (data.shape, seg.shape, previous) == ((1, 1, 40, 40), (1, 1, 40, 40), None)
    for key in ("spacing", "shape_before_cropping", "bbox_used_for_cropping", "class_locations",
                "shape_after_cropping_and_before_resampling"):  # fmt: skip
        preprocessor = "nnunetv2.preprocessing.preprocessors.default_preprocessor"
        assert key in properties, moved(preprocessor, f"keeps no '{key}'", "nnunet/predictor.py")
    located = set(properties["class_locations"])
    what = f"locates classes as {located}"
    assert located == {(1, 2), 2, (-1, 0, 1, 2)}, moved(preprocessor, what, "semi_supervised/training.py")


def test_a_model_lies_and_looks_like_this(stock: Any, tiny: TinyDataSet, tmp_path: Path) -> None:
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    folder = tiny.root / "nnUNet_results" / tiny.raw.name / "nnUNetTrainer__testPlans__2d"
    assert stock.output_folder == str(folder / "fold_0"), moved(STOCK, "has another folder", "semi_supervised")
    assert get_output_folder(tiny.raw.name, "nnUNetTrainer", "testPlans", "2d", 0) == str(folder / "fold_0")
    stock.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    checkpoint = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    for key in ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes", "logging",
                "current_epoch"):  # fmt: skip
        assert key in checkpoint, moved(
            f"{STOCK}.save_checkpoint", f"writes no '{key}'", "calibration, semi_supervised"
        )
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert "" in checkpoint["network_weights"]._metadata, moved("nnunetv2", "strips metadata of weights", "calibration")
    for key in ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs"):
        assert key in checkpoint["logging"], moved(
            "nnunetv2.training.logging", f"has no key '{key}'", "semi_supervised"
        )


def test_numbers_are_these(stock: Any) -> None:
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    from nnunet_covid.nnunet.written_images import SLICE_SPACING
    from nnunet_covid.raw_dataset.splits import NNUNET_SEED

    expected = {"num_epochs": 1000, "num_iterations_per_epoch": 250, "num_val_iterations_per_epoch": 50,
                "initial_lr": 1e-2, "weight_decay": 3e-5, "oversample_foreground_percent": 0.33}  # fmt: skip
    found = {name: getattr(stock, name) for name in expected}
    assert found == expected, moved(STOCK, f"has {found}", "the documentation's defaults and trainers/on_demand.py")
    source = inspect.getsource(nnUNetTrainer)
    for number, where in (("12345", "raw_dataset/splits.py"), ("clip_grad_norm_(self.network.parameters(), 12)",
                                                               "trainers/collaborative.py")):  # fmt: skip
        assert number in source, moved(STOCK, f"no longer holds {number}", where)
    assert NNUNET_SEED == 12345
    drawn = generate_crossval_split([f"c{i}" for i in range(5)], seed=NNUNET_SEED, n_splits=5)
    assert [fold["val"] for fold in drawn] == [["c0"], ["c4"], ["c3"], ["c1"], ["c2"]], (
        moved("nnunetv2.utilities.crossval_split", f"draws {drawn}", "raw_dataset/splits.py")
    )  # fmt: skip
    assert all(kind.supported_file_endings for kind in LIST_OF_IO_CLASSES)
    (pictures,) = [kind for kind in LIST_OF_IO_CLASSES if ".png" in kind.supported_file_endings]
    assert f"{SLICE_SPACING}, 1, 1" in inspect.getsource(pictures), (
        moved("nnunetv2.imageio.natural_image_reader_writer", "marks pictures otherwise", "nnunet/written_images.py")
    )  # fmt: skip


def test_sentences_that_we_take_apart_are_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    for name in ("Dataset801_A", "Dataset801_B"):
        (tmp_path / name).mkdir()
    with pytest.raises(RuntimeError) as several:
        maybe_convert_to_dataset_name(801)
    where = "nnunetv2.utilities.dataset_name_id_conversion"
    assert str(several.value).startswith("More than one"), moved(where, f"says '{several.value}'", "nnunet/dataset.py")
    with pytest.raises(RuntimeError) as none:
        recursive_find_trainer_class_by_name("NoSuchTrainer")
    where = "nnunetv2.utilities.find_objects"
    assert " in nnunetv2.training" in str(none.value), moved(where, f"says '{none.value}'", "nnunet/predictor.py")


def test_a_batch_holds_images_and_a_target_per_map(stock: Any) -> None:
    """And the loaders ask a data set for nothing but what ours give."""
    stock.on_train_start()
    batch = next(stock.dataloader_train)
    assert set(batch) >= {"data", "target", "keys"}, moved("nnunetv2 loaders", f"give {list(batch)}", "trainers")
    assert isinstance(batch["target"], list)
    assert batch["target"][0].shape[-2:] == batch["data"].shape[-2:]
    assert batch["target"][0].shape[1] == 3, moved(
        "nnunetv2", "puts regions and ignore elsewhere", "nnunet/training.py"
    )
    assert set(np.unique(batch["target"][0])) <= {0, 1}
    assert stock.inference_allowed_mirroring_axes == (0, 1)
    loss = stock.train_step(batch)["loss"]
    assert np.isfinite(loss)
    outputs = stock.validation_step(next(stock.dataloader_val))
    assert set(outputs) >= {"loss", "tp_hard", "fp_hard", "fn_hard"}
