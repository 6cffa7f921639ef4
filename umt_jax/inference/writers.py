"""Where the pieces of translations are written: sound files, or standard output."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from umt_jax import translator
from umt_jax.audio import pcm, sound_files
from umt_jax.generation import scheduler
from umt_jax.inference import jobs as places

Writer = sound_files.SoundFileWriter | pcm.Writer


class Outputs:
    """What is being written: the files of a recording appear when its last piece has come."""

    def __init__(
        self,
        jobs: Sequence[places.Job],
        model: translator.Translator,
        standard_output: int | None,
    ) -> None:
        """Opens nothing yet.

        Args:
            jobs: What each recording's outputs are.
            model: What translates; its domains are those of the pieces, in order.
            standard_output: Descriptor of it, if a job writes there.
        """
        self._jobs, self._model, self._standard_output = jobs, model, standard_output
        self._writers: dict[int, dict[str, Writer]] = {}
        self._open: dict[int, contextlib.ExitStack] = {}

    def __enter__(self) -> "Outputs":
        """Returns itself."""
        return self

    def write(self, piece: scheduler.Piece) -> None:
        """Appends a piece to its recording's files; drops them all if it ends in an error."""
        recording = piece.recording
        if recording not in self._open:
            self._open[recording] = contextlib.ExitStack()
            self._writers[recording] = {}
            for domain, path in self._jobs[recording].outputs.items():
                writer = self._writer(path)
                self._open[recording].enter_context(writer)
                self._writers[recording][domain] = writer
        for domain, waveform in zip(self._model.domains, piece.waveforms, strict=True):
            if domain in self._writers[recording]:
                self._writers[recording][domain].write(waveform)
        if piece.is_last:
            del self._writers[recording]
            self._close(recording, piece.error)

    def __exit__(self, error_type: object, error: BaseException | None, traceback: object) -> None:
        """Drops what is not complete."""
        for recording in list(self._open):
            self._close(recording, error)

    def _close(self, recording: int, error: BaseException | None) -> None:
        self._open.pop(recording).__exit__(type(error) if error else None, error, None)

    def _writer(self, path: Path | None) -> Writer:
        if path is None:
            assert self._standard_output is not None
            return pcm.Writer(self._standard_output)
        return sound_files.SoundFileWriter(path, sample_rate_hz=self._model.sample_rate_hz)
