/* A stream at a host's rate instead of its model's, resampled with speexdsp (BSD licence).
 *
 * As with `umt.h`: mono floats in [-1, 1]; one thread at a time; after `umt_rated_new` no function
 * allocates, locks or calls the system, but for `umt_rated_free`.
 */
#ifndef UMT_JAX_CORE_UMT_RATE_H_
#define UMT_JAX_CORE_UMT_RATE_H_

#include "umt_jax/core/umt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umt_rated umt_rated;

/* Samples that `umt_rated_push` takes at once. */
#define UMT_RATED_BLOCK 256

/* Plays a stream of `model` at `rate_hz`. NULL: no memory, or no rate above 0. The stream must live
 * as long as it. Domain, temperature, top_p and seed are set on the stream. */
umt_rated* umt_rated_new(const umt_model* model, umt_stream* stream, int rate_hz);
void umt_rated_free(umt_rated* rated);

/* What is pulled is the translation of what was pushed so many seconds earlier: what filters hold
 * back. 0 at the model's rate. */
double umt_rated_delay_s(const umt_rated* rated);
/* Output sample t can be pulled, at the latest, once t + umt_rated_latency samples were pushed. */
int64_t umt_rated_latency(const umt_rated* rated);

/* Takes up to UMT_RATED_BLOCK samples, at `rate_hz`, and translates them; returns how many it took:
 * none where output must be pulled first. */
int64_t umt_rated_push(umt_rated* rated, const float* samples, int64_t count);
/* Gives up to `count` samples; returns how many. */
int64_t umt_rated_pull(umt_rated* rated, float* samples, int64_t count);
/* Ends the recording and begins the next, without a past, of which what is pushed from now on is
 * the beginning: the translation of what was pushed so far is pulled first, but for what filters
 * hold back, which comes with what follows. */
void umt_rated_restart(umt_rated* rated);

#ifdef __cplusplus
}
#endif

#endif /* UMT_JAX_CORE_UMT_RATE_H_ */
