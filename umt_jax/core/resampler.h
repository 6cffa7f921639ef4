// Between the rate of a host and that of a model.

#ifndef UMT_JAX_CORE_RESAMPLER_H_
#define UMT_JAX_CORE_RESAMPLER_H_

#include <speex/speex_resampler.h>

#include <algorithm>
#include <cstdint>

namespace umt {

// From one rate to another, by the Speex project's resampler: late by 0.01 s at 48 kHz, where
// soxr's filters of fixed ratio hold back 0.16 s.
class Resampler {
 public:
  Resampler(int from_hz, int to_hz) : from_hz_(from_hz), to_hz_(to_hz) {
    if (from_hz == to_hz) return;
    constexpr int kQuality = 8;  // Of 0 to 10: errors lie 109 dB below the sound, or more.
    int error = 0;
    state_ = speex_resampler_init(1, (spx_uint32_t)from_hz, (spx_uint32_t)to_hz, kQuality, &error);
  }
  ~Resampler() {
    if (state_) speex_resampler_destroy(state_);
  }
  Resampler(const Resampler&) = delete;
  Resampler& operator=(const Resampler&) = delete;

  bool Works() const { return state_ || from_hz_ == to_hz_; }
  // By how much the sound is late, in seconds.
  double Delay() const {
    return state_ ? (double)speex_resampler_get_input_latency(state_) / from_hz_ : 0;
  }
  // The most that `count` samples give.
  int64_t Most(int64_t count) const { return (int64_t)((double)count * to_hz_ / from_hz_) + 16; }

  // Writes what `count` samples give, and returns how many: `out` has room for the most.
  int64_t Process(const float* samples, int64_t count, float* out) {
    if (!state_) {
      std::copy(samples, samples + count, out);
      return count;
    }
    spx_uint32_t taken = (spx_uint32_t)count, given = (spx_uint32_t)Most(count);
    speex_resampler_process_float(state_, 0, samples, &taken, out, &given);
    return given;
  }

 private:
  int from_hz_, to_hz_;
  SpeexResamplerState* state_ = nullptr;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_RESAMPLER_H_
