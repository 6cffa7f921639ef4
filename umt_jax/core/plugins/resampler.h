// Between the rate of a host and that of a model.

#ifndef UMT_JAX_CORE_PLUGINS_RESAMPLER_H_
#define UMT_JAX_CORE_PLUGINS_RESAMPLER_H_

#include <speex/speex_resampler.h>

#include <algorithm>
#include <cstdint>
#include <vector>

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

  // Appends to `out` what `count` samples give.
  void Process(const float* samples, int64_t count, std::vector<float>& out) {
    if (!state_) {
      out.insert(out.end(), samples, samples + count);
      return;
    }
    while (count > 0) {
      spx_uint32_t taken = (spx_uint32_t)std::min<int64_t>(count, 1 << 16);
      spx_uint32_t given = (spx_uint32_t)((double)taken * to_hz_ / from_hz_ + 16);
      const size_t size = out.size();
      out.resize(size + given);
      speex_resampler_process_float(state_, 0, samples, &taken, out.data() + size, &given);
      out.resize(size + given);
      samples += taken;
      count -= taken;
    }
  }

 private:
  int from_hz_, to_hz_;
  SpeexResamplerState* state_ = nullptr;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_PLUGINS_RESAMPLER_H_
