"""The one module that nnU-Net's look-up imports (as a top-level module): it hands out the trainers of the package.

It has no class of its own, because nnU-Net drops it from ``sys.modules`` afterwards; it imports nothing until a trainer
is asked for; and it asks for nothing where the package is gone, because an error here would end the look-up in every
later folder.
"""


def __getattr__(name: str) -> type:
    if not name.startswith("_"):
        try:
            import nnunet_covid.trainers as trainers
        except ModuleNotFoundError as e:
            if e.name != "nnunet_covid":
                raise
        else:
            if hasattr(trainers, name):
                return getattr(trainers, name)
            from nnunet_covid.nnunet.trainer_names import end_misspelt_training

            end_misspelt_training(name)
    msg = f"no trainer {name!r}"
    raise AttributeError(msg)
