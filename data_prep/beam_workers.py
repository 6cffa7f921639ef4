"""Makes a build's calls on workers of Apache Beam: one pipeline for each series of calls.

What calls need and return passes through files in the data folder, as it may outgrow a pipeline's
description and all workers see that folder. Sound and shards never pass through the pipeline.
"""

import contextlib
import functools
import itertools
import pickle
import shlex
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath

from data_prep.process_workers import RunAll

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError as import_error:
    raise ValueError(
        '--beam_runner needs Apache Beam: pip install "umt_jax[beam]"'
    ) from import_error

_Result = tuple[int, Any]


@contextlib.contextmanager
def run_all_with_beam(runner: str, options: str, data_dir: epath.Path) -> Iterator[RunAll]:
    """Gives the function that makes calls on workers of a runner.

    Args:
        runner: Its name, such as DirectRunner.
        options: Its options, as on a command line.
        data_dir: A folder that all workers see.

    Raises:
        ValueError: There is no such runner.
    """
    try:
        beam_runner = beam.runners.create_runner(runner)
    except (ValueError, ImportError) as error:
        raise ValueError(f"--beam_runner={runner}: {error}") from error
    exchange = data_dir / f".calls-{uuid.uuid4().hex}"
    exchange.mkdir(parents=True, exist_ok=True)
    try:
        flags = shlex.split(options)
        yield functools.partial(
            _run_all, runner=beam_runner, flags=flags, exchange=exchange, serial=itertools.count()
        )
    finally:
        exchange.rmtree(missing_ok=True)


def _run_all(
    calls: Iterable[Callable[[], Any]],
    *,
    runner: Any,
    flags: list[str],
    exchange: epath.Path,
    serial: Iterator[int],
) -> Iterator[Any]:
    number = next(serial)
    calls_path, results_path = exchange / f"calls-{number}", exchange / f"results-{number}"
    calls_path.write_bytes(pickle.dumps(list(calls)))
    with beam.Pipeline(runner=runner, options=PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | "Calls" >> beam.Create([calls_path])
            | "Read" >> beam.FlatMap(_read_calls)
            # Without it, the worker that read the calls would make all of them.
            | "Share" >> beam.Reshuffle()
            | "Make" >> beam.Map(_make_call)
            | "Gather" >> beam.combiners.ToList()
            | "Write" >> beam.Map(_write_results, results_path)
        )
    for _, result in pickle.loads(results_path.read_bytes()):
        if isinstance(result, Exception):
            raise result
        yield result


def _read_calls(path: epath.Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    return enumerate(pickle.loads(path.read_bytes()))


def _make_call(numbered: tuple[int, Callable[[], Any]]) -> _Result:
    """Makes a call; bad input is its result, to be raised where the build was started."""
    index, call = numbered
    try:
        return index, call()
    except (ValueError, OSError) as error:
        return index, error


def _write_results(results: list[_Result], path: epath.Path) -> None:
    path.write_bytes(pickle.dumps(sorted(results, key=lambda result: result[0])))
