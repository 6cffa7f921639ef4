// Amplitudes to codes and back, as `umt_jax/audio/mu_law.py` has them.

#ifndef UMT_JAX_CORE_MU_LAW_H_
#define UMT_JAX_CORE_MU_LAW_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "umt_jax/core/sampling.h"

namespace umt {

constexpr int kMu = kLevels - 1, kHalfRange = 127, kCentre = 128;

inline int EncodeMuLaw(float amplitude, bool truncated) {
  amplitude = std::clamp(amplitude, -1.f, 1.f);
  const float size = std::log(1 + kMu * std::fabs(amplitude)) / (float)std::log(1.0 + kMu);
  const float level = std::copysign(size, amplitude);
  if (truncated) return (int)((level + 1) / 2 * kMu);
  return (int)std::nearbyint(kHalfRange * level) + kCentre;
}

inline float DecodeMuLaw(int code, bool truncated) {
  double level = code - kCentre;
  level = truncated ? level / kCentre : std::max(level / kHalfRange, -1.0);
  const double size = std::expm1(std::fabs(level) * std::log1p(kMu)) / kMu;
  return (float)std::copysign(size, level);
}

// What both networks read instead of a code; see `layers.scale`.
inline float Scale(int code) { return code / 255.f - 0.5f; }

}  // namespace umt

#endif  // UMT_JAX_CORE_MU_LAW_H_
