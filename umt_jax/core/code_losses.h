// The end of a decoder in training: from its sum of skips to the cross-entropy of each code, and
// back. Numbers are those of `Decoder._head` and `umt_jax.training.losses`.
//
// The logits, four times as wide as all else, live for a block of samples; on the way back they are
// computed once more.

#ifndef UMT_JAX_CORE_CODE_LOSSES_H_
#define UMT_JAX_CORE_CODE_LOSSES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "umt_jax/core/mu_law.h"
#include "umt_jax/core/stacks.h"

namespace umt {

struct HeadShape {
  int64_t items, samples, frames, skips, threads;
};

// Float32.
struct HeadWeights {
  const float* head;                  // [S, S]; its bias is part of what frames add.
  const float *logits, *logits_bias;  // [S, Q], [Q]
};

struct HeadGrads {
  float* skips;   // [B, T, S]
  float* frames;  // [B, F, S]
  float *head, *logits, *logits_bias;
};

template <typename Number>
class CodeLosses {
 public:
  using Stored = typename Number::Stored;

  CodeLosses(const HeadShape& shape, const HeadWeights& weights)
      : s_(shape),
        weights_(weights),
        width_(Padded(shape.skips)),
        head_{1, shape.skips, shape.skips, 1},
        logits_{1, shape.skips, kLevels, 1} {}

  // nats [B, T] of the codes, given the sum of skips and what each frame adds, [B, F, S]; keeps
  // what both products read, [B, T, S], padded.
  void Forward(const float* skips, const float* frames, const int32_t* codes, float* nats,
               Stored* summed, Stored* hidden) const {
    const auto head = RightSide<Number>(head_, weights_.head);
    const auto logits = RightSide<Number>(logits_, weights_.logits);
    const std::vector<float> bias(weights_.logits_bias, weights_.logits_bias + kLevels);
    auto run = [&](int64_t begin, int64_t end, int64_t) {
      std::vector<float> rows_of_width(kBlockSamples * width_), scores(kBlockSamples * kLevels);
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
          const int64_t rows = std::min(kBlockSamples, s_.samples - first);
          const int64_t place = b * s_.samples + first;
          float* x = rows_of_width.data();
          LoadRows(skips + place * s_.skips, rows, s_.skips, width_, x);
          WriteRelu(x, rows, summed + place * width_);
          LoadFrames(frames + b * s_.frames * s_.skips, first, rows, x);
          Multiply(summed + place * width_, width_, rows, head, width_, x);
          WriteRelu(x, rows, hidden + place * width_);
          Score(hidden + place * width_, rows, logits, bias, scores.data());
          for (int64_t m = 0; m < rows; ++m) {
            const float* row = scores.data() + m * kLevels;
            nats[place + m] = LogSum(row) - row[codes[place + m]];
          }
        }
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
  }

  // Adds to the gradients, given those of `nats` and what `Forward` kept.
  void Backward(const float* grads, const int32_t* codes, const Stored* summed,
                const Stored* hidden, const HeadGrads& all) const {
    const auto logits = RightSide<Number>(logits_, weights_.logits);
    const auto head_transposed = TransposedRightSide<Number>(head_, weights_.head);
    const auto logits_transposed = TransposedRightSide<Number>(logits_, weights_.logits);
    const std::vector<float> bias(weights_.logits_bias, weights_.logits_bias + kLevels);
    std::vector<Sums> of_threads(NumParts(s_.items, s_.threads));
    auto run = [&](int64_t begin, int64_t end, int64_t thread) {
      Sums& sums = of_threads[thread] = Sums(width_);
      std::vector<float> scores(kBlockSamples * kLevels), x(kBlockSamples * width_);
      std::vector<float> left_panels(kBlockSamples * width_);
      std::vector<float> right_panels(kBlockSamples * std::max<int64_t>(width_, kLevels));
      std::vector<Stored> rounded(kBlockSamples * std::max<int64_t>(width_, kLevels));
      std::vector<float> of_frames(s_.frames * width_);
      for (int64_t b = begin; b < end; ++b) {
        std::fill(of_frames.begin(), of_frames.end(), 0.f);
        for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
          const int64_t rows = std::min(kBlockSamples, s_.samples - first);
          const int64_t place = b * s_.samples + first;
          const Stored *read = hidden + place * width_, *before = summed + place * width_;
          Score(read, rows, logits, bias, scores.data());
          for (int64_t m = 0; m < rows; ++m) {
            ToGradient(codes[place + m], grads[place + m], scores.data() + m * kLevels);
          }
          AddRowSum(scores.data(), rows, kLevels, kLevels, sums.logits_bias.data());
          Write<Number>(scores.data(), rows * kLevels, rounded.data());
          LayOut<Number>(read, width_, rows, width_, left_panels.data());
          LayOut<Number>(rounded.data(), kLevels, rows, kLevels, right_panels.data());
          AddOuterProducts<Number>(left_panels.data(), width_, right_panels.data(), kLevels, rows,
                                   sums.logits.data());
          std::fill_n(x.begin(), rows * width_, 0.f);
          Multiply(rounded.data(), kLevels, rows, logits_transposed, width_, x.data());
          Mask(read, rows, x.data());
          AddToFrames(x.data(), first, rows, of_frames.data());
          Write<Number>(x.data(), rows * width_, rounded.data());
          LayOut<Number>(before, width_, rows, width_, left_panels.data());
          LayOut<Number>(rounded.data(), width_, rows, width_, right_panels.data());
          AddOuterProducts<Number>(left_panels.data(), width_, right_panels.data(), width_, rows,
                                   sums.head.data());
          std::fill_n(x.begin(), rows * width_, 0.f);
          Multiply(rounded.data(), width_, rows, head_transposed, width_, x.data());
          Mask(before, rows, x.data());
          StoreRows(x.data(), rows, s_.skips, width_, all.skips + place * s_.skips);
        }
        StoreRows(of_frames.data(), s_.frames, s_.skips, width_,
                  all.frames + b * s_.frames * s_.skips);
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
    for (const Sums& sums : of_threads) {
      AddUnpadded(head_, sums.head.data(), all.head);
      AddUnpadded(logits_, sums.logits.data(), all.logits);
      for (int j = 0; j < kLevels; ++j) all.logits_bias[j] += sums.logits_bias[j];
    }
  }

 private:
  // Gradients of weights, padded.
  struct Sums {
    Sums() = default;
    explicit Sums(int64_t width)
        : head(width * width), logits(width * kLevels), logits_bias(kLevels) {}
    std::vector<float> head, logits, logits_bias;
  };

  // out += rows times a right side.
  void Multiply(const Stored* rows_of_depth, int64_t depth, int64_t rows,
                const std::vector<float>& right, int64_t columns, float* out) const {
    AddProduct<Number>(rows, Left<Number>::Rows(rows_of_depth, depth), depth / Number::kDepth,
                       right.data(), columns, out, columns);
  }

  void Score(const Stored* hidden, int64_t rows, const std::vector<float>& logits,
             const std::vector<float>& bias, float* scores) const {
    RepeatRow(bias, rows, scores);
    Multiply(hidden, width_, rows, logits, kLevels, scores);
  }

  void WriteRelu(const float* x, int64_t rows, Stored* target) const {
    for (int64_t i = 0; i < rows * width_; i += kWidth) {
      Number::Write(target + i, Relu(Load(x + i)));
    }
  }

  // Leaves gradients where the ReLU let features through.
  void Mask(const Stored* features, int64_t rows, float* grads) const {
    for (int64_t i = 0; i < rows * width_; i += kWidth) {
      Store(grads + i, Number::Read(features + i) > Vector{} ? Load(grads + i) : Vector{});
    }
  }

  void LoadFrames(const float* frames, int64_t first, int64_t rows, float* x) const {
    Frames frame(s_.samples / s_.frames, first);
    for (int64_t m = 0; m < rows; ++m, x += width_) {
      LoadRows(frames + frame.Next() * s_.skips, 1, s_.skips, width_, x);
    }
  }

  void AddToFrames(const float* grads, int64_t first, int64_t rows, float* frames) const {
    Frames frame(s_.samples / s_.frames, first);
    for (int64_t m = 0; m < rows; ++m, grads += width_) {
      AddRowSum(grads, 1, width_, width_, frames + frame.Next() * width_);
    }
  }

  static float Largest(const float* row) {
    Vector largest = Load(row);
    for (int j = kWidth; j < kLevels; j += kWidth) {
      const Vector other = Load(row + j);
      largest = other > largest ? other : largest;
    }
    float most = largest[0];
    for (int i = 1; i < kWidth; ++i) most = std::max(most, (float)largest[i]);
    return most;
  }

  // Below e^-87 of the largest nothing is added within float32's rounding.
  static Vector ExpOfDifference(const float* scores, float largest) {
    const Vector difference = Load(scores) - largest;
    return Exp(difference < Fill(-87.f) ? Fill(-87.f) : difference);
  }

  static float LogSum(const float* row) {
    const float largest = Largest(row);
    Vector sum = {};
    for (int j = 0; j < kLevels; j += kWidth) sum += ExpOfDifference(row + j, largest);
    return std::log(Sum(sum)) + largest;
  }

  // From logits to their gradients: (probability - whether it is the code) times the grad of nats.
  static void ToGradient(int32_t code, float grad, float* row) {
    const float largest = Largest(row);
    Vector sum = {};
    for (int j = 0; j < kLevels; j += kWidth) {
      const Vector weight = ExpOfDifference(row + j, largest);
      sum += weight;
      Store(row + j, weight);
    }
    const float scale = grad / Sum(sum);
    for (int j = 0; j < kLevels; j += kWidth) Store(row + j, Load(row + j) * scale);
    row[code] -= grad;
  }

  const HeadShape s_;
  const HeadWeights weights_;
  const int64_t width_;  // Padded number of skip channels.
  const KernelShape head_, logits_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_CODE_LOSSES_H_
