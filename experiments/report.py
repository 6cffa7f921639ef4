"""Writes one web page about a run: what it heard, what it made of it, and how it was trained.

    python -m experiments.report --workdir=RUN --translations=DIR --pairs=DIR --output=report.html

The page needs no network and no other file. Translations are `<SourceDomain>/<piece>.<Domain>.wav`,
as `umt_jax.infer --input=PAIRS` names them; sources and true pairs are `<Domain>/<piece>.wav`, as
`data_prep.render` names them. --shipped=DIR, of the same names, holds what the model that ships
with umt_jax made of the same sources, to be heard beside them.
"""

import collections
import json
import pathlib

from absl import flags

from experiments.pages import run_page
from umt_jax import command_line, path_flags
from umt_jax.audio import sound_files
from umt_jax.config import Config, domain_name
from umt_jax.shapes import Waveform


def read_pieces(
    translations: pathlib.Path,
    pairs: pathlib.Path,
    *,
    config: Config,
    seconds: float,
    shipped: pathlib.Path | None = None,
) -> list[run_page.Piece]:
    """Reads the first seconds of every translation, its source, its true pair, and its like.

    Raises:
        FileNotFoundError: There are no translations, or a source or pair is missing.
        ValueError: A translation's name does not say what it was made from, or names a domain that
            the run does not have.
    """

    def read(path: pathlib.Path) -> Waveform:
        rate_hz = config.model.sample_rate_hz
        return sound_files.read(path, sample_rate_hz=rate_hz)[: round(seconds * rate_hz)]

    targets: dict[tuple[str, str], dict[str, pathlib.Path]] = collections.defaultdict(dict)
    for path in sound_files.find_sound_files(translations):
        piece, _, target = path.stem.rpartition(".")
        target = domain_name(target)
        parents = path.relative_to(translations).parts[:-1]
        if not piece or len(parents) != 1:
            raise ValueError(
                f"{path} is not named <SourceDomain>/<piece>.<Domain>.wav. Translate the whole "
                f"folder of pairs: python -m umt_jax.infer --input={pairs} "
                f"--output={translations}, with --checkpoint and --domain."
            )
        if target not in config.domains:
            raise ValueError(
                f"{path} is a translation to {target}, but the run in --workdir has the domains "
                f"{', '.join(config.domains)}."
            )
        targets[parents[0], piece][target] = path
    if not targets:
        raise FileNotFoundError(f"There are no sound files in --translations={translations}.")
    pieces = []
    for (source_domain, name), paths in targets.items():
        made = [domain for domain in config.domains if domain in paths]
        pieces.append(
            run_page.Piece(
                name=name,
                source_domain=source_domain,
                source=read(pairs / source_domain / f"{name}.wav"),
                translations={domain: read(paths[domain]) for domain in made},
                true_pairs={domain: read(pairs / domain / f"{name}.wav") for domain in made},
                shipped={
                    domain: read(shipped / source_domain / paths[domain].name)
                    for domain in made
                    if shipped
                },
            )
        )
    return pieces


def read_run(workdir: pathlib.Path) -> tuple[Config, list[dict[str, float]]]:
    """Returns a run's configuration and the lines of its metrics.jsonl.

    Raises:
        FileNotFoundError: The folder is not that of a run.
        ValueError: A file in it is damaged, or nothing was recorded yet.
    """
    for name in ("config.json", "metrics.jsonl"):
        if not (workdir / name).is_file():
            raise FileNotFoundError(
                f"There is no {name} in --workdir={workdir}. Name the --workdir of a training run."
            )
    try:
        config = Config.from_json(json.loads((workdir / "config.json").read_text()))
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"A .json or .jsonl file in {workdir} is damaged: {error}.") from error
    if not metrics:
        raise ValueError(f"{workdir / 'metrics.jsonl'} is empty: the run has not reported yet.")
    return config, metrics


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define("workdir", None, "Folder of the training run.", required=True)
    path_flags.define(
        "translations", None, "Folder of <SourceDomain>/<piece>.<Domain>.wav.", required=True
    )
    path_flags.define("pairs", None, "Folder of <Domain>/<piece>.wav.", required=True)
    path_flags.define(
        "shipped", None, "Folder of the shipped model's translations, named as --translations."
    )
    path_flags.define("output", None, "The page to write, an .html file.", required=True)
    flags.DEFINE_float(
        "seconds", 60.0, "How many seconds of each piece the page holds.", lower_bound=1
    )


def main() -> None:
    """Writes the page that the flags describe."""
    args = flags.FLAGS
    output = pathlib.Path(args.output)
    if output.suffix != ".html":
        raise ValueError(f"--output={output} must be the name of an .html file.")
    config, metrics = read_run(pathlib.Path(args.workdir))
    pieces = read_pieces(
        pathlib.Path(args.translations),
        pathlib.Path(args.pairs),
        config=config,
        seconds=args.seconds,
        shipped=pathlib.Path(args.shipped) if args.shipped else None,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(run_page.page(config, metrics, pieces), encoding="utf-8")
    megabytes = output.stat().st_size / 1e6
    command_line.say(f"{output}: {len(pieces)} pieces, {megabytes:.1f} MB")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
