import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.speed import presets
from experiments.training_run import flags as train_flags


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_is_what_training_makes_of_its_flagfile(name):
    flagfile = f"--flagfile={presets.flagfile(name)}"
    domains = ("only",) if name == "nsynth" else ("one", "other")
    with flagsaver.flagsaver():
        flags.FLAGS(["train", flagfile, "--data_dir=data", "--workdir=run"])
        config = train_flags.config_from_flags(
            domains, (), sample_rate_hz=16_000, mu_law="rounded", rms_dbfs=None, base=None
        )
    assert config.preset == name
    assert presets.model(name) == config.model
    assert presets.training(name) == config.training
