"""Drawing codes from the likeliest ones alone, which cuts off the tail of what a model predicts.

The nucleus of a distribution is the smallest set of likeliest codes that have `top_p` of the
probability together (Holtzman et al., arXiv:1904.09751); the code that reaches `top_p` belongs to
it, and of codes that are as likely the lower comes first.

Nothing is sorted. A code is drawn from all; if those likelier than it have `top_p` of the
probability without it, it lies outside the nucleus, and so does all that is less likely than it:
then the highest score among the others is taken, and so on. Scores are logits plus Gumbel noise, so
what is found is a draw from the nucleus, and most draws are found at the first attempt.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from umt_jax.shapes import Array, Float, Integer, Leaf


class Nucleus(struct.PyTreeNode):
    """The distribution that codes are drawn from.

    Attributes:
        temperature: What logits are divided by before they are made probabilities.
        top_p: Share of the probability that the nucleus reaches.
    """

    temperature: Leaf
    top_p: Leaf


def draw(
    logits: Float[Array, "*B Q"],
    noise: Float[Array, "*B Q"],
    nucleus: Nucleus | None,
    highest: Callable[[Float[Array, "*B Q"]], Integer[Array, "*B 1"]] | None = None,
) -> Integer[Array, "*B 1"]:
    """Returns the code of the nucleus whose logit plus noise is the highest.

    Args:
        logits: Scores of the codes, [*B, Q].
        noise: Gumbel noise times the temperature.
        nucleus: What is drawn from; None for all codes.
        highest: How to find the first of the highest scores; None for `argmax`.
    """
    highest = highest or _argmax
    scores = logits + noise
    if nucleus is None:
        return highest(scores)
    # At temperature 0 all the probability is the likeliest code's.
    temperature = jnp.maximum(nucleus.temperature, np.finfo(np.float32).tiny)
    likelihoods = jnp.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    bound = nucleus.top_p * likelihoods.sum(axis=-1, keepdims=True)
    levels = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)

    def attempt(state):
        scores, codes, _ = state
        logit = jnp.where(levels == codes, logits, 0).sum(axis=-1, keepdims=True)
        is_likelier = (logits > logit) | ((logits == logit) & (levels < codes))
        likelier = jnp.where(is_likelier, likelihoods, 0).sum(axis=-1, keepdims=True)
        # The likeliest of all is inside, however small `top_p` is.
        is_outside = (likelier > 0) & (likelier >= bound)
        scores = jnp.where(is_outside & ~is_likelier, -jnp.inf, scores)
        return scores, highest(scores), is_outside.astype(jnp.float32).max() > 0

    state = scores, highest(scores), jnp.bool_(True)
    return jax.lax.while_loop(lambda state: state[2], attempt, state)[1]


def _argmax(scores):
    return jnp.argmax(scores, axis=-1, keepdims=True).astype(jnp.int32)
