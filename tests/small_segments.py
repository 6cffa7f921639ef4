"""Latents of a made-up recording, cut into segments, for tests of what comes after."""

import numpy as np

from umt_jax.generation import segments

POOL, WINDOW = 10, 5


def windows(num_frames, num_samples, rng):
    latents = rng.normal(size=(num_frames, 2)).astype(np.float32)
    return latents, [
        (
            latents[start : start + WINDOW],
            min(num_samples - start * POOL, len(latents[start : start + WINDOW]) * POOL),
        )
        for start in range(0, num_frames, WINDOW)
    ]


def cut(encoded, num_segments, *, warm_up_frames=2, fade_samples=6):
    return list(
        segments.cut(
            7,
            encoded,
            num_segments=num_segments,
            warm_up_frames=warm_up_frames,
            fade_samples=fade_samples,
            pool_samples=POOL,
        )
    )
