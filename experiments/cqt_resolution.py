r"""Measures what a constant-Q transform and back alone lose of time and of pitch, without a model.

    python -m experiments.cqt_resolution --pairs=pairs --domains=Piano,Cello --output=resolution

plays every piece of each domain through the transform and `librosa.griffinlim_cqt`, for each hop
and number of bins per octave, and writes resolution.csv and resolution.png: how far onsets move,
how much longer attacks take, how far the pitch moves, and how much is left of a vibrato, which is
put on the domains of --vibrato first.
"""

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tqdm
from absl import flags
from matplotlib.figure import Figure

from data_prep import midi
from experiments.cqt import resolution, sound
from experiments.evaluation import pieces
from umt_jax import command_line, path_flags, storage
from umt_jax.config import ModelConfig
from umt_jax.model import cqt
from umt_jax.plots import spectrograms
from umt_jax.shapes import Array, Float


@dataclasses.dataclass(frozen=True)
class Row:
    """What one transform loses of one domain; medians over onsets and frames.

    Attributes:
        domain: Its name.
        hop_ms: From one frame to the next, in milliseconds.
        bins_per_octave: Of the transform.
        onset_ms: How far an onset moves, earlier or later.
        attack_ms: How much longer an attack takes, from a fifth to four fifths of its rise.
        pitch_cents: How far the pitch moves, up or down.
        vibrato_left: Share of a vibrato's depth; NaN where there is none.
    """

    domain: str
    hop_ms: float
    bins_per_octave: int
    onset_ms: float
    attack_ms: float
    pitch_cents: float
    vibrato_left: float


PANELS = {
    "onset_ms": "Onsets move by (ms)",
    "attack_ms": "Attacks are longer by (ms)",
    "pitch_cents": "Pitch moves by (cents)",
    "vibrato_left": "Share of a vibrato that is left",
}
"""Fields that are drawn, and the labels of their axes."""


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define(
        "pairs", None, "Folder of <Domain>/<piece>.wav and <piece>.csv.", required=True
    )
    path_flags.define_output_folder()
    flags.DEFINE_list("domains", [], "Which domains; all of --pairs if not given.")
    flags.DEFINE_list("vibrato", ["Cello"], "Domains that a vibrato is put on.")
    flags.DEFINE_list("hops", ["64", "100", "200", "400"], "Hops in samples.")
    flags.DEFINE_list("bins_per_octave", ["12", "24", "48"], "Numbers of bins in an octave.")
    flags.DEFINE_float("cqt_lowest_hz", 65.40639, "Centre of the lowest bin.")
    flags.DEFINE_float("max_s", 8.0, "At most so many seconds of each piece.", lower_bound=4)


def main() -> None:
    """Measures as the flags say."""
    args = flags.FLAGS
    hops, bins = _numbers("hops"), _numbers("bins_per_octave")
    folder = pathlib.Path(args.pairs)
    rate_hz = pieces.file_rate_hz(folder)
    music = pieces.read_pairs(
        folder,
        args.domains or None,
        sample_rate_hz=rate_hz,
        clip_s=args.max_s,
        max_s=args.max_s,
    )
    if not music.notes:
        raise ValueError(f"--pairs={folder} has no notes, by which onsets are found.")
    played = {
        domain: [
            resolution.with_vibrato(waveform, rate_hz) if domain in args.vibrato else waveform
            for waveform in by_piece.values()
        ]
        for domain, by_piece in music.recordings.items()
    }
    notes = [music.notes[piece] for piece in music.recordings[music.domains[0]]]
    transforms = [
        resolution.transform(
            sample_rate_hz=rate_hz,
            hop_samples=hop,
            bins_per_octave=bins_per_octave,
            lowest_hz=args.cqt_lowest_hz,
        )
        for hop in hops
        for bins_per_octave in bins
    ]
    rows = [
        row
        for config in tqdm.tqdm(transforms, desc="Transforming", unit="transform")
        for row in _measure(played, notes, config, args.vibrato)
    ]
    _write(pathlib.Path(args.output), rows)


def _measure(
    played: Mapping[str, Sequence[Float[Array, "_"]]],
    notes: Sequence[Sequence[midi.Note]],
    config: ModelConfig,
    vibrato: Sequence[str],
) -> Iterator[Row]:
    """Yields what a transform loses of each domain's sounds."""
    pool, rate_hz = config.pool_samples, config.sample_rate_hz
    whole = {
        domain: [waveform[: len(waveform) // pool * pool] for waveform in of_domain]
        for domain, of_domain in played.items()
    }
    frames = [
        np.asarray(cqt.scaled(cqt.amplitudes(waveform, config)))
        for of_domain in whole.values()
        for waveform in of_domain
    ]
    onsets_s = [resolution.apart(of_piece) for of_piece in notes]
    trips = iter(sound.griffin_lim(frames, config))
    for domain, sounds in whole.items():
        back = [next(trips) for _ in sounds]
        onset_ms, attack_ms = resolution.lost_in_time(sounds, back, onsets_s, rate_hz)
        pitch_cents, vibrato_left = resolution.lost_in_pitch(sounds, back, notes, rate_hz)
        yield Row(
            domain=domain,
            hop_ms=1000 * pool / rate_hz,
            bins_per_octave=config.cqt_bins_per_octave,
            onset_ms=onset_ms,
            attack_ms=attack_ms,
            pitch_cents=pitch_cents,
            vibrato_left=vibrato_left if domain in vibrato else float("nan"),
        )


def _numbers(name: str) -> list[int]:
    """Returns the whole numbers of a flag.

    Raises:
        ValueError: One is none, or below 1, or there are none.
    """
    values = flags.FLAGS[name].value or []
    try:
        numbers = [int(value) for value in values]
    except ValueError as error:
        raise ValueError(
            f"--{name}={','.join(values)} must be whole numbers with commas between them."
        ) from error
    if not numbers or min(numbers) < 1:
        raise ValueError(f"--{name}={','.join(values)} must be at least 1 each.")
    return numbers


def draw(rows: Sequence[Row]) -> Figure:
    """Draws each measure against the hop, a line for each number of bins, a row for a domain."""
    domains = list(dict.fromkeys(row.domain for row in rows))
    figure = Figure(figsize=(3 * len(PANELS), 2.5 * len(domains) + 0.4), layout="constrained")
    table = figure.subplots(len(domains), len(PANELS), squeeze=False, sharex=True, sharey="col")
    all_bins = sorted({row.bins_per_octave for row in rows})
    for axes_of_row, domain in zip(table, domains, strict=True):
        for axes, (name, label) in zip(axes_of_row, PANELS.items(), strict=True):
            for index, bins in enumerate(all_bins):
                points = sorted(
                    (row.hop_ms, getattr(row, name))
                    for row in rows
                    if (row.domain, row.bins_per_octave) == (domain, bins)
                )
                hops, values = zip(*points, strict=True)
                colour, dashes = spectrograms.look(index)
                axes.plot(
                    hops,
                    values,
                    color=colour,
                    linestyle=dashes,
                    marker="o",
                    markersize=3,
                    label=f"{bins} bins an octave",
                )
            axes.set(title=domain, ylabel=label)
            axes.spines[["top", "right"]].set_visible(False)
            # A domain without a vibrato has nothing there.
            drawn = [getattr(row, name) for row in rows if row.domain == domain]
            axes.set_visible(not np.isnan(drawn).all())
    for axes, name in zip(table[0], PANELS, strict=True):
        everything = [getattr(row, name) for row in rows]
        # Shared by the column, and of all of it.
        axes.set_ylim(1.1 * min(0, np.nanmin(everything)), 1.1 * np.nanmax(everything))
    for axes in table[-1]:
        axes.set_xlabel("Hop (ms)")
    table[0, 0].legend(frameon=False, fontsize="small")
    return figure


def _write(output: pathlib.Path, rows: Sequence[Row]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with storage.whole_file(output / "resolution.csv") as hidden, hidden.open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(Row))
        for row in rows:
            values = dataclasses.astuple(row)
            writer.writerow(
                f"{value:.4g}" if isinstance(value, float) else value for value in values
            )
    with storage.whole_file(output / "resolution.png") as hidden:
        hidden.write_bytes(spectrograms.to_png(draw(rows), dots_per_inch=110))
    command_line.say(f"Written: {output / 'resolution.csv'} and resolution.png.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
