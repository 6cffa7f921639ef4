/* The translator without Python: plays sound as another instrument, sample by sample.
 *
 * A model is read-only once it is loaded, and may be shared by any number of streams and threads. A
 * stream belongs to one thread at a time. After `umt_stream_new` no function of a stream allocates,
 * locks or calls the system, but for `umt_stream_free`.
 *
 * Samples are mono floats in [-1, 1] at the model's rate. Output sample t is the translation of
 * input sample t.
 */
#ifndef UMT_JAX_CORE_UMT_H_
#define UMT_JAX_CORE_UMT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umt_model umt_model;
typedef struct umt_stream umt_stream;

/* Loads a model file (`python -m umt_jax.export --format=safetensors`) from memory, which may go
 * then. NULL where it is damaged, foreign, of sizes that do not fit, or would need more than
 * `most_bytes` of memory, with one sentence in `error`: nothing was allocated for its arrays. */
umt_model* umt_model_load(const void* file, size_t file_bytes, size_t most_bytes, char* error,
                          size_t error_bytes);
void umt_model_free(umt_model* model);

int umt_model_sample_rate_hz(const umt_model* model);
int umt_model_num_domains(const umt_model* model);
const char* umt_model_domain(const umt_model* model, int domain); /* NULL: there is none. */
/* What the model is played with where nobody says otherwise. */
float umt_model_temperature(const umt_model* model);
float umt_model_top_p(const umt_model* model);
float umt_model_guide_strength(const umt_model* model); /* 0 where it has no guides. */
/* What a whole recording is multiplied with before it is pushed: brings it to the level that the
 * model was trained at; 1 where it was trained at any, and for silence. */
float umt_model_gain(const umt_model* model, const float* samples, int64_t count);

/* A stream of the model's own temperature, top_p and guide_strength, domain 0 and seed 0. NULL: no
 * memory. The model must live as long as it. */
umt_stream* umt_stream_new(const umt_model* model);
void umt_stream_free(umt_stream* stream);

/* Forgets all sound; domain, temperature, top_p, seed and guide_strength stay. */
void umt_stream_reset(umt_stream* stream);
/* Each returns 0, or -1 where the value is not allowed and nothing changes. A new domain
 * begins, without a past, with the next latent frame; the others at once. */
int umt_stream_set_domain(umt_stream* stream, int domain);
int umt_stream_set_seed(umt_stream* stream, uint32_t seed);
int umt_stream_set_temperature(umt_stream* stream, float temperature); /* 0 or more. */
int umt_stream_set_top_p(umt_stream* stream, float top_p);             /* In (0, 1]. */
/* How closely decoders follow their guides: from 0, not at all, which is all that a model without
 * guides is allowed, to 10, where guides are heard alone. Forgets all sound, since the latency is
 * another. */
int umt_stream_set_guide_strength(umt_stream* stream, float guide_strength);

/* Output sample t can be pulled, at the latest, once t + umt_stream_latency samples were pushed. */
int64_t umt_stream_latency(const umt_stream* stream);
/* Takes samples and encodes them; returns how many it took: fewer than `count` where output must be
 * pulled first. What is no finite number counts as 0. */
int64_t umt_stream_push(umt_stream* stream, const float* samples, int64_t count);
/* Generates up to `count` samples; returns how many. */
int64_t umt_stream_pull(umt_stream* stream, float* samples, int64_t count);
/* Says that the recording has ended: pull until it returns 0, and as many samples have come as were
 * pushed. Nothing may be pushed before `umt_stream_reset`. */
void umt_stream_finish(umt_stream* stream);

#ifdef __cplusplus
}
#endif

#endif /* UMT_JAX_CORE_UMT_H_ */
