r"""Writes a page of short sounds: what a model makes of one held-out piece.

    python -m experiments.listening --pairs=held_out/pairs --piece=foster_jeanie \
        --output=docs/listening

writes `<Domain>.ogg`, the beginning of the piece as recorded in each domain,
`<Source>_to_<Target>.ogg`, its translations, and `README.md`, a table of them all. What is recorded
in the target's domain is the true pair: what a perfect translation would sound like.
"""

import functools
import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import flags

from data_prep import instruments
from experiments.pages import parts
from umt_jax import command_line, path_flags, translator
from umt_jax.audio import sound_files
from umt_jax.checkpoints import demo_model
from umt_jax.inference import generation_flags
from umt_jax.shapes import Waveform


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    generation_flags.define_sampling()
    path_flags.define(
        "pairs", None, "Folder of <Domain>/<piece>.wav (data_prep.render).", required=True
    )
    flags.DEFINE_string("piece", None, "Which piece. Default: the first one by name.")
    path_flags.define_output_folder()
    flags.DEFINE_float("seconds", 10.0, "How much of the piece is played.", lower_bound=0.5)


def main() -> None:
    """Writes sounds and table as the flags say."""
    args = flags.FLAGS
    command_line.use_compilation_cache()
    model = translator.load(demo_model.chosen(), step=args.step)
    sampling = generation_flags.sampling(model.config.sampling)
    translate = functools.partial(
        model.translate,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        guide_strength=sampling.guide_strength,
        seed=args.seed,
    )
    files = recordings(pathlib.Path(args.pairs), args.piece, model.domains)
    rate_hz = model.sample_rate_hz
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    num_samples = round(args.seconds * rate_hz)
    for source, path in files.items():
        waveform = sound_files.read(path, sample_rate_hz=rate_hz)[:num_samples]
        write(output / f"{source}.ogg", waveform, rate_hz)
        for target in model.domains:
            if target != source:
                translation = translate(waveform, rate_hz, domain=target)
                write(output / f"{source}_to_{target}.ogg", translation, rate_hz)
    piece = next(iter(files.values())).stem
    (output / "README.md").write_text(table(piece, model.domains, sys.argv[1:]))
    command_line.say(f"Written: {output / 'README.md'} and the sounds beside it.")


def recordings(
    pairs: pathlib.Path, piece: str | None, domains: Sequence[str]
) -> dict[str, pathlib.Path]:
    """Returns the file of one piece in each domain.

    Args:
        pairs: Folder of `<Domain>/<piece>.wav`.
        piece: Which piece; None for the first one that all domains have.
        domains: The model's.

    Raises:
        FileNotFoundError: There is no such piece in all of them.
    """
    names = [{path.stem for path in (pairs / domain).glob("*.wav")} for domain in domains]
    common = sorted(set.intersection(*names))
    if not common or piece not in [None, *common]:
        available = f"There are: {', '.join(common)}." if common else "There is none."
        raise FileNotFoundError(
            f"--pairs={pairs} has no {piece or 'piece'} in each of {', '.join(domains)}. "
            f"{available}"
        )
    chosen = piece or common[0]
    return {domain: pairs / domain / f"{chosen}.wav" for domain in domains}


def write(path: pathlib.Path, waveform: Waveform, sample_rate_hz: int) -> None:
    """Writes a sound at one level for all."""
    sound_files.write(path, instruments.at_level(waveform), sample_rate_hz=sample_rate_hz)


def table(piece: str, domains: Sequence[str], arguments: Sequence[str]) -> str:
    """Returns the page: a row for each source, a column for each target, a player in each cell.

    Each player has a link above it, for pages that do not show players, as those of repositories.
    """
    return parts.render(
        "listening.md", piece=piece, domains=domains, arguments=shlex.join(arguments)
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
