"""Runs the paper's own protocols (§4) on a checkpoint and prepared data.

    python -m experiments.protocols --checkpoint=RUN --data_dir=data --output=protocols

Pitch of translations against their sources, by normalised cross-correlation (NCC) and dynamic time
warping (DTW). Line-ups: a judge of timbre is shown a real recording of a domain among translations
into it from all others, and takes one for real. Semantic blending: two segments of each domain,
joined in latents and, to compare, as waveforms, written as sound. Latents of single notes: are they
alike for one pitch on several instruments? Clips are of the test split; the judge learns from the
training split. Results are printed, and written to protocols.json.

It hears with the evaluators of `experiments.evaluate` (extra `evaluate`).
"""

import dataclasses
import json
from pathlib import Path

from absl import flags
from etils import epath

from data_prep import instruments
from experiments import evaluate
from umt_jax import command_line, path_flags, storage, translator
from umt_jax.audio import sound_files
from umt_jax.checkpoints import checkpoint, reading
from umt_jax.data import dataset
from umt_jax.inference import generation_flags

_JUDGE_SOUNDS = 40
"""How many sounds of each domain the judge learns from, at most."""


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("checkpoint", None, "Folder of a training run.", required=True)
    flags.DEFINE_integer("step", None, "Step of the checkpoint. Default: the best one.")
    path_flags.define("data_dir", None, "Folder of its prepared domains.", required=True)
    path_flags.define_output_folder()
    flags.DEFINE_integer("clips", 8, "Clips of each domain, at most.", lower_bound=2)
    instruments.define_soundfont()
    generation_flags.define_sampling()
    flags.DEFINE_bool("overwrite", False, "Replace outputs that exist.")
    generation_flags.define_engine()


def main() -> None:
    """Runs the protocols as the flags say."""
    args = flags.FLAGS
    evaluate.check_extra()
    # What they need is there.
    from experiments.evaluation import judge_music, paper_protocols, timbre

    output = Path(args.output)
    record = output / "protocols.json"
    if record.exists() and not args.overwrite:
        raise FileExistsError(f"{record} exists already. Pass --overwrite, or another --output.")
    command_line.use_compilation_cache()
    config = reading.read_config(args.checkpoint, args.step)
    sampling = generation_flags.sampling(config.sampling)
    if len(config.trained_domains) < 2:
        raise ValueError(f"--checkpoint={args.checkpoint} has one domain: nothing is translated.")
    prepared = dataset.Dataset(args.data_dir, config.trained_domains)
    prepared.check(config)
    clips = paper_protocols.choose_clips(prepared, args.clips)
    model = translator.Translator(
        dataclasses.replace(config, sampling=sampling),
        checkpoint.restore_parameters(args.checkpoint, args.step),
        domains=config.trained_domains,
        engine=args.engine,
        threads=args.threads,
    )
    rate_hz = model.sample_rate_hz
    translations = paper_protocols.translate(
        model, clips, temperature=sampling.temperature, seed=args.seed
    )
    learned = judge_music.prepared(
        prepared, sample_rate_hz=rate_hz, sounds_per_domain=_JUDGE_SOUNDS
    )
    judge = timbre.fit(timbre.examples(learned, rate_hz, seed=args.seed))
    results = {
        "clips": {domain: len(of_domain) for domain, of_domain in clips.items()},
        "pitch": paper_protocols.pitch(clips, translations, rate_hz),
        "line_up": paper_protocols.line_up(clips, translations, judge, rate_hz),
        "latents": paper_protocols.latents_of_notes(model, args.soundfont),
    }
    (output / "blends").mkdir(parents=True, exist_ok=True)
    blends = paper_protocols.blends(model, clips, sampling.temperature, args.seed)
    for name, waveform in blends.items():
        sound_files.write(output / "blends" / f"{name}.wav", waveform, sample_rate_hz=rate_hz)
    text = json.dumps(results, indent=1)
    with storage.whole_file(epath.Path(record)) as incomplete:
        incomplete.write_text(text + "\n")
    command_line.say(*text.split("\n"))
    command_line.say(f"Written: {record}, with the blends in {output / 'blends'}.", error=True)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
