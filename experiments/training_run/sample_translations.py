"""Translations of validation excerpts, made while a run is being trained."""

import dataclasses

import numpy as np

from experiments.training_run import distributed
from umt_jax.audio import mu_law
from umt_jax.config import Config
from umt_jax.data.dataset import Dataset
from umt_jax.model.networks import NetworkParameters
from umt_jax.shapes import Array, Float
from umt_jax.translator import Translator


@dataclasses.dataclass(frozen=True)
class Translation:
    """One excerpt and what each decoder makes of it.

    Attributes:
        source: Domain of the excerpt, one of those in training.
        waveform: The excerpt, [T].
        latents: Its latents, [F, Z].
        by_domain: Its translation into each domain, its own included, [T].
    """

    source: str
    waveform: Float[np.ndarray, "T"]
    latents: Float[Array, "F Z"]
    by_domain: dict[str, Float[np.ndarray, "T"]]


class Translations:
    """The same excerpt of each domain's validation tracks, translated into every domain."""

    def __init__(self, config: Config, prepared: Dataset, seconds: float) -> None:
        """Reads the excerpts, `seconds` of each (less where the track is shorter); 0 for none."""
        self._config = config
        num_samples = round(seconds * config.model.sample_rate_hz)
        excerpts = prepared.excerpts("validation", num_samples) if num_samples else []
        self._excerpts = [mu_law.decode(codes, config.model.mu_law) for codes in excerpts]

    def make(self, parameters: NetworkParameters) -> list[Translation]:
        """Translates every excerpt into every domain, on the process that writes.

        All must call it, since each may have decoders that the others have not; they get nothing.
        """
        if not self._excerpts:
            return []
        whole = distributed.gather(parameters)
        if not distributed.writes():
            return []
        translator = Translator(self._config, whole)
        translated = translator.translate_many(self._excerpts, num_streams=len(self._excerpts))
        return [
            Translation(
                source=source,
                waveform=excerpt,
                latents=translator.encode(excerpt, translator.sample_rate_hz),
                by_domain=by_domain,
            )
            for source, excerpt, by_domain in zip(
                self._config.trained_domains, self._excerpts, translated, strict=True
            )
        ]
