// The residual layers of the encoder in training: forward, and back to their gradients. Numbers are
// those of `umt_jax/model/encoder.py`.

#ifndef UMT_JAX_CORE_DILATED_STACK_H_
#define UMT_JAX_CORE_DILATED_STACK_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "umt_jax/core/stacks.h"

namespace umt {

struct DilatedShape {
  int64_t items, samples, layers, channels, threads;
  const int32_t* dilations;
  bool preactivation, tanh;
};

// Of all layers, float32.
struct DilatedWeights {
  const float *dilated, *dilated_bias;  // [L, 3, C, C], [L, C]
  const float *mix, *mix_bias;          // [L, C, C], [L, C]
};

struct DilatedGrads {
  float* x;  // [B, T, C]
  float *dilated, *dilated_bias, *mix, *mix_bias;
};

template <typename Number>
class DilatedStack {
 public:
  using Stored = typename Number::Stored;

  DilatedStack(const DilatedShape& shape, const DilatedWeights& weights)
      : s_(shape),
        weights_(weights),
        c_(Padded(shape.channels)),
        dilated_{3, shape.channels, shape.channels, 1},
        mix_{1, shape.channels, shape.channels, 1} {}

  // y [B, T, C] = what the last layer gives; keeps what each layer's two convolutions read, the
  // activations of both kinds included, [B, L, T, C], padded.
  void Forward(const float* x, float* y, Stored* inputs, Stored* hidden) const {
    std::vector<std::vector<float>> dilated, mix, dilated_bias, mix_bias;
    for (int64_t l = 0; l < s_.layers; ++l) {
      dilated.push_back(RightSide<Number>(dilated_, weights_.dilated + l * dilated_.Size()));
      mix.push_back(RightSide<Number>(mix_, weights_.mix + l * mix_.Size()));
      dilated_bias.push_back(PaddedBias(weights_.dilated_bias, l));
      mix_bias.push_back(PaddedBias(weights_.mix_bias, l));
    }
    auto run = [&](int64_t begin, int64_t end, int64_t) {
      Taps<Number> taps(3, c_);
      std::vector<float> stream(s_.samples * c_), h(kBlockSamples * c_);
      for (int64_t b = begin; b < end; ++b) {
        LoadRows(x + b * s_.samples * s_.channels, s_.samples, s_.channels, c_, stream.data());
        for (int64_t l = 0; l < s_.layers; ++l) {
          Stored* in = inputs + Place(b, l);
          for (int64_t i = 0; i < s_.samples * c_; i += kWidth) {
            const Vector features = Load(&stream[i]);
            Number::Write(in + i, s_.preactivation ? Relu(features) : features);
          }
          for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
            const int64_t rows = std::min(kBlockSamples, s_.samples - first);
            float* sums = stream.data() + first * c_;
            Stored* activations = hidden + Place(b, l) + first * c_;
            RepeatRow(dilated_bias[l], rows, h.data());
            AddProduct<Number>(rows, taps.Read(in, s_.samples, c_, first, rows, Offsets(l, 1)),
                               c_ / Number::kDepth, dilated[l].data(), c_, h.data(), c_);
            for (int64_t i = 0; i < rows * c_; i += kWidth) {
              const Vector features = Load(&h[i]);
              Number::Write(activations + i, s_.tanh ? Tanh(features) : Relu(features));
            }
            AddRow(mix_bias[l], rows, sums);
            AddProduct<Number>(rows, Left<Number>::Rows(activations, c_), c_ / Number::kDepth,
                               mix[l].data(), c_, sums, c_);
          }
        }
        StoreRows(stream.data(), s_.samples, s_.channels, c_, y + b * s_.samples * s_.channels);
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
  }

  // Adds to the gradients, given those of `y` and what `Forward` kept.
  void Backward(const float* y_grads, const Stored* inputs, const Stored* hidden,
                const DilatedGrads& grads) const {
    std::vector<std::vector<float>> dilated, mix;
    for (int64_t l = 0; l < s_.layers; ++l) {
      dilated.push_back(
          TransposedRightSide<Number>(dilated_, weights_.dilated + l * dilated_.Size()));
      mix.push_back(TransposedRightSide<Number>(mix_, weights_.mix + l * mix_.Size()));
    }
    std::vector<Sums> of_threads(NumParts(s_.items, s_.threads));
    auto run = [&](int64_t begin, int64_t end, int64_t thread) {
      of_threads[thread] = Sums(s_.layers, c_);
      for (int64_t b = begin; b < end; ++b) {
        BackwardItem(b, y_grads, inputs, hidden, dilated, mix, grads, of_threads[thread]);
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
    for (const Sums& sums : of_threads) Unpad(sums, grads);
  }

 private:
  // Gradients of weights, padded: of all layers.
  struct Sums {
    Sums() = default;
    Sums(int64_t layers, int64_t c)
        : dilated(layers * 3 * c * c),
          mix(layers * c * c),
          dilated_bias(layers * c),
          mix_bias(layers * c) {}
    std::vector<float> dilated, mix, dilated_bias, mix_bias;
  };

  // Constant beyond the limit within float32's rounding.
  static Vector Tanh(Vector x) {
    const Vector y = Exp(2.f * Clamp(x, 10.f));
    return (y - 1.f) / (y + 1.f);
  }

  // Where an item's layer begins in arrays [B, L, T, C].
  int64_t Place(int64_t b, int64_t l) const { return (b * s_.layers + l) * s_.samples * c_; }

  // Of the samples that each tap reads, for a sign of 1; of those that read a sample by it, for -1.
  std::vector<int64_t> Offsets(int64_t l, int64_t sign) const {
    return {-sign * s_.dilations[l], 0, sign * s_.dilations[l]};
  }

  std::vector<float> PaddedBias(const float* biases, int64_t l) const {
    std::vector<float> padded(c_);
    std::copy_n(biases + l * s_.channels, s_.channels, padded.begin());
    return padded;
  }

  void BackwardItem(int64_t b, const float* y_grads, const Stored* inputs, const Stored* hidden,
                    const std::vector<std::vector<float>>& dilated,
                    const std::vector<std::vector<float>>& mix, const DilatedGrads& grads,
                    Sums& sums) const {
    std::vector<float> stream(s_.samples * c_), out(kBlockSamples * c_);
    std::vector<Stored> rounded(kBlockSamples * c_), h(s_.samples * c_);
    Taps<Number> taps(3, c_), later_taps(3, c_);
    std::vector<float> left_panels(kBlockSamples * 3 * c_), right_panels(kBlockSamples * c_);
    LoadRows(y_grads + b * s_.samples * s_.channels, s_.samples, s_.channels, c_, stream.data());
    const int64_t steps = c_ / Number::kDepth;
    for (int64_t l = s_.layers - 1; l >= 0; --l) {
      const Stored *in = inputs + Place(b, l), *activations = hidden + Place(b, l);
      // What reads later samples comes in a second pass, once all gradients of `h` are there.
      for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
        const int64_t rows = std::min(kBlockSamples, s_.samples - first);
        const float* of_sums = stream.data() + first * c_;
        AddRowSum(of_sums, rows, c_, c_, &sums.mix_bias[l * c_]);
        Write<Number>(of_sums, rows * c_, rounded.data());
        std::fill_n(out.begin(), rows * c_, 0.f);
        AddProduct<Number>(rows, Left<Number>::Rows(rounded.data(), c_), steps, mix[l].data(), c_,
                           out.data(), c_);
        LayOut<Number>(activations + first * c_, c_, rows, c_, left_panels.data());
        LayOut<Number>(rounded.data(), c_, rows, c_, right_panels.data());
        AddOuterProducts<Number>(left_panels.data(), c_, right_panels.data(), c_, rows,
                                 &sums.mix[l * c_ * c_]);
        for (int64_t i = 0; i < rows * c_; i += kWidth) {
          const Vector y = Number::Read(activations + first * c_ + i), grad = Load(&out[i]);
          Store(&out[i], s_.tanh ? grad * (1.f - y * y) : y > Vector{} ? grad : Vector{});
        }
        AddRowSum(out.data(), rows, c_, c_, &sums.dilated_bias[l * c_]);
        Write<Number>(out.data(), rows * c_, &h[first * c_]);
      }
      for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
        const int64_t rows = std::min(kBlockSamples, s_.samples - first);
        taps.Read(in, s_.samples, c_, first, rows, Offsets(l, 1));
        taps.LayOutAll(left_panels.data());
        LayOut<Number>(&h[first * c_], c_, rows, c_, right_panels.data());
        taps.AddOuter(left_panels.data(), right_panels.data(), c_, &sums.dilated[l * 3 * c_ * c_]);
        float* target = stream.data() + first * c_;
        if (s_.preactivation) {
          std::fill_n(out.begin(), rows * c_, 0.f);
          target = out.data();
        }
        AddProduct<Number>(rows,
                           later_taps.Read(h.data(), s_.samples, c_, first, rows, Offsets(l, -1)),
                           steps, dilated[l].data(), c_, target, c_);
        if (!s_.preactivation) continue;
        for (int64_t i = 0; i < rows * c_; i += kWidth) {
          const Vector grad =
              Number::Read(in + first * c_ + i) > Vector{} ? Load(&out[i]) : Vector{};
          Store(&stream[first * c_ + i], Load(&stream[first * c_ + i]) + grad);
        }
      }
    }
    StoreRows(stream.data(), s_.samples, s_.channels, c_, grads.x + b * s_.samples * s_.channels);
  }

  void Unpad(const Sums& sums, const DilatedGrads& grads) const {
    for (int64_t l = 0; l < s_.layers; ++l) {
      AddUnpadded(dilated_, &sums.dilated[l * 3 * c_ * c_], grads.dilated + l * dilated_.Size());
      AddUnpadded(mix_, &sums.mix[l * c_ * c_], grads.mix + l * mix_.Size());
      for (int64_t j = 0; j < s_.channels; ++j) {
        grads.dilated_bias[l * s_.channels + j] += sums.dilated_bias[l * c_ + j];
        grads.mix_bias[l * s_.channels + j] += sums.mix_bias[l * c_ + j];
      }
    }
  }

  const DilatedShape s_;
  const DilatedWeights weights_;
  const int64_t c_;  // Padded width of a layer's features.
  const KernelShape dilated_, mix_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_DILATED_STACK_H_
