import json

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


def run_of(workdir, *arguments):
    """Records a run of these flags in a folder, as training does; returns flags that name it."""
    config = config_of(*arguments)
    (workdir / "config.json").write_text(json.dumps(config.to_json()))
    return [f"--workdir={workdir}", "--data_dir=data"]


def test_a_run_of_other_sizes_that_a_preset_s_name_only_labelled_is_resumed(tmp_path):
    (tmp_path / "old.flags").write_text("--preset=demo\n--skip_channels=7\n--num_steps=5\n")
    workdir = run_of(tmp_path, f"--flagfile={tmp_path / 'old.flags'}")
    argv = ["train", "--preset=demo", "--skip_channels=7", "--num_steps=9", *workdir]
    assert initial_state.with_preset(argv) == argv
    # A mistake at one flag does not make it another preset's run.
    assert initial_state.with_preset([*argv, "--seed=3"]) == [*argv, "--seed=3"]
    # Nor does the name of a preset that the run never had.
    assert initial_state.with_preset([*argv, "--preset=paper"]) != [*argv, "--preset=paper"]


def test_a_run_of_a_preset_and_flags_of_its_own_is_resumed_as_that(tmp_path):
    workdir = run_of(tmp_path, "--preset=demo", "--skip_channels=7")
    for more in ([], ["--learning_rate=1"]):
        argv = ["train", "--preset=demo", "--skip_channels=7", *more, *workdir]
        assert initial_state.with_preset(argv) == configs.with_preset(argv) != argv


def test_more_steps_count_from_the_newest_checkpoint(tmp_path):
    with flagsaver.flagsaver(num_steps=8, more_steps=5, workdir=str(tmp_path)):
        assert train_flags.schedule_from_flags(8).num_steps == 13
        with pytest.raises(ValueError, match=r"--more_steps=5 .* has no checkpoint yet"):
            train_flags.schedule_from_flags(None)
    with flagsaver.flagsaver(num_steps=8, more_steps=None):
        assert train_flags.schedule_from_flags(6).num_steps == 8
