"""Renders scores into recordings of several instruments: training music and exact pairs.

    python -m data_prep.render --output=demo

writes

    demo/music/<Domain>/<piece>_<excerpt>.wav   training recordings; no two domains share a note
    demo/pairs/<Domain>/<piece>.wav             held-out pieces, the same notes in every domain
    demo/pairs/<piece>.csv                      their notes: onset_s, offset_s, pitch, velocity

Scores are cut into excerpts, which are dealt out to the domains by a hash of their names, so that
training is unpaired. All notes of a score are played by the one instrument of the domain, at the
written pitch: the sound font plays notes beyond a real instrument's range too. Where it is silent,
out of tune or in another octave, `--false_notes` says what happens.
"""

import csv
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import tqdm
from absl import flags

from data_prep import font_check, instruments, midi
from umt_jax import command_line, config, path_flags
from umt_jax.audio import sound_files

# Struck, bowed and blown: easy to tell apart for an ear and for a small model.
DEFAULT_INSTRUMENTS = ("Piano", "Strings", "Flute")

FALSE_NOTES = ("refuse", "leave_out", "play")

_DONE = {"leave_out": "left out", "play": "played all the same"}
_MIN_RECORDINGS = 3  # One each for training, validation and test.
_RECORD = "render.json"


def deal(durations_s: Mapping[str, float], domains: Sequence[str]) -> dict[str, list[str]]:
    """Gives each recording to one domain, so that all domains get about the same minutes.

    In the order of a hash of their names, each goes to the domain that has least so far. So it is
    the same on every machine, and neighbours in a piece are spread over the domains.

    Raises:
        ValueError: A domain gets fewer than three.
    """
    hands: dict[str, list[str]] = {domain: [] for domain in domains}
    seconds = dict.fromkeys(domains, 0.0)
    for name in sorted(durations_s, key=lambda name: hashlib.sha256(name.encode()).digest()):
        domain = min(domains, key=lambda domain: seconds[domain])
        hands[domain].append(name)
        seconds[domain] += durations_s[name]
    if min(map(len, hands.values())) < _MIN_RECORDINGS:
        raise ValueError(
            f"{len(durations_s)} excerpts do not give {len(domains)} domains "
            f"{_MIN_RECORDINGS} each. Add scores, lower --excerpt_s, or name fewer --instruments."
        )
    return {domain: sorted(names) for domain, names in hands.items()}


def choose_held_out(pieces: Mapping[str, Sequence[midi.Note]], names: Sequence[str]) -> list[str]:
    """Returns `names` if all of them are pieces, and the shortest piece if none are given.

    Raises:
        ValueError: There is no such piece, or none would be left.
    """
    names = list(names) or [min(pieces, key=lambda name: (_duration_s(pieces[name]), name))]
    unknown = [name for name in names if name not in pieces]
    if unknown or len(set(names)) == len(pieces):
        raise ValueError(
            f"--held_out={','.join(names)} must name some, not all, of the pieces: "
            f"{', '.join(sorted(pieces))}."
        )
    return names


def _duration_s(notes: Sequence[midi.Note]) -> float:
    return max(note.offset_s for note in notes) - notes[0].onset_s


def plan(
    pieces: Mapping[str, Sequence[midi.Note]],
    *,
    held_out: Sequence[str],
    domains: Sequence[str],
    excerpt_s: float,
) -> dict[str, Sequence[midi.Note]]:
    """Returns what is to be rendered: notes by path below the output folder, without .wav.

    Raises:
        ValueError: There are too few excerpts for so many instruments.
    """
    excerpts = {}
    for name, notes in pieces.items():
        if name not in held_out:
            for number, excerpt in enumerate(midi.cut(list(notes), excerpt_s), start=1):
                excerpts[f"{name}_{number:03d}"] = excerpt
    hands = deal({name: _duration_s(notes) for name, notes in excerpts.items()}, domains)
    recordings: dict[str, Sequence[midi.Note]] = {
        f"music/{domain}/{name}": excerpts[name] for domain in domains for name in hands[domain]
    }
    for name in held_out:
        recordings |= {f"pairs/{domain}/{name}": pieces[name] for domain in domains}
    return recordings


def find_false_keys(
    recordings: Mapping[str, Sequence[midi.Note]], soundfont: pathlib.Path
) -> dict[str, dict[int, float | None]]:
    """Measures the keys of a `plan`: those that a domain is asked for and plays falsely, in cents.

    Domains without such keys are left out. See `font_check.measure`.
    """
    asked: dict[str, set[int]] = {}
    for name, notes in recordings.items():
        asked.setdefault(name.split("/")[1], set()).update(note.pitch for note in notes)
    false = {}
    for domain, keys in asked.items():
        measured = font_check.measure(domain, soundfont, sorted(keys))
        of_domain = {key: cents for key, cents in measured.items() if not font_check.is_true(cents)}
        if of_domain:
            false[domain] = of_domain
    return false


def describe_false_notes(
    recordings: Mapping[str, Sequence[midi.Note]],
    false_keys: Mapping[str, Mapping[int, float | None]],
) -> str:
    """Returns "Saxophone 64 (E4) silent, 3 of 412 notes", and the like for each domain."""
    parts = []
    for domain, measured in false_keys.items():
        pitches = [
            note.pitch
            for name, notes in recordings.items()
            if name.split("/")[1] == domain
            for note in notes
        ]
        num_false = sum(pitch in measured for pitch in pitches)
        parts.append(
            f"{domain} {font_check.describe(measured)}, {num_false:,} of {len(pitches):,} notes"
        )
    return "; ".join(parts)


def leave_out_false_notes(
    recordings: Mapping[str, Sequence[midi.Note]],
    false_keys: Mapping[str, Mapping[int, float | None]],
) -> dict[str, Sequence[midi.Note]]:
    """Returns a `plan` without false notes: in pairs without those of any domain.

    So pairs stay exact. Excerpts of which nothing is left are gone.

    Raises:
        ValueError: Nothing is left of a pair, or too little of a domain.
    """
    of_any = set().union(*false_keys.values())
    kept: dict[str, Sequence[midi.Note]] = {}
    num_excerpts: dict[str, int] = {}
    for name, notes in recordings.items():
        kind, domain, piece = name.split("/")
        left_out = of_any if kind == "pairs" else false_keys.get(domain, {})
        true_notes = [note for note in notes if note.pitch not in left_out]
        if true_notes:
            kept[name] = true_notes
        elif kind == "pairs":
            raise ValueError(
                f"Without false notes nothing is left of {piece}: choose other --instruments, "
                "another --held_out or another --soundfont."
            )
        if kind == "music":
            num_excerpts[domain] = num_excerpts.get(domain, 0) + bool(true_notes)
    for domain, number in num_excerpts.items():
        if number < _MIN_RECORDINGS:
            raise ValueError(
                f"Without false notes {number} excerpts are left to {domain}, which needs "
                f"{_MIN_RECORDINGS}: choose other --instruments or another --soundfont."
            )
    return kept


def clear(output: pathlib.Path, *, overwrite: bool) -> None:
    """Removes what an earlier run wrote to the folder, and nothing else.

    Raises:
        ValueError: There is music or pairs, and it must not or cannot be removed.
    """
    record = output / _RECORD
    written: set[pathlib.Path] = set()
    if record.is_file():
        if not overwrite:
            raise ValueError(f"{output} holds rendered music. Add --overwrite to replace it.")
        written = {output / name for name in json.loads(record.read_text())["files"]}
    for folder in (output / "music", output / "pairs"):
        if any(path.is_file() and path not in written for path in folder.rglob("*")):
            raise ValueError(
                f"{folder} holds files that this command did not write. Give another --output, or "
                "move them away: what lies there would be taken for training music or pairs."
            )
    for path in written:
        path.unlink(missing_ok=True)
    # A folder that stays behind empty would be taken for a domain.
    for folder in {path.parent for path in written if path.parent.is_dir()}:
        if not any(folder.iterdir()):
            folder.rmdir()
    record.unlink(missing_ok=True)


def write_notes(path: pathlib.Path, notes: Sequence[midi.Note]) -> None:
    """Writes a note list as CSV, in seconds from the start of the recording."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(midi.Note._fields)
        for note in midi.from_zero(list(notes)):
            onset_s, offset_s = (time + instruments.LEAD_S for time in note[:2])
            writer.writerow([f"{onset_s:.4f}", f"{offset_s:.4f}", note.pitch, note.velocity])


def render(
    recordings: Mapping[str, Sequence[midi.Note]],
    *,
    output: pathlib.Path,
    soundfont: pathlib.Path,
    sample_rate_hz: int,
) -> dict[str, float]:
    """Writes the recordings of a `plan`, and the notes of its pairs.

    Returns:
        Seconds of training music by domain.
    """
    tables = {f"pairs/{name.split('/')[2]}.csv": name for name in recordings if "pairs/" in name}
    # First of all, so that what an interrupted run leaves can be overwritten.
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "soundfont": soundfont.name,
        "soundfont_sha256": hashlib.sha256(soundfont.read_bytes()).hexdigest(),
        "files": [f"{name}.wav" for name in recordings] + list(tables),
    }
    (output / _RECORD).write_text(json.dumps(record, indent=1) + "\n")

    music_s: dict[str, float] = {}
    for name, notes in tqdm.tqdm(recordings.items(), desc="Rendering", unit="recording"):
        kind, domain, _ = name.split("/")
        waveform = instruments.play(
            notes,
            program=instruments.PROGRAMS[domain],
            soundfont=soundfont,
            sample_rate_hz=sample_rate_hz,
        )
        path = output / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound_files.write(path, waveform, sample_rate_hz=sample_rate_hz)
        if kind == "music":
            music_s[domain] = music_s.get(domain, 0.0) + len(waveform) / sample_rate_hz
    for table, name in tables.items():
        write_notes(output / table, recordings[name])
    return music_s


def define_flags() -> None:
    """Declares this command's flags; the defaults render the demo."""
    path_flags.define("output", None, "Folder to write music/ and pairs/ into.", required=True)
    path_flags.define("scores_dir", str(midi.EMBEDDED), "Folder of MIDI files to render.")
    flags.DEFINE_list(
        "held_out", [], "Pieces (file names without .mid) for pairs; the shortest one if not given."
    )
    flags.DEFINE_list(
        "instruments",
        list(DEFAULT_INSTRUMENTS),
        f"Instruments, one for each domain: {', '.join(instruments.PROGRAMS)}.",
    )
    flags.DEFINE_bool("melody", False, "Play the top line of each score alone.")
    instruments.define_soundfont()
    flags.DEFINE_enum(
        "false_notes",
        "refuse",
        FALSE_NOTES,
        "What to do where the sound font plays notes silently, over 15 cents out of tune or in "
        "another octave: refuse to render, leave_out these notes (in pairs, those of any "
        "instrument, from all), or play them all the same.",
    )
    flags.DEFINE_integer(
        "sample_rate_hz",
        config.ModelConfig().sample_rate_hz,
        "Rate of the recordings in Hz.",
        lower_bound=1000,
        upper_bound=48_000,
    )
    flags.DEFINE_float(
        "excerpt_s", 30.0, "About how many seconds of a score one recording holds.", lower_bound=5
    )
    flags.DEFINE_bool("overwrite", False, "Replace what an earlier run wrote to --output.")


def main() -> None:
    """Renders as the flags say."""
    args = flags.FLAGS
    soundfont = instruments.find_soundfont(args.soundfont)
    domains = instruments.check_names(args.instruments)
    files = midi.find(pathlib.Path(args.scores_dir))
    pieces = {name: midi.read(path) for name, path in files.items()}
    if args.melody:
        pieces = {name: midi.melody(notes) for name, notes in pieces.items()}
    held_out = choose_held_out(pieces, args.held_out)
    recordings = plan(pieces, held_out=held_out, domains=domains, excerpt_s=args.excerpt_s)
    if false_keys := find_false_keys(recordings, soundfont):
        found = describe_false_notes(recordings, false_keys)
        if args.false_notes == "refuse":
            raise ValueError(
                f"{soundfont.name} does not play all notes as they are written: {found}. Choose "
                "other --instruments or another --soundfont, or add --false_notes=leave_out (rests "
                "instead of these notes) or --false_notes=play (as they are)."
            )
        if args.false_notes == "leave_out":
            recordings = leave_out_false_notes(recordings, false_keys)
        command_line.say(f"False notes in {soundfont.name}, {_DONE[args.false_notes]}: {found}.")
    output = pathlib.Path(args.output)
    clear(output, overwrite=args.overwrite)
    music_s = render(
        recordings, output=output, soundfont=soundfont, sample_rate_hz=args.sample_rate_hz
    )
    for domain, seconds in music_s.items():
        count = sum(name.startswith(f"music/{domain}/") for name in recordings)
        command_line.say(f"{output}/music/{domain}: {count} recordings, {seconds / 60:.1f} minutes")
    command_line.say(
        f"{output}/pairs: {', '.join(held_out)}, held out, in all {len(domains)} instruments"
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
