import json

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.demo.light_plan import add_light_configuration

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 2,
            "patch_size": [160, 224],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {"n_stages": 3, "features_per_stage": [32, 64, 12], "strides": [1, 2, 2]},
                "_kw_requires_import": [],
            },
        }
    },
}


def test_derived_configuration_has_half_the_features_and_inherits_the_rest(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(PLANS))
    add_light_configuration(path)
    plans = PlansManager(json.loads(path.read_text()))
    half, base = (plans.get_configuration(name) for name in ("2d_light", "2d"))
    assert half.network_arch_init_kwargs["features_per_stage"] == [16, 32, 8]
    assert half.network_arch_init_kwargs["strides"] == [1, 2, 2]
    assert half.patch_size == base.patch_size
    assert half.data_identifier == base.data_identifier
    assert base.network_arch_init_kwargs["features_per_stage"] == [32, 64, 12]


def test_adding_it_twice_changes_nothing(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(PLANS))
    add_light_configuration(path)
    once = path.read_text()
    add_light_configuration(path)
    assert path.read_text() == once
