// Products of a few rows with matrices that are larger than the cache.
//
// Every matrix is cut into panels of kPanel columns, each stored row by row, so that weights are
// read once, in order.

#ifndef UMT_JAX_CORE_MATRIX_H_
#define UMT_JAX_CORE_MATRIX_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "umt_jax/core/vectors.h"

namespace umt {

// How a matrix is kept: each step of a product takes one `Input` of every row, and as many weights
// of a panel as it has columns.

struct Float {
  using Input = float;
  static constexpr int kDepth = 1;  // Rows of the matrix that one step takes.
  float weight;
};

#if defined(__AVX512BF16__)

// Weights of two rows and one column. What they are multiplied with is rounded as well: the
// processor adds both products in one instruction, which is twice the rate of float32.
struct Bfloat16 {
  using Input = int32_t;
  static constexpr int kDepth = 2;
  uint16_t weights[2];
};

#else

struct Bfloat16 {
  using Input = float;
  static constexpr int kDepth = 1;
  uint16_t weight;
};

#endif

// Part of one row of a panel, in registers.
template <int kCount, typename Weight>
inline void LoadRow(const Weight* source, Vector* row) {
  if constexpr (sizeof(Weight) == 4) {
    for (int r = 0; r < kCount; ++r) row[r] = Load((const float*)(source + r * kWidth));
  } else {
    // Each 32-bit word holds one bfloat16 of two registers.
    for (int r = 0; r < kCount; r += 2) {
      Words words;
      std::memcpy(&words, source + r * kWidth, sizeof words);
      row[r] = (Vector)(words << 16);
      row[r + 1] = (Vector)(words & (int32_t)0xffff0000);
    }
  }
}

// Adds an input times part of a row.
template <int kCount>
inline void AddProducts(float input, const Vector* row, Vector* sums) {
  const Vector value = Fill(input);
  for (int r = 0; r < kCount; ++r) sums[r] += value * row[r];
}

// Returns the inputs of a product, and their stride; rounds them into `rounded` where it needs to.
inline const float* Inputs(const float* in, int64_t& /*stride*/, int64_t /*rows*/, int /*depth*/,
                           std::vector<float>& /*rounded*/) {
  return in;
}

#if defined(__AVX512BF16__)

template <int kCount>
inline void AddProducts(int32_t inputs, const Vector* row, Vector* sums) {
  const __m512bh values = (__m512bh)_mm512_set1_epi32(inputs);
  for (int r = 0; r < kCount; ++r) sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)row[r], values);
}

inline const int32_t* Inputs(const float* in, int64_t& stride, int64_t rows, int depth,
                             std::vector<int32_t>& rounded) {
  const int64_t steps = (depth + kWidth - 1) / kWidth * kWidth / 2;
  rounded.resize(rows * steps);
  for (int64_t m = 0; m < rows; ++m) {
    for (int i = 0; i < depth; i += kWidth) {
      const __mmask16 inside = 0xffff >> std::max(0, i + kWidth - depth);
      const __m256bh pairs = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, in + m * stride + i));
      std::memcpy(rounded.data() + m * steps + i / 2, &pairs, sizeof pairs);
    }
  }
  stride = steps;
  return rounded.data();
}

#endif

// Room for the inputs of a product where they are rounded. Allocates only what `Reserve` did not.
template <typename Weight>
using Rounded = std::vector<typename Weight::Input>;

template <typename Weight>
void Reserve(int64_t rows, int depth, Rounded<Weight>& rounded) {
  if (Weight::kDepth > 1) rounded.reserve(rows * (depth + kWidth));
}

// Asks for numbers some time before they are needed, as many at each step.
struct Prefetch {
  const char* next;
  int bytes_per_step;

  template <int kLines>
  void Step() {
    // To be read (0), into the second level of the cache (2): the first holds what is multiplied.
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(next + kCacheLine * line, 0, 2);
    next += bytes_per_step;
  }
};

// out[kRows][kCount registers] += in[kRows][steps] * panel[steps][kCount registers].
template <int kRows, int kCount, typename Weight>
void AddBlock(const typename Weight::Input* in, int64_t in_stride, int steps, const Weight* panel,
              float* out, int64_t out_stride, Prefetch prefetch) {
  // A single row would wait for its own sums: even and odd steps are summed apart.
  constexpr int kChains = kRows == 1 ? 2 : 1;
  constexpr int kLines = std::max<int>(1, kCount * kWidth * sizeof(Weight) / kCacheLine);
  Vector sums[kChains][kRows][kCount] = {};
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) sums[0][m][r] = Load(out + m * out_stride + r * kWidth);
  }
  auto add = [&](int step, int chain) {
    Vector row[kCount];
    LoadRow<kCount>(panel + (int64_t)step * kPanel, row);
    // What a single row reads once, from end to end, the processor itself fetches faster.
    if (kRows > 1) prefetch.Step<kLines>();
    for (int m = 0; m < kRows; ++m) {
      AddProducts<kCount>(in[m * in_stride + step], row, sums[chain][m]);
    }
  };
  int step = 0;
  for (; step + kChains <= steps; step += kChains) {
    for (int chain = 0; chain < kChains; ++chain) add(step + chain, chain);
  }
  for (; step < steps; ++step) add(step, 0);
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) {
      Vector sum = sums[0][m][r];
      for (int chain = 1; chain < kChains; ++chain) sum += sums[chain][m][r];
      Store(out + m * out_stride + r * kWidth, sum);
    }
  }
}

// Is AddBlock for `rows` rows, 1 to kRows.
template <int kRows, typename Weight>
void AddRows(int64_t rows, const typename Weight::Input* in, int64_t in_stride, int steps,
             const Weight* panel, float* out, int64_t out_stride, Prefetch prefetch) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return AddRows<kRows - 1>(rows, in, in_stride, steps, panel, out, out_stride, prefetch);
    }
  }
  AddBlock<kRows, kBlockRegisters>(in, in_stride, steps, panel, out, out_stride, prefetch);
}

// Those of a sequence from `begin` to before `end`: panels, columns or rows.
struct Range {
  int begin, end;

  // The columns that panels of this range have of the first `most`.
  Range Columns(int most) const {
    return {std::min(begin * kPanel, most), std::min(end * kPanel, most)};
  }
};

// A matrix [depth, panels * kPanel] in panels.
template <typename Weight>
struct Matrix {
  const Weight* data;
  int depth, panels;

  int Steps() const { return (depth + Weight::kDepth - 1) / Weight::kDepth; }

  // out[rows] += in[rows] * this. `rounded` is room to work in.
  void Add(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride,
           Rounded<Weight>& rounded) const {
    Add(in, in_stride, rows, out, out_stride, rounded, {0, panels});
  }

  // The same in the columns of some panels alone: each sum is that of the whole product.
  void Add(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride,
           Rounded<Weight>& rounded, Range which) const {
    if (which.begin == which.end) return;
    const auto* inputs = Inputs(in, in_stride, rows, depth, rounded);
    const int steps = Steps();
    const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
    const int passes = blocks * (kRegisters / kBlockRegisters);
    out += which.begin * kPanel;
    for (int p = which.begin; p < which.end; ++p, out += kPanel) {
      const Weight* panel = data + (int64_t)p * steps * kPanel;
      // While one panel is multiplied the next is fetched, be it the next matrix's first.
      Prefetch prefetch{(const char*)(panel + (int64_t)steps * kPanel),
                        kPanel * (int)sizeof(Weight)};
      if (rows == 1) {
        AddBlock<1, kRegisters>(inputs, in_stride, steps, panel, out, out_stride, prefetch);
        continue;
      }
      prefetch.bytes_per_step /= passes;
      for (int r = 0; r < kPanel; r += kBlockRegisters * kWidth) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t begin = rows * block / blocks, end = rows * (block + 1) / blocks;
          AddRows<kBlockRows>(end - begin, inputs + begin * in_stride, in_stride, steps, panel + r,
                              out + begin * out_stride + r, out_stride, prefetch);
          prefetch.next += steps * prefetch.bytes_per_step;
        }
      }
    }
  }
};

inline int Panels(int columns) { return (columns + kPanel - 1) / kPanel; }

// A matrix in panels and what is added to its product, as wide as these.
struct Affine {
  std::vector<float> weights, bias;
  int depth = 0, panels = 0;

  Matrix<Float> Weights() const { return {(const Float*)weights.data(), depth, panels}; }
  int Width() const { return panels * kPanel; }
};

}  // namespace umt

#endif  // UMT_JAX_CORE_MATRIX_H_
