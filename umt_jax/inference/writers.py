"""Writes translations, chunk by chunk, to sound files or to standard output."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from umt_jax import command_line, storage
from umt_jax.audio import pcm, sound_files
from umt_jax.generation import scheduler
from umt_jax.inference import planning

Writer = sound_files.SoundFileWriter | pcm.Writer


class Outputs:
    """Open outputs; the files of a recording appear when its last chunk has been written.

    Attributes:
        failures: What is wrong with each file that could not be written, a sentence each.
    """

    def __init__(
        self,
        jobs: Sequence[planning.Job],
        domains: Sequence[str],
        sample_rate_hz: int,
        standard_output: int | None,
    ) -> None:
        """Opens nothing yet.

        Args:
            jobs: What each recording's outputs are.
            domains: Those of the pieces, in order.
            sample_rate_hz: Of the pieces.
            standard_output: Descriptor of it, if a job writes there.
        """
        self._jobs, self._standard_output = jobs, standard_output
        self._domains, self._sample_rate_hz = domains, sample_rate_hz
        self._writers: dict[int, dict[str, Writer]] = {}
        self.failures: list[str] = []

    def __enter__(self) -> "Outputs":
        """Returns itself."""
        return self

    def write(self, piece: scheduler.Piece) -> None:
        """Appends a piece to its recording's files; drops them all if it ends in an error.

        A file that cannot be written goes into `failures`, and the others are written.

        Raises:
            OSError: The disk is full, or nobody reads standard output any more.
        """
        recording = piece.recording
        if recording not in self._writers:
            self._writers[recording] = {}
            for domain, path in self._jobs[recording].outputs.items():
                with self._failures_noted():
                    self._writers[recording][domain] = self._writer(path).__enter__()
        writers = self._writers[recording]
        for domain, waveform in zip(self._domains, piece.waveforms, strict=True):
            if domain in writers:
                with self._failures_noted():
                    try:
                        writers[domain].write(waveform)
                    except OSError as error:
                        writers.pop(domain).__exit__(type(error), error, None)
                        raise
        if piece.is_last:
            self._close(recording, piece.error)

    def __exit__(self, error_type: object, error: BaseException | None, traceback: object) -> None:
        """Drops what is not complete."""
        for recording in list(self._writers):
            self._close(recording, error)

    def _close(self, recording: int, error: BaseException | None) -> None:
        def close(writer: Writer) -> None:
            with self._failures_noted():
                writer.__exit__(type(error) if error else None, error, None)

        with contextlib.ExitStack() as stack:  # Calls them all, whatever one raises.
            for writer in self._writers.pop(recording).values():
                stack.callback(close, writer)

    @contextlib.contextmanager
    def _failures_noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, BrokenPipeError) or storage.is_of_full_disk(error):
                raise
            self.failures.append(command_line.message(error))

    def _writer(self, path: Path | None) -> Writer:
        if path is None:
            assert self._standard_output is not None
            return pcm.Writer(self._standard_output)
        return sound_files.SoundFileWriter(path, sample_rate_hz=self._sample_rate_hz)
