// Draws codes; `umt_jax/generation/sampling.py` says which.

#ifndef UMT_JAX_CORE_SAMPLING_H_
#define UMT_JAX_CORE_SAMPLING_H_

#include <algorithm>
#include <cfloat>

#include "umt_jax/core/vectors.h"

namespace umt {

constexpr int kLevels = 256;  // Mu-law codes: Q of `sampling.py`, MU + 1 of `mu_law.py`.

// Codes are drawn from the likeliest ones, which have `top_p` of the probability; see sampling.py.
struct Nucleus {
  float temperature, top_p;
};

// Sets the first kLevels of `likelihoods` to what the codes' probabilities are proportional to,
// and returns their sum.
inline float Likelihoods(const float* logits, float temperature, float* likelihoods) {
  Vector maxima = Load(logits), sums = {};
  for (int code = kWidth; code < kLevels; code += kWidth) {
    const Vector x = Load(logits + code);
    maxima = x > maxima ? x : maxima;
  }
  float highest = maxima[0];
  for (int i = 1; i < kWidth; ++i) highest = std::max(highest, maxima[i]);
  const float rate = 1.f / std::max(temperature, FLT_MIN);
  for (int code = 0; code < kLevels; code += kWidth) {
    const Vector x = (Load(logits + code) - highest) * rate;
    // exp(-80) is 2e-35: nothing beside the highest's 1, and not yet too small for float32.
    const Vector y = Exp(x < Fill(-80.f) ? Fill(-80.f) : x);
    Store(likelihoods + code, y);
    sums += y;
  }
  return Sum(sums);
}

// Whether one code is likelier than another; of two that are alike the lower comes first.
inline bool IsLikelier(const float* logits, int one, int other) {
  return logits[one] > logits[other] || (logits[one] == logits[other] && one < other);
}

// Returns the sum of the likelihoods of all codes that are likelier than one.
inline float SumOfLikelier(const float* logits, const float* likelihoods, int than) {
  const Vector logit = Fill(logits[than]);
  Vector sums = {};
  Words codes;
  for (int i = 0; i < kWidth; ++i) codes[i] = i;
  for (int code = 0; code < kLevels; code += kWidth, codes += kWidth) {
    const Vector x = Load(logits + code), y = Load(likelihoods + code);
    const Words is_likelier = (x > logit) | ((x == logit) & (codes < than));
    sums += (Vector)((Words)y & is_likelier);
  }
  return Sum(sums);
}

// Returns the code of the highest score, logit plus perturbation, within the nucleus.
inline int Draw(const float* logits, const float* perturbation, const Nucleus& nucleus) {
  int best = 0;
  float highest = logits[0] + perturbation[0];
  for (int code = 1; code < kLevels; ++code) {
    const float score = logits[code] + perturbation[code];
    if (score > highest) highest = score, best = code;
  }
  if (nucleus.top_p >= 1) return best;
  float likelihoods[kLevels];
  const float bound = nucleus.top_p * Likelihoods(logits, nucleus.temperature, likelihoods);
  for (;;) {
    const float likelier = SumOfLikelier(logits, likelihoods, best);
    // The likeliest of all is inside, however small `top_p` is.
    if (!(likelier > 0 && likelier >= bound)) return best;
    int next = -1;
    for (int code = 0; code < kLevels; ++code) {
      if (!IsLikelier(logits, code, best)) continue;
      const float score = logits[code] + perturbation[code];
      if (next < 0 || score > highest) highest = score, next = code;
    }
    best = next;
  }
}

}  // namespace umt

#endif  // UMT_JAX_CORE_SAMPLING_H_
