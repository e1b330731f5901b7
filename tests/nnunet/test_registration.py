"""The start-up line: written, obeyed by every process, harmless afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from wheel_environment import install_wheel, run_there

from nnunet_covid import startup
from nnunet_covid.errors import UserError


def test_the_folder_is_appended_once_and_others_are_kept() -> None:
    environment: dict[str, str] = {}
    startup.offer_trainers(environment)
    assert environment == {"nnUNet_extTrainer": str(startup.TRAINERS_FOLDER)}
    environment["nnUNet_extTrainer"] = f"/mine{os.pathsep}/theirs"
    startup.offer_trainers(environment)
    startup.offer_trainers(environment)
    assert environment["nnUNet_extTrainer"].split(os.pathsep) == ["/mine", "/theirs", str(startup.TRAINERS_FOLDER)]


def test_registering_twice_is_registering_once_and_can_be_undone(tmp_path: Path) -> None:
    assert not startup.is_registered(tmp_path)
    path = startup.register(tmp_path)
    assert startup.register(tmp_path) == path
    assert startup.is_registered(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text().count("\n") == 1
    assert startup.unregister(tmp_path) == path
    assert startup.unregister(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export nnUNet_extTrainer"):
        startup.register(tmp_path / "missing")


@pytest.fixture(scope="module")
def wheel_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(tmp_path_factory.mktemp("wheel"))


LOOK_UP = """
import multiprocessing
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

def child(name, trainer):
    assert find(name) is trainer, trainer

if __name__ == "__main__":
    trainer = find("InfNetTrainer_3epochs")
    process = multiprocessing.get_context("spawn").Process(target=child, args=("InfNetTrainer_3epochs", trainer))
    process.start(); process.join(); assert process.exitcode == 0
    import nnunet_covid; print("FOUND in", nnunet_covid.__file__)
"""


@pytest.mark.e2e
def test_a_registered_wheel_is_found_by_nnunet_and_its_children(wheel_environment: Path, tmp_path: Path) -> None:
    script = tmp_path / "look_up.py"
    script.write_text(LOOK_UP)
    assert "Could not find requested nnunet trainer" in run_there(wheel_environment, "python", str(script)).stderr

    registered = run_there(wheel_environment, "nnunet-covid", "register")
    assert registered.returncode == 0, registered.stderr
    found = run_there(wheel_environment, "python", str(script))
    assert f"FOUND in {wheel_environment}" in found.stdout, found.stderr

    switched_off = run_there(wheel_environment, "python", str(script), NNUNET_COVID_NO_STARTUP="1")
    assert "Could not find requested nnunet trainer" in switched_off.stderr

    for module in wheel_environment.rglob("site-packages/nnunet_covid/startup.py"):
        module.rename(module.with_suffix(".gone"))
        left_behind = run_there(wheel_environment, "python", "-c", "print('fine')")
        assert (left_behind.stdout, left_behind.stderr) == ("fine\n", "")
        module.with_suffix(".gone").rename(module)


@pytest.mark.e2e
def test_doctor_says_what_to_do_and_then_that_all_is_well(wheel_environment: Path, tmp_path: Path) -> None:
    run_there(wheel_environment, "nnunet-covid", "unregister")
    sick = run_there(wheel_environment, "nnunet-covid", "doctor")
    assert sick.returncode == 1
    for remedy in ("nnunet-covid register", "export nnUNet_raw=", "export nnUNet_results="):
        assert remedy in sick.stdout

    run_there(wheel_environment, "nnunet-covid", "register")
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    missing = run_there(wheel_environment, "nnunet-covid", "doctor", **folders)
    assert missing.returncode == 1
    assert f"mkdir -p {folders['nnUNet_raw']}" in missing.stdout
    for folder in folders.values():
        Path(folder).mkdir()
    well = run_there(wheel_environment, "nnunet-covid", "doctor", **folders)
    assert well.returncode == 0, well.stdout
    assert "All is well" in well.stdout


@pytest.mark.e2e
def test_where_prints_the_folder_and_nothing_else(wheel_environment: Path) -> None:
    printed = run_there(wheel_environment, "nnunet-covid", "where")
    assert [p.name for p in Path(printed.stdout.strip()).glob("*.py")] == ["nnunet_covid_trainers.py"]
