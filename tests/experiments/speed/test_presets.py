import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import configs
from experiments.speed import presets
from experiments.training_run import flags as train_flags
from experiments.training_run import initial_state


def config_of(*arguments, domains=("one", "other")):
    """Returns the configuration that a command line of `experiments.train` asks for."""
    argv = ["train", *arguments, "--data_dir=data", "--workdir=run"]
    with flagsaver.flagsaver():
        flags.FLAGS(initial_state.with_preset(argv))
        return train_flags.config_from_flags(
            domains, (), sample_rate_hz=16_000, mu_law="rounded", rms_dbfs=None, base=None
        )


@pytest.mark.parametrize("name", presets.NAMES)
def test_a_preset_is_what_training_makes_of_its_flagfile_and_of_its_name(name):
    domains = ("only",) if name == "nsynth" else ("one", "other")
    config = config_of(f"--flagfile={presets.flagfile(name)}", domains=domains)
    assert config.preset == name
    assert presets.model(name) == config.model
    assert presets.training(name) == config.training
    assert config_of(f"--preset={name}", domains=domains) == config
    assert config_of("--preset", name, domains=domains) == config


def test_flags_override_a_preset_wherever_they_stand():
    given = ["--skip_channels=7", "--noencoder_preactivation", "--learning_rate", "0.5"]
    before, after = config_of(*given, "--preset=nsynth"), config_of("--preset=nsynth", *given)
    assert before == after and after.preset == "nsynth"
    assert after.model.skip_channels == 7 and after.training.learning_rate == 0.5
    assert presets.model("nsynth").encoder_preactivation
    assert not after.model.encoder_preactivation
    assert after.model.residual_channels == presets.model("nsynth").residual_channels


def test_presets_are_found_from_any_folder_and_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_of("--preset=demo").model == presets.model("demo")
    with pytest.raises(ValueError, match=r"no preset 'dmo'. There are: demo, .*, paper\."):
        config_of("--preset=dmo")
    with pytest.raises(ValueError, match=r"demo.flags is not there.*: --preset=demo\. There"):
        config_of("--flagfile=experiments/configs/demo.flags")
    assert "demo" in configs.NAMES


def test_in_a_flagfile_a_preset_is_a_name_alone(tmp_path):
    (tmp_path / "mine.flags").write_text("--preset=mine\n--skip_channels=7\n")
    config = config_of(f"--flagfile={tmp_path / 'mine.flags'}")
    assert config.preset == "mine" and config.model.skip_channels == 7
    (tmp_path / "mine.flags").write_text("--preset=demo\n--skip_channels=7\n")
    config = config_of(f"--flagfile={tmp_path / 'mine.flags'}")
    assert config.preset == "demo" and config.model.encoder_channels == 128


def test_a_run_whose_preset_was_a_name_alone_is_resumed_by_the_same_words(trained_dir, run_config):
    argv = ["train", "--preset=small", "--num_steps=9", f"--workdir={trained_dir}"]
    assert run_config.preset == "small" and initial_state.with_preset(argv) == argv
    with pytest.raises(ValueError, match="no preset 'smaller'"):
        initial_state.with_preset([*argv, "--preset=smaller"])
