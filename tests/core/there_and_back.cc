// The resampler by itself, for tests: whole recordings.

#include <cstdint>

#include "umt_jax/core/resampler.h"

// Leaves in `out` what a recording gives at another rate; returns how many samples.
extern "C" int64_t resample(const float* samples, int64_t count, int from_hz, int to_hz, float* out,
                            double* delay_s) {
  umt::Resampler resampler(from_hz, to_hz);
  *delay_s = resampler.Delay();
  return resampler.Process(samples, count, out);
}
