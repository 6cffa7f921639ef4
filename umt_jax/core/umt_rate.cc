// A stream at a host's rate: the C interface `umt_rate.h`.

#include "umt_jax/core/umt_rate.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "umt_jax/core/resampler.h"

struct umt_rated {
  umt_rated(const umt_model* model, umt_stream* stream, int rate_hz)
      : stream(stream),
        model_hz(umt_model_sample_rate_hz(model)),
        rate_hz(rate_hz),
        in(rate_hz, model_hz),
        out(model_hz, rate_hz),
        heard((size_t)in.Most(UMT_RATED_BLOCK)),
        played((size_t)out.Most(UMT_RATED_BLOCK)) {}

  // Samples of a row that is emptied from its front.
  struct Row {
    std::vector<float> samples;
    int64_t begin = 0, end = 0;

    explicit Row(size_t capacity) : samples(capacity) {}
    int64_t Count() const { return end - begin; }
  };

  // Gives the stream what it takes of the samples at its rate.
  void Hear() {
    heard.begin += umt_stream_push(stream, heard.samples.data() + heard.begin, heard.Count());
  }

  // Fills the empty row of samples to be played; false where there are none yet.
  bool Play() {
    float generated[UMT_RATED_BLOCK];
    int64_t count = umt_stream_pull(stream, generated, UMT_RATED_BLOCK);
    if (count == 0 && heard.Count() > 0) {  // It had no room for them before.
      Hear();
      count = umt_stream_pull(stream, generated, UMT_RATED_BLOCK);
    }
    if (count == 0 && is_ending && heard.Count() == 0) {
      if (!is_finished) {
        umt_stream_finish(stream);
        is_finished = true;
        return Play();
      }
      umt_stream_reset(stream);
      is_ending = is_finished = false;
    }
    played.begin = 0;
    played.end = out.Process(generated, count, played.samples.data());
    return count > 0;
  }

  umt_stream* const stream;
  const int model_hz, rate_hz;
  umt::Resampler in, out;
  Row heard, played;  // At the model's rate, on their way in; at the host's, on their way out.
  bool is_ending = false, is_finished = false;
};

umt_rated* umt_rated_new(const umt_model* model, umt_stream* stream, int rate_hz) {
  if (rate_hz <= 0) return nullptr;
  try {
    auto* rated = new umt_rated(model, stream, rate_hz);
    if (rated->in.Works() && rated->out.Works()) return rated;
    delete rated;
  } catch (const std::bad_alloc&) {
  }
  return nullptr;
}

void umt_rated_free(umt_rated* rated) { delete rated; }

double umt_rated_delay_s(const umt_rated* rated) { return rated->in.Delay() + rated->out.Delay(); }

int64_t umt_rated_latency(const umt_rated* rated) {
  const int64_t own = umt_stream_latency(rated->stream);
  if (rated->rate_hz == rated->model_hz) return own;
  // Either resampler may keep part of a sample until the next comes.
  const int64_t kept = 2 * (rated->rate_hz / rated->model_hz + 1);
  return (own * rated->rate_hz + rated->model_hz - 1) / rated->model_hz + kept;
}

int64_t umt_rated_push(umt_rated* rated, const float* samples, int64_t count) {
  if (rated->is_ending) return 0;
  rated->Hear();
  if (rated->heard.Count() > 0) return 0;
  count = std::min<int64_t>(count, UMT_RATED_BLOCK);
  rated->heard.begin = 0;
  rated->heard.end = rated->in.Process(samples, count, rated->heard.samples.data());
  rated->Hear();
  return count;
}

int64_t umt_rated_pull(umt_rated* rated, float* samples, int64_t count) {
  int64_t done = 0;
  while (done < count) {
    umt_rated::Row& played = rated->played;
    // What comes of a block may be less than a sample.
    while (played.Count() == 0) {
      if (!rated->Play()) return done;
    }
    const int64_t taken = std::min(count - done, played.Count());
    std::memcpy(samples + done, played.samples.data() + played.begin,
                (size_t)taken * sizeof(float));
    played.begin += taken;
    done += taken;
  }
  return done;
}

void umt_rated_restart(umt_rated* rated) { rated->is_ending = true; }
