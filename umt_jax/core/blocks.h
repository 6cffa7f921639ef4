// Products of blocks of samples, as training needs them: what is multiplied changes with every
// block, on both sides, and is laid out for the product each time.

#ifndef UMT_JAX_CORE_BLOCKS_H_
#define UMT_JAX_CORE_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "umt_jax/core/matrix.h"
#include "umt_jax/core/vectors.h"

namespace umt {

// How numbers are kept, and enter a product: `Word` is what one step of it takes, the numbers of
// kDepth rows. Sums are float32.

struct Single {
  using Stored = float;
  using Word = float;
  static constexpr int kDepth = 1;

  static Vector Read(const Stored* source) { return Load(source); }
  static void Write(Stored* target, Vector vector) { Store(target, vector); }
  static Vector Join(const Stored* row, const Stored* /*next*/) { return Load(row); }
};

#if defined(__AVX512BF16__)

struct Brain {
  using Stored = uint16_t;
  typedef int32_t __attribute__((may_alias)) Word;
  typedef uint16_t Shorts __attribute__((vector_size(2 * kWidth)));
  static constexpr int kDepth = 2;

  static Words Widen(const Stored* source) {
    Shorts shorts;
    std::memcpy(&shorts, source, sizeof shorts);
    return __builtin_convertvector(shorts, Words);
  }
  static Vector Read(const Stored* source) { return (Vector)(Widen(source) << 16); }
  static void Write(Stored* target, Vector vector) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)vector);
    std::memcpy(target, &rounded, sizeof rounded);
  }
  static Vector Join(const Stored* row, const Stored* next) {
    return (Vector)(next ? Widen(row) | Widen(next) << 16 : Widen(row));
  }
};

#endif

// Columns of a panel: what the sums of a product's inner loop cover.
constexpr int kPanelColumns = kBlockRegisters * kWidth;
// Sums that it keeps in registers, whatever the panel's width.
constexpr int kSums = kBlockRows * kBlockRegisters, kMostRows = 12;

inline int64_t Padded(int64_t columns) { return (columns + kWidth - 1) / kWidth * kWidth; }

// The left side of a product: one array, or several that lie beside each other, equally wide. The
// word of a row and a step lies at row * row_stride + step * step_stride of its array.
template <typename Number>
struct Left {
  static constexpr int kMostParts = 8;
  const typename Number::Word* parts[kMostParts];
  int num_parts;
  int64_t row_stride, step_stride;

  // Rows of words that follow one another, as `numbers` has them, all of a row's in one step each.
  static Left Rows(const typename Number::Stored* numbers, int64_t columns) {
    return {{(const typename Number::Word*)numbers}, 1, columns / Number::kDepth, 1};
  }
};

// out[kRows][kCount registers] += left[kRows][steps] * panel[steps][kCount registers].
template <typename Number, int kRows, int kCount>
void AddTile(const Left<Number>& left, int64_t first_row, int64_t steps, const float* panel,
             float* out, int64_t out_stride) {
  Vector sums[kRows][kCount];
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) sums[m][r] = Load(out + m * out_stride + r * kWidth);
  }
  for (int part = 0; part < left.num_parts; ++part) {
    const typename Number::Word* words = left.parts[part] + first_row * left.row_stride;
    for (int64_t step = 0; step < steps; ++step) {
      Vector row[kCount];
      for (int r = 0; r < kCount; ++r) row[r] = Load(panel + r * kWidth);
      for (int m = 0; m < kRows; ++m) {
        AddProducts<kCount>(words[m * left.row_stride], row, sums[m]);
      }
      panel += kCount * kWidth;
      words += left.step_stride;
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) Store(out + m * out_stride + r * kWidth, sums[m][r]);
  }
}

// Is AddTile for `rows` rows, at most kRows.
template <typename Number, int kRows, int kCount>
void AddSomeRows(int64_t rows, const Left<Number>& left, int64_t first_row, int64_t steps,
                 const float* panel, float* out, int64_t out_stride) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return AddSomeRows<Number, kRows - 1, kCount>(rows, left, first_row, steps, panel, out,
                                                    out_stride);
    }
  }
  AddTile<Number, kRows, kCount>(left, first_row, steps, panel, out, out_stride);
}

template <typename Number, int kCount>
void AddPanel(int64_t rows, const Left<Number>& left, int64_t steps, const float* panel, float* out,
              int64_t out_stride) {
  constexpr int kRows = std::min(kSums / kCount, kMostRows);
  // As even as can be: a tile of few rows waits for its own sums.
  const int64_t tiles = (rows + kRows - 1) / kRows;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
    AddSomeRows<Number, kRows, kCount>(end - begin, left, begin, steps, panel,
                                       out + begin * out_stride, out_stride);
  }
}

// Is AddPanel for a panel of `registers` registers, at most kCount.
template <typename Number, int kCount>
void AddAnyPanel(int registers, int64_t rows, const Left<Number>& left, int64_t steps,
                 const float* panel, float* out, int64_t out_stride) {
  if constexpr (kCount > 1) {
    if (registers < kCount) {
      return AddAnyPanel<Number, kCount - 1>(registers, rows, left, steps, panel, out, out_stride);
    }
  }
  AddPanel<Number, kCount>(rows, left, steps, panel, out, out_stride);
}

// out[rows][columns] += left[rows][parts * steps] * right[parts * steps][columns], whose columns
// are whole registers, in panels one behind the other, each stored step by step.
template <typename Number>
void AddProduct(int64_t rows, const Left<Number>& left, int64_t steps, const float* right,
                int64_t columns, float* out, int64_t out_stride) {
  for (int64_t column = 0; column < columns; column += kPanelColumns) {
    const int64_t width = std::min<int64_t>(columns - column, kPanelColumns);
    AddAnyPanel<Number, kBlockRegisters>((int)(width / kWidth), rows, left, steps, right,
                                         out + column, out_stride);
    right += left.num_parts * steps * width;
  }
}

template <typename Number>
int64_t Steps(int64_t rows) {
  return (rows + Number::kDepth - 1) / Number::kDepth;
}

// Lays rows out as the right side of a product that sums over them; returns the end of `panels`,
// which has Steps(rows) * columns words.
template <typename Number>
float* LayOut(const typename Number::Stored* source, int64_t stride, int64_t rows, int64_t columns,
              float* panels) {
  for (int64_t column = 0; column < columns; column += kPanelColumns) {
    const int64_t width = std::min<int64_t>(columns - column, kPanelColumns);
    for (int64_t m = 0; m < rows; m += Number::kDepth) {
      const typename Number::Stored* row = source + m * stride + column;
      const bool has_next = m + 1 < rows;
      for (int64_t j = 0; j < width; j += kWidth) {
        Store(panels, Number::Join(row + j, has_next ? row + stride + j : nullptr));
        panels += kWidth;
      }
    }
  }
  return panels;
}

// out[a_columns][b_columns] += sum over rows of a[row] times b[row], both laid out by `LayOut`.
template <typename Number>
void AddOuterProducts(const float* a, int64_t a_columns, const float* b, int64_t b_columns,
                      int64_t rows, float* out) {
  const int64_t steps = Steps<Number>(rows);
  for (int64_t column = 0; column < a_columns; column += kPanelColumns) {
    const int64_t width = std::min<int64_t>(a_columns - column, kPanelColumns);
    const Left<Number> left{{(const typename Number::Word*)a}, 1, 1, width};
    AddProduct<Number>(width, left, steps, b, b_columns, out + column * b_columns, b_columns);
    a += steps * width;
  }
}

}  // namespace umt

#endif  // UMT_JAX_CORE_BLOCKS_H_
