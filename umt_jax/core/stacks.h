// What residual layers in training have in common. Features are kept sample by sample, [T, C], with
// channels padded to whole registers by zeros.

#ifndef UMT_JAX_CORE_STACKS_H_
#define UMT_JAX_CORE_STACKS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "umt_jax/core/blocks.h"

namespace umt {

// Samples of a block: few enough for a second level of cache, and rows of whole tiles.
constexpr int64_t kBlockSamples = 120;

// A matrix as the right side of products, from float32 numbers `get(row, column)`.
template <typename Number, typename Get>
std::vector<float> RightSide(int64_t rows, int64_t columns, const Get& get) {
  std::vector<typename Number::Stored> row_major(rows * columns);
  std::vector<float> row(columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) row[j] = get(i, j);
    for (int64_t j = 0; j < columns; j += kWidth) {
      Number::Write(row_major.data() + i * columns + j, Load(row.data() + j));
    }
  }
  std::vector<float> panels(Steps<Number>(rows) * columns);
  LayOut<Number>(row_major.data(), columns, rows, columns, panels.data());
  return panels;
}

// A convolution's kernel [taps, from, to], whose columns are in `parts` equal parts, and rows of
// taps too; each part and each tap's rows are padded to whole registers.
struct KernelShape {
  int64_t taps, from, to, parts;

  int64_t PaddedFrom() const { return Padded(from); }
  int64_t PaddedPart() const { return Padded(to / parts); }
  int64_t Rows() const { return taps * PaddedFrom(); }
  int64_t Columns() const { return parts * PaddedPart(); }
  int64_t Size() const { return taps * from * to; }

  // Where the number of a padded row and column lies, -1 for padding.
  int64_t Index(int64_t row, int64_t column) const {
    const int64_t tap = row / PaddedFrom(), i = row % PaddedFrom();
    const int64_t part = column / PaddedPart(), j = column % PaddedPart();
    return i < from && j < to / parts ? (tap * from + i) * to + part * (to / parts) + j : -1;
  }
};

template <typename Number>
std::vector<float> RightSide(const KernelShape& shape, const float* kernel) {
  return RightSide<Number>(shape.Rows(), shape.Columns(), [&](int64_t i, int64_t j) {
    const int64_t index = shape.Index(i, j);
    return index < 0 ? 0.f : kernel[index];
  });
}

// The transposed kernel of each tap, one below the other: [taps * to, from].
template <typename Number>
std::vector<float> TransposedRightSide(const KernelShape& shape, const float* kernel) {
  return RightSide<Number>(
      shape.taps * shape.Columns(), shape.PaddedFrom(), [&](int64_t i, int64_t j) {
        const int64_t tap = i / shape.Columns(), column = i % shape.Columns();
        const int64_t index = shape.Index(tap * shape.PaddedFrom() + j, column);
        return index < 0 ? 0.f : kernel[index];
      });
}

// Adds a padded gradient to a kernel's.
inline void AddUnpadded(const KernelShape& shape, const float* padded, float* kernel) {
  for (int64_t i = 0; i < shape.Rows(); ++i) {
    for (int64_t j = 0; j < shape.Columns(); ++j) {
      const int64_t index = shape.Index(i, j);
      if (index >= 0) kernel[index] += padded[i * shape.Columns() + j];
    }
  }
}

// out[columns] += the sum of rows.
inline void AddRowSum(const float* rows, int64_t num_rows, int64_t columns, int64_t stride,
                      float* out) {
  for (int64_t j = 0; j < columns; j += kWidth) {
    Vector sum = Load(out + j);
    for (int64_t m = 0; m < num_rows; ++m) sum += Load(rows + m * stride + j);
    Store(out + j, sum);
  }
}

template <typename Number>
void Write(const float* source, int64_t columns, typename Number::Stored* target) {
  for (int64_t j = 0; j < columns; j += kWidth) Number::Write(target + j, Load(source + j));
}

inline Vector Relu(Vector x) { return x > Vector{} ? x : Vector{}; }

inline void RepeatRow(const std::vector<float>& row, int64_t rows, float* out) {
  for (int64_t m = 0; m < rows; ++m) out = std::copy(row.begin(), row.end(), out);
}

inline void AddRow(const std::vector<float>& row, int64_t rows, float* out) {
  for (int64_t m = 0; m < rows; ++m, out += row.size()) {
    for (size_t j = 0; j < row.size(); j += kWidth) Store(out + j, Load(out + j) + Load(&row[j]));
  }
}

// Pads rows of `columns` to `padded` with zeros.
inline void LoadRows(const float* source, int64_t rows, int64_t columns, int64_t padded,
                     float* target) {
  for (int64_t m = 0; m < rows; ++m, source += columns, target += padded) {
    std::memcpy(target, source, columns * sizeof(float));
    std::memset(target + columns, 0, (padded - columns) * sizeof(float));
  }
}

// Inverse of `LoadRows`.
inline void StoreRows(const float* source, int64_t rows, int64_t columns, int64_t padded,
                      float* target) {
  for (int64_t m = 0; m < rows; ++m, source += padded, target += columns) {
    std::memcpy(target, source, columns * sizeof(float));
  }
}

// What taps read of features [samples][columns], zero outside of the recording: of a block, beside
// each other.
template <typename Number>
class Taps {
 public:
  using Stored = typename Number::Stored;

  // For at most so many taps and columns.
  Taps(int64_t taps, int64_t columns) : room_(kBlockSamples * taps * columns) {}

  // Reads tap i `offsets[i]` samples later.
  Left<Number> Read(const Stored* features, int64_t samples, int64_t columns, int64_t first,
                    int64_t rows, const std::vector<int64_t>& offsets) {
    columns_ = columns;
    rows_ = rows;
    places_.clear();
    Stored* room = room_.data();
    for (const int64_t offset : offsets) {
      const int64_t begin = first + offset, end = begin + rows;
      if (begin >= 0 && end <= samples) {
        places_.push_back(features + begin * columns);
        continue;
      }
      places_.push_back(room);
      for (int64_t t = begin; t < end; ++t, room += columns) {
        if (t >= 0 && t < samples) {
          std::memcpy(room, features + t * columns, columns * sizeof(Stored));
        } else {
          std::memset(room, 0, columns * sizeof(Stored));
        }
      }
    }
    Left<Number> left{{}, 0, columns / Number::kDepth, 1};
    for (const Stored* place : places_) {
      left.parts[left.num_parts++] = (const typename Number::Word*)place;
    }
    return left;
  }

  // Lays what was read out as the left side of outer products, one tap after the other.
  void LayOutAll(float* panels) const {
    for (const Stored* place : places_) {
      panels = LayOut<Number>(place, columns_, rows_, columns_, panels);
    }
  }

  // out[taps * columns][right_columns] += outer products of what `LayOutAll` made.
  void AddOuter(const float* panels, const float* right, int64_t right_columns, float* out) const {
    for (size_t i = 0; i < places_.size(); ++i) {
      AddOuterProducts<Number>(panels, columns_, right, right_columns, rows_, out);
      panels += Steps<Number>(rows_) * columns_;
      out += columns_ * right_columns;
    }
  }

 private:
  std::vector<Stored> room_;
  std::vector<const Stored*> places_;
  int64_t columns_ = 0, rows_ = 0;
};

// The latent frame of each sample, one after the other.
class Frames {
 public:
  Frames(int64_t pool, int64_t first)
      : pool_(pool), frame_(first / pool), left_((frame_ + 1) * pool - first) {}

  int64_t Next() {
    if (left_-- == 0) {
      ++frame_;
      left_ = pool_ - 1;
    }
    return frame_;
  }

 private:
  const int64_t pool_;
  int64_t frame_, left_;
};

// Into how many parts threads divide `count` things.
inline int64_t NumParts(int64_t count, int64_t threads) {
  return std::max<int64_t>(1, std::min(threads, count));
}

// Runs work(begin, end, thread) on parts of `count` things, each by a thread of its own.
template <typename Work>
void InParts(int64_t count, int64_t threads, const Work& work) {
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back(work, count * i / threads, count * (i + 1) / threads, i);
  }
  work(0, count / threads, 0);
  for (std::thread& other : others) other.join();
}

}  // namespace umt

#endif  // UMT_JAX_CORE_STACKS_H_
