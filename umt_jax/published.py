r"""Imports the checkpoints of the authors' PyTorch release, so that they run anywhere.

    python -m umt_jax.published --input=checkpoints/pretrained_musicnet --output=runs/published

reads a folder as that release writes it: args.pth, and for each domain lastmodel_0.pth,
lastmodel_1.pth, ... The output is a run of this project at step 0, for umt_jax.infer and for
experiments.train --init_from. Needs PyTorch, any build: pip install torch
"""

import argparse
import math
import pathlib
import pickle
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from umt_jax import command_line, path_flags
from umt_jax.checkpoints import checkpoint, folder_lock, pytorch_arrays, reading
from umt_jax.checkpoints.pytorch_arrays import Arrays
from umt_jax.config import MOST_DOMAINS, Config
from umt_jax.model.networks import NetworkParameters
from umt_jax.training import train_state

MUSICNET_DOMAINS = (
    "Bach_Solo_Cello",
    "Beethoven_Solo_Piano",
    "Cambini_Wind_Quintet",
    "Bach_Solo_Piano",
    "Beethoven_Accompanied_Violin",
    "Beethoven_String_Quartet",
)
"""The published weights' domains, in the order of their files."""

_PATHS = {"Posix": pathlib.PurePosixPath, "Windows": pathlib.PureWindowsPath}
"""What stands here for the paths of either system, which have a file system of theirs there."""

# Missing files that a message names.
_NUM_NAMED = 10

_ENCODER, _DECODER, _CLASSIFIER = "encoder_state", "decoder_state", "discriminator_state"


def read(
    folder: Path, *, which: str = "lastmodel", domain_names: Sequence[str] = ()
) -> tuple[Config, NetworkParameters, int]:
    """Reads a folder of published checkpoints.

    Args:
        folder: Holds args.pth and `which`_0.pth, `which`_1.pth, ...
        which: `lastmodel` or `bestmodel`.
        domain_names: A name for each file. None: those of MusicNet where there are six, otherwise
            those of the folders that the model was trained on.

    Returns:
        The model's configuration, its parameters, and the last epoch of its training.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, asks for more than numbers, or does not fit.
    """
    options, epoch = _read_options(folder / "args.pth")
    paths = _find_files(folder, which, options.get("n_datasets"))
    try:
        config = pytorch_arrays.config_from_options(
            options, _domains(options, domain_names, len(paths))
        )
    except ValueError as error:
        raise ValueError(f"{folder / 'args.pth'}: {error}") from error
    files = [_read_states(path) for path in paths]
    for state, name in ((_ENCODER, "encoder"), (_CLASSIFIER, "classifier")):
        for path, file in zip(paths, files, strict=True):
            _check_same(files[0][state], file[state], f"{name}s of {paths[0].name} and {path.name}")
    try:
        parameters = pytorch_arrays.parameters_from_arrays(
            config,
            encoder=files[0][_ENCODER],
            decoders=[file[_DECODER] for file in files],
            classifier=files[0][_CLASSIFIER],
        )
    except ValueError as error:
        raise ValueError(f"{folder} does not fit its args.pth: {error}") from error
    return config, parameters, epoch


def _read_options(path: Path) -> tuple[dict[str, Any], int]:
    """Returns the options of the run and its last epoch."""
    # Under the names that Python of this version and others writes, of whatever system.
    path_classes = [
        (pure, f"pathlib{module}.{system}Path")
        for system, pure in _PATHS.items()
        for module in ("", "._local")
    ]
    content = _load(path, [argparse.Namespace, *path_classes])
    match content:
        case [argparse.Namespace() as options, int(epoch)]:
            return vars(options), epoch
    raise ValueError(
        f"{path} is not the args.pth of the published code: it holds no [options, epoch]."
    )


def _find_files(folder: Path, which: str, num_domains: Any) -> list[Path]:
    """Returns the files of all domains, in order."""
    pattern = re.compile(rf"{re.escape(which)}_.*\.pth", re.DOTALL)
    there = {path.name for path in folder.iterdir() if pattern.fullmatch(path.name)}
    is_count = isinstance(num_domains, int) and not isinstance(num_domains, bool)
    if not is_count or not 1 <= num_domains <= MOST_DOMAINS:
        raise ValueError(
            f"{folder / 'args.pth'}: n_datasets is {reprlib.repr(num_domains)}, not a number of "
            f"domains, 1 to {MOST_DOMAINS}."
        )
    needed = [f"{which}_{index}.pth" for index in range(num_domains)]
    missing = [name for name in needed if name not in there]
    named = ", ".join(missing[:_NUM_NAMED])
    if len(missing) > _NUM_NAMED:
        named += f" and {len(missing) - _NUM_NAMED} more"
    if missing:
        others = sorted(path.name for path in folder.glob("*.pth") if path.name != "args.pth")
        single = (
            " A run on one machine trains one decoder for all domains, which cannot translate."
            if missing == needed[1:]
            else ""
        )
        raise FileNotFoundError(
            f"{folder} lacks {named}; args.pth says {num_domains} domains, a file for "
            f"each. There are: {', '.join(others) or 'none'}.{single}"
        )
    extra = sorted(there - set(needed))
    if extra:
        raise ValueError(
            f"{folder} has {', '.join(extra)}, but args.pth says {num_domains} domains, a file for "
            f"each: {needed[0]} to {needed[-1]}. Move away what does not belong."
        )
    return [folder / name for name in needed]


def _domains(options: dict[str, Any], names: Sequence[str], count: int) -> Sequence[str]:
    """Returns a name for each domain."""
    if names and len(names) != count:
        raise ValueError(
            f"--domain_names has {len(names)} names ({', '.join(names)}) for {count} domains. Give "
            f"{count}, in the order of the files."
        )
    if names:
        return names
    if count == len(MUSICNET_DOMAINS):
        return MUSICNET_DOMAINS
    folders = [
        folder.name if isinstance(folder, pathlib.PurePath) else Path(folder).name
        for folder in options.get("data") or ()
    ]
    if len(set(folders)) != count:
        raise ValueError(
            f"the folders it was trained on give no {count} names. Name its domains with "
            f"--domain_names={','.join(f'name{index}' for index in range(count))}."
        )
    return folders


def _read_states(path: Path) -> dict[str, Arrays]:
    """Returns the arrays of the three networks."""
    content = _load(path, [])
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no checkpoint of the published code: it holds no dict.")
    states: dict[str, Arrays] = {}
    for name in (_ENCODER, _DECODER, _CLASSIFIER):
        if not isinstance(content.get(name), dict):
            raise ValueError(f"{path} is no checkpoint of the published code: it lacks {name}.")
        states[name] = {key: np.asarray(array) for key, array in content[name].items()}
    return states


def _load(path: Path, classes: list[Any]) -> Any:
    """Reads a file of PyTorch's that may hold numbers, and objects of these classes alone."""
    if not path.is_file():
        raise FileNotFoundError(
            f"--input={path.parent} has no {path.name}, as a folder of the published code would. "
            "Give the folder that it trained in: checkpoints/NAME."
        )
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "Reading the published checkpoints needs PyTorch, any build: pip install torch"
        ) from error
    try:
        # A pickle is a program. This reader runs none but the constructors named here.
        with torch.serialization.safe_globals(classes):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise _damaged(path) from error
        raise ValueError(
            f"{path} wants to run {wanted[1]}, which no checkpoint of the published code does. "
            "Nothing of it was run. Get the file from its source again."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise _damaged(path) from error


def _damaged(path):
    return ValueError(
        f"{path} cannot be read: it is damaged, cut short, or no file of PyTorch's. Get it again."
    )


def _check_same(first: Arrays, other: Arrays, what: str) -> None:
    """Raises `ValueError` if one network was not the same in two files."""
    if first.keys() == other.keys():
        differing = [name for name in first if not np.array_equal(first[name], other[name])]
        if not differing:
            return
        where = f"in {len(differing)} of {len(first)} arrays, {differing[0]} first"
    else:
        where = f"in the arrays they have: {min(first.keys() ^ other.keys())} is in one alone"
    raise ValueError(
        f"The {what} differ {where}. All domains of one model share them. Each bestmodel file is "
        "of an epoch of its own; try --which=lastmodel."
    )


def define_flags() -> None:
    """Declares this command's flags."""
    path_flags.define(
        "input", None, "Folder of the published code's checkpoints, with args.pth.", required=True
    )
    path_flags.define("output", None, "Folder to make: a run of this project.", required=True)
    flags.DEFINE_enum(
        "which", "lastmodel", ["lastmodel", "bestmodel"], "Which of the files to read."
    )
    flags.DEFINE_list(
        "domain_names",
        [],
        "A name for each file, separated by commas. Default: the six of the published weights, "
        "otherwise the folders that the model was trained on.",
    )


def main() -> None:
    """Imports as the flags say."""
    args = flags.FLAGS
    if reading.has_checkpoint(args.output):
        raise FileExistsError(f"--output={args.output} holds a run already. Name another folder.")
    config, parameters, epoch = read(
        Path(args.input), which=args.which, domain_names=args.domain_names
    )
    state = train_state.create(parameters, train_state.make_optimizers(config.training), config)
    with (
        folder_lock.held(args.output, purpose="an import"),
        checkpoint.Checkpoints(args.output) as checkpoints,
    ):
        checkpoints.save(
            state,
            config,
            {"published": {"folder": args.input, "which": args.which, "epoch": epoch}},
            reconstruction=math.inf,
        )
    command_line.say(f"Imported epoch {epoch} with {', '.join(config.domains)} to {args.output}.")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
