// A third way to keep a matrix, beside `Float` and `Bfloat16` of `matrix.h`: in 8 bits.
//
// Each column has its own scale, max |w| / 127, and so does each row that is multiplied with it,
// max |x| / 127. Both are rounded to whole numbers from -127 to 127; their products are summed as
// integers, exactly, and each sum is multiplied with both scales once. So whatever a processor
// does it by gives the same sums, for any number of rows.

#ifndef UMT_JAX_CORE_INT8_H_
#define UMT_JAX_CORE_INT8_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#include "umt_jax/core/decoder.h"
#include "umt_jax/core/matrix.h"

namespace umt {

// Weights of four rows and one column. A panel's weights are followed by two rows of 32-bit words:
// its columns' scales, and what their sums lack where inputs are moved (`kMoved`).
struct Int8 {
  // Four of a row's numbers, in 8 bits each. A row begins with its scale.
  struct Input {
    int32_t bits;
  };
  static constexpr int kDepth = 4;
  int8_t weights[kDepth];
};

constexpr int kInt8Ends = 2;  // Those rows of words.

template <>
inline int Matrix<Int8>::Steps() const {
  return (depth + Int8::kDepth - 1) / Int8::kDepth + kInt8Ends;
}

// How the processor multiplies: whether one instruction adds four products; by how much inputs are
// moved up for it, which on x86 takes unsigned inputs and signed weights; and `AddFour`, which adds
// to each sum the products of four inputs and the four weights of its column.
#if defined(__AVX512VNNI__)

constexpr bool kAddsFour = true;
constexpr int kMoved = 128;
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  const __m512i x = _mm512_set1_epi32(inputs.bits);
  return (Words)_mm512_dpbusd_epi32((__m512i)sums, x, (__m512i)weights);
}

#elif defined(__AVX512BW__)

constexpr bool kAddsFour = false;
constexpr int kMoved = 0;
// Pairs of products are added in 16 bits, which 2 * 127 * 127 fits. One factor is unsigned: the
// inputs' signs are given to the weights.
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  const __m512i x = _mm512_set1_epi32(inputs.bits), w = (__m512i)weights;
  const __m512i signs = _mm512_mask_sub_epi8(w, _mm512_movepi8_mask(x), _mm512_setzero_si512(), w);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(x), signs);
  return sums + (Words)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}

#elif defined(__AVXVNNI__) && !defined(__AVX512F__)

constexpr bool kAddsFour = true;
constexpr int kMoved = 128;
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  const __m256i x = _mm256_set1_epi32(inputs.bits);
  return (Words)_mm256_dpbusd_avx_epi32((__m256i)sums, x, (__m256i)weights);
}

#elif defined(__AVX2__) && !defined(__AVX512F__)

constexpr bool kAddsFour = false;
constexpr int kMoved = 0;
// As with AVX-512 above.
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  const __m256i x = _mm256_set1_epi32(inputs.bits);
  const __m256i signs = _mm256_sign_epi8((__m256i)weights, x);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), signs);
  return sums + (Words)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#elif defined(__ARM_FEATURE_DOTPROD)

constexpr bool kAddsFour = true;
constexpr int kMoved = 0;
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(inputs.bits));
  return (Words)vdotq_s32((int32x4_t)sums, (int8x16_t)weights, x);
}

#else

constexpr bool kAddsFour = false;
constexpr int kMoved = 0;
inline Words AddFour(Words sums, Int8::Input inputs, Words weights) {
  for (int bit = 0; bit < 32; bit += 8) {
    sums += (weights << (24 - bit) >> 24) * (int32_t)(int8_t)(inputs.bits >> bit);
  }
  return sums;
}

#endif

// Rounds kWidth inputs, given what makes 127 * 2^16 of the largest, and writes them in 8 bits.
inline void RoundInputs(Vector inputs, float factor, Int8::Input* to) {
  // By integers: `x * factor + 0.5f` may be rounded once or twice, as the processor has it.
  typedef int8_t Bytes __attribute__((vector_size(kWidth)));
  const Words finer = __builtin_convertvector(inputs * factor, Words);
  const Words whole = ((finer + (1 << 15)) >> 16) + kMoved;
  const Bytes bytes = __builtin_convertvector(whole, Bytes);
  std::memcpy(to, &bytes, sizeof bytes);
}

// The largest absolute value of `depth` numbers, or at least one that can be divided by.
inline float Largest(const float* numbers, int depth) {
  // Of floats without a sign, those are larger whose bits are, as an integer.
  Words most = (Words)Fill(1e-30f);
  const auto compare = [&most](Vector x) {
    const Words size = (Words)x & 0x7fffffff;
    most = size > most ? size : most;
  };
  int i = 0;
  for (; i + kWidth <= depth; i += kWidth) compare(Load(numbers + i));
  for (; i < depth; ++i) compare(Fill(numbers[i]));
  int32_t bits[kWidth];
  std::memcpy(bits, &most, sizeof most);
  int32_t largest_bits = bits[0];
  for (int32_t lane : bits) largest_bits = std::max(largest_bits, lane);
  float largest;
  std::memcpy(&largest, &largest_bits, sizeof largest);
  return largest;
}

// See `Inputs` of `matrix.h`. Rows are rounded each with a scale of its own.
inline const Int8::Input* Inputs(const float* in, int64_t& stride, int64_t rows, int depth,
                                 std::vector<Int8::Input>& rounded) {
  const int64_t words = 1 + (depth + kWidth - 1) / kWidth * kWidth / Int8::kDepth;
  if ((int64_t)rounded.size() < rows * words) rounded.resize(rows * words);
  for (int64_t m = 0; m < rows; ++m) {
    const float* row = in + m * stride;
    Int8::Input* to = rounded.data() + m * words;
    const float largest = Largest(row, depth);
    const float scale = largest / 127.f, factor = 127.f * 65536.f / largest;
    std::memcpy(to++, &scale, sizeof scale);
    int i = 0;
    for (; i + kWidth <= depth; i += kWidth) RoundInputs(Load(row + i), factor, to + i / 4);
    if (i < depth) {
      Vector rest = {};
      std::memcpy(&rest, row + i, sizeof(float) * (depth - i));
      RoundInputs(rest, factor, to + i / 4);
    }
  }
  stride = words;
  return rounded.data();
}

// See `AddBlock` of `matrix.h`. `steps` counts the panel's last two rows as well.
template <int kRows, int kCount>
void AddBlock(const Int8::Input* in, int64_t in_stride, int steps, const Int8* panel, float* out,
              int64_t out_stride, Prefetch prefetch) {
  constexpr int kChains = kRows == 1 ? 2 : 1;
  constexpr int kLines = std::max<int>(1, kCount * kWidth * sizeof(Int8) / kCacheLine);
  steps -= kInt8Ends;
  const Int8 *scales = panel + (int64_t)steps * kPanel, *moved = scales + kPanel;
  auto load = [](const Int8* from) {
    Words words;
    std::memcpy(&words, from, sizeof words);
    return words;
  };
  Words sums[kChains][kRows][kCount] = {};
  auto add = [&](int step, int chain) {
    Words row[kCount];
    for (int r = 0; r < kCount; ++r) row[r] = load(panel + (int64_t)step * kPanel + r * kWidth);
    if (kRows > 1) prefetch.Step<kLines>();
    for (int m = 0; m < kRows; ++m) {
      const Int8::Input inputs = in[m * in_stride + 1 + step];
      for (int r = 0; r < kCount; ++r)
        sums[chain][m][r] = AddFour(sums[chain][m][r], inputs, row[r]);
    }
  };
  int step = 0;
  for (; step + kChains <= steps; step += kChains) {
    for (int chain = 0; chain < kChains; ++chain) add(step + chain, chain);
  }
  for (; step < steps; ++step) add(step, 0);
  for (int m = 0; m < kRows; ++m) {
    float scale;
    std::memcpy(&scale, in + m * in_stride, sizeof scale);
    for (int r = 0; r < kCount; ++r) {
      Words sum = sums[0][m][r];
      for (int chain = 1; chain < kChains; ++chain) sum += sums[chain][m][r];
      if (kMoved > 0) sum += load(moved + r * kWidth);
      const Vector product =
          __builtin_convertvector(sum, Vector) * ((Vector)load(scales + r * kWidth) * scale);
      float* to = out + m * out_stride + r * kWidth;
      Store(to, Load(to) + product);
    }
  }
}

// A decoder's matrices in 8 bits, all but the last: of the shipped model's, rounding that one alone
// changes what is drawn more than rounding all others does.
struct MostlyInt8 : Int8 {};

template <>
struct Decoder<MostlyInt8> : Decoder<Int8> {
  struct Logits : Matrix<Float> {
    void Add(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride,
             Rounded<Int8>& /*rounded*/, Range which) const {
      Rounded<Float> none;
      Matrix<Float>::Add(in, in_stride, rows, out, out_stride, none, which);
    }
  };
  Logits logits;  // Packed behind all others, where `Decoder<Int8>` has its own.

  Decoder(const Int8* weights, const float* biases, const Sizes& sizes)
      : Decoder<Int8>(weights, biases, sizes) {
    const Matrix<Int8>& last = Decoder<Int8>::logits;
    logits = {{(const Float*)last.data, last.depth, last.panels}};
  }
};

}  // namespace umt

#endif  // UMT_JAX_CORE_INT8_H_
