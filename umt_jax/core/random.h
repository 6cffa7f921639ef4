// The random numbers of `jax.random`: threefry2x32 (Salmon et al., SC 2011), and what JAX makes of
// its bits.

#ifndef UMT_JAX_CORE_RANDOM_H_
#define UMT_JAX_CORE_RANDOM_H_

#include <cfloat>
#include <cstdint>

#include "umt_jax/core/sampling.h"
#include "umt_jax/core/vectors.h"

namespace umt {

typedef uint32_t Bits __attribute__((vector_size(4 * kWidth)));

template <typename Word>
inline void Threefry(uint32_t key0, uint32_t key1, Word& x0, Word& x1) {
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDA};
  x0 += keys[0];
  x1 += keys[1];
  for (uint32_t round = 0; round < 5; ++round) {
    for (const int rotation : kRotations[round % 2]) {
      x0 += x1;
      x1 = (x1 << rotation) | (x1 >> (32 - rotation));
      x1 ^= x0;
    }
    x0 += keys[(round + 1) % 3];
    x1 += keys[(round + 2) % 3] + (round + 1);
  }
}

// A key of `jax.random.key`, and `jax.random.fold_in`.
struct Key {
  uint32_t words[2];

  static Key Of(uint32_t seed) { return {{0, seed}}; }

  Key FoldIn(uint32_t data) const {
    uint32_t x0 = 0, x1 = data;
    Threefry(words[0], words[1], x0, x1);
    return {{x0, x1}};
  }
};

// scale * `jax.random.gumbel(key, [kLevels])`.
inline void ScaledGumbel(const Key& key, float scale, float* noise) {
  Bits codes;
  for (int i = 0; i < kWidth; ++i) codes[i] = i;
  for (int code = 0; code < kLevels; code += kWidth, codes += kWidth) {
    Bits x0 = {}, x1 = codes;
    Threefry(key.words[0], key.words[1], x0, x1);
    // A uniform number in (0, 1): 23 bits behind the point of a number in [1, 2).
    const Vector uniform = (Vector)(((x0 ^ x1) >> 9) | 0x3f800000) - 1.f;
    const Vector least = Fill(FLT_MIN);
    const Vector gumbel = -Log(-Log(uniform > least ? uniform : least));
    Store(noise + code, gumbel * scale);
  }
}

}  // namespace umt

#endif  // UMT_JAX_CORE_RANDOM_H_
