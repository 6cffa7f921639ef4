"""Where a run's numbers go: a line of progress, `metrics.jsonl`, TensorBoard."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from tensorboardX import summary

from experiments.training_run import distributed, run_folder, scalars_log
from experiments.training_run.sample_translations import Translation
from umt_jax import storage
from umt_jax.config import Config
from umt_jax.plots import spectrograms


class MetricsLog:
    """Writes `workdir/metrics.jsonl`, `workdir/config.json` and `workdir/tensorboard/`.

    Each line of metrics.jsonl holds `step`, `seconds` (of training so far, over all its parts)
    and what was measured. Losses are in nats. On an object store all of it appears at evaluations.
    """

    def __init__(self, workdir: str, config: Config, first_step: int, num_steps: int) -> None:
        """Opens the files; drops what they say of steps after `first_step`, to be run again."""
        self._config, self._num_steps = config, num_steps
        self._folder = run_folder.RunFolder(workdir, "metrics.jsonl")
        folder = self._folder.local
        _write_whole(folder / "config.json", json.dumps(config.to_json(), indent=1) + "\n")
        self._scalars = scalars_log.ScalarsLog(folder, first_step)
        self._last_time = time.monotonic()
        self._last_step = first_step

    def __enter__(self) -> "MetricsLog":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the files."""
        self._scalars.close()
        self._folder.close()

    def train(self, step: int, history: list[dict[str, Any]], *, learning_rate: float) -> None:
        """Records the mean of the metrics of the steps since the last call."""
        now = time.monotonic()
        num_steps, seconds = step - self._last_step, now - self._last_time
        training = self._config.training
        step_samples = (
            len(self._config.trained_domains) * training.domain_batch * training.segment_samples
        )
        means = self._named("train", _mean(history))
        means["train/samples_per_second"] = num_steps * step_samples / seconds
        means["learning_rate"] = learning_rate
        self._scalars.write(step, means)
        self._last_step, self._last_time = step, now
        seconds_left = (self._num_steps - step) * seconds / num_steps
        logging.info(
            "step %d/%d  reconstruction %.3f nats (%s)%s  %s samples/s  %s left",
            step,
            self._num_steps,
            means["train/reconstruction"],
            self._per_domain("train", means),
            _classifier("train", means),
            f"{means['train/samples_per_second']:,.0f}",
            _clock(seconds_left),
        )

    def evaluate(self, step: int, scores: list[dict[str, Any]]) -> None:
        """Records the mean over validation batches."""
        means = self._named("eval", _mean(scores))
        self._scalars.write(step, means)
        logging.info(
            "step %d  validation: reconstruction %.3f nats (%s)%s",
            step,
            means["eval/reconstruction"],
            self._per_domain("eval", means),
            _classifier("eval", means),
        )
        self._folder.publish()

    def translations(self, step: int, translations: list[Translation]) -> None:
        """Records translations as audio and as log-mel pictures, and the latents between them."""
        model, tensorboard = self._config.model, self._scalars.tensorboard
        rate_hz, frame_rate_hz = model.sample_rate_hz, model.sample_rate_hz / model.pool_samples
        for translation in translations:
            waveforms = {"source": translation.waveform} | {
                f"as_{domain}": waveform for domain, waveform in translation.by_domain.items()
            }
            for name, waveform in waveforms.items():
                audio = summary.audio(f"{translation.source}/{name}", waveform[:, None], rate_hz)
                tensorboard.write(step, audio)
            figure = spectrograms.log_mel_row(
                {translation.source: translation.waveform}
                | {f"as {domain}": wave for domain, wave in translation.by_domain.items()},
                rate_hz,
            )
            tensorboard.draw(step, f"{translation.source}/log_mel", figure)
            lines = spectrograms.latent_lines(
                translation.latents, frame_rate_hz, f"Latents of {translation.source}"
            )
            tensorboard.draw(step, f"{translation.source}/latents", lines)
        tensorboard.flush()
        self._folder.publish()
        # What translating took is no part of the training speed.
        self._last_time = time.monotonic()

    def _named(self, prefix: str, means: dict[str, Any]) -> dict[str, float]:
        """Returns scalars by name, the reconstruction loss for each domain and their mean."""
        per_domain = means["reconstruction"]
        named = {f"{prefix}/{name}": float(np.mean(value)) for name, value in means.items()}
        for domain, value in zip(self._config.trained_domains, per_domain, strict=True):
            named[f"{prefix}/reconstruction/{domain}"] = float(value)
        return named

    def _per_domain(self, prefix: str, means: dict[str, float]) -> str:
        return ", ".join(
            f"{domain} {means[f'{prefix}/reconstruction/{domain}']:.3f}"
            for domain in self._config.trained_domains
        )


class SilentLog:
    """Has the methods of `MetricsLog` and writes nothing: that of all processes but one."""

    def train(self, step: int, history: list[dict[str, Any]], *, learning_rate: float) -> None:
        """Does nothing."""

    def evaluate(self, step: int, scores: list[dict[str, Any]]) -> None:
        """Does nothing."""

    def translations(self, step: int, translations: list[Translation]) -> None:
        """Does nothing."""


def open_log(
    workdir: str, config: Config, first_step: int, num_steps: int
) -> contextlib.AbstractContextManager[MetricsLog | SilentLog]:
    """Returns the log of this process; the arguments are those of `MetricsLog`."""
    if distributed.writes():
        return MetricsLog(workdir, config, first_step, num_steps)
    return contextlib.nullcontext(SilentLog())


def _mean(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean of each metric, in the shape it has."""
    return {name: np.mean([metrics[name] for metrics in history], axis=0) for name in history[0]}


def _classifier(prefix: str, means: dict[str, float]) -> str:
    """Returns what a line of progress says of the classifier, if one is trained."""
    if f"{prefix}/classifier_accuracy" not in means:
        return ""
    loss = means.get(f"{prefix}/classification")
    nats = "" if loss is None else f" {loss:.3f} nats,"
    return f"  classifier{nats} {100 * means[f'{prefix}/classifier_accuracy']:.0f} % right"


def _write_whole(path: Path, text: str) -> None:
    """Writes a file completely or, if interrupted, leaves it as it was before."""
    with storage.whole_file(path) as incomplete:
        incomplete.write_text(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
