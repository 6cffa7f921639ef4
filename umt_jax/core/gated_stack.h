// The residual layers of a decoder in training: forward, and back to their gradients. Numbers are
// those of `umt_jax/model/decoder.py`.
//
// Layers are causal, so that a block of samples passes all of them before the next one comes, and
// back in the opposite order: what is summed stays in the processor's caches.

#ifndef UMT_JAX_CORE_GATED_STACK_H_
#define UMT_JAX_CORE_GATED_STACK_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "umt_jax/core/stacks.h"

namespace umt {

struct GatedShape {
  int64_t items, samples, layers, taps, channels, skips, frames, threads;
  const int32_t* dilations;

  int64_t Pool() const { return samples / frames; }
};

// Arrays of a decoder's layers, float32. `Index`es of leading axes come in the order given.
struct GatedWeights {
  const float* dilated;                   // [L, taps, C, 2 C]
  const float *residual, *residual_bias;  // [L, C, C], [L, C]
  const float *skip, *skip_bias;          // [L, C, S], [L, S]
};

struct GatedGrads {
  float* x;          // [B, T, C]
  float* condition;  // [L, B, F, 2 C]
  float *dilated, *residual, *residual_bias, *skip, *skip_bias;
};

template <typename Number>
class GatedStack {
 public:
  using Stored = typename Number::Stored;

  GatedStack(const GatedShape& shape, const GatedWeights& weights)
      : s_(shape),
        weights_(weights),
        c_(Padded(shape.channels)),
        skips_(Padded(shape.skips)),
        sums_(skips_ + c_),
        dilated_{shape.taps, shape.channels, 2 * shape.channels, 2} {}

  // skips_out [B, T, S] = skips + what all layers add; keeps each layer's input [B, L, T, C] and
  // halves of the gate [B, L, T, 2 C], padded.
  void Forward(const float* x, const float* skips, const float* condition, float* skips_out,
               Stored* inputs, Stored* halves) const {
    std::vector<std::vector<float>> dilated, mix;
    for (int64_t l = 0; l < s_.layers; ++l) {
      dilated.push_back(RightSide<Number>(dilated_, weights_.dilated + l * dilated_.Size()));
      mix.push_back(
          RightSide<Number>(c_, sums_, [&](int64_t i, int64_t j) { return Mix(l, i, j); }));
    }
    std::vector<float> skip_bias(skips_);
    for (int64_t l = 0; l < s_.layers; ++l) {
      for (int64_t j = 0; j < s_.skips; ++j) skip_bias[j] += weights_.skip_bias[l * s_.skips + j];
    }
    auto run = [&](int64_t begin, int64_t end, int64_t) {
      Taps<Number> taps(s_.taps, c_);
      std::vector<Stored> gated(kBlockSamples * c_);
      std::vector<float> h(kBlockSamples * 2 * c_), sums(kBlockSamples * sums_), bias(c_);
      for (int64_t b = begin; b < end; ++b) {
        for (int64_t first = 0; first < s_.samples; first += kBlockSamples) {
          const int64_t rows = std::min(kBlockSamples, s_.samples - first);
          LoadSums(x, skips, skip_bias, b, first, rows, sums.data());
          for (int64_t l = 0; l < s_.layers; ++l) {
            Stored* in = inputs + Place(b, l) * c_;
            if (l) Fill(bias, weights_.residual_bias + (l - 1) * s_.channels);
            StoreInput(bias, l > 0, first, rows, sums.data(), in);
            LoadCondition(condition, l, b, first, rows, h.data());
            AddProduct<Number>(rows, taps.Read(in, s_.samples, c_, first, rows, Offsets(l, 1)),
                               c_ / Number::kDepth, dilated[l].data(), 2 * c_, h.data(), 2 * c_);
            Gate(h.data(), rows, halves + (Place(b, l) + first) * 2 * c_, gated.data());
            AddProduct<Number>(rows, Left<Number>::Rows(gated.data(), c_), c_ / Number::kDepth,
                               mix[l].data(), sums_, sums.data(), sums_);
          }
          for (int64_t m = 0; m < rows; ++m) {
            std::memcpy(skips_out + (b * s_.samples + first + m) * s_.skips,
                        sums.data() + m * sums_, s_.skips * sizeof(float));
          }
        }
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
  }

  // Adds to the gradients, given those of `skips_out`; `halves` become the gradients of what the
  // gates are given. The gradient of `skips` is `skip_grads`.
  void Backward(const float* skip_grads, const Stored* inputs, Stored* halves,
                const GatedGrads& grads) const {
    std::vector<std::vector<float>> dilated, mix;
    for (int64_t l = 0; l < s_.layers; ++l) {
      dilated.push_back(
          TransposedRightSide<Number>(dilated_, weights_.dilated + l * dilated_.Size()));
      mix.push_back(
          RightSide<Number>(sums_, c_, [&](int64_t i, int64_t j) { return Mix(l, j, i); }));
    }
    std::vector<Sums> of_threads(NumParts(s_.items, s_.threads));
    auto run = [&](int64_t begin, int64_t end, int64_t thread) {
      of_threads[thread] = Sums(*this);
      for (int64_t b = begin; b < end; ++b) {
        BackwardItem(b, skip_grads, inputs, halves, dilated, mix, grads, of_threads[thread]);
      }
    };
    InParts(s_.items, NumParts(s_.items, s_.threads), run);
    for (const Sums& sums : of_threads) Unpad(sums, grads);
  }

 private:
  // Gradients of weights, padded: of all layers; of biases first the skips', one for all layers.
  struct Sums {
    Sums() = default;
    explicit Sums(const GatedStack& stack)
        : dilated(stack.s_.layers * stack.dilated_.Rows() * 2 * stack.c_),
          mix(stack.s_.layers * stack.c_ * stack.sums_),
          bias(stack.skips_ + stack.s_.layers * stack.c_) {}
    std::vector<float> dilated, mix, bias;
  };

  // The row of arrays [B, L, T, ...] where an item's layer begins.
  int64_t Place(int64_t b, int64_t l) const { return (b * s_.layers + l) * s_.samples; }

  // A number of skip and residual kernels beside each other.
  float Mix(int64_t l, int64_t i, int64_t j) const {
    if (i >= s_.channels) return 0;
    if (j < s_.skips) return weights_.skip[(l * s_.channels + i) * s_.skips + j];
    if (j < skips_ || j - skips_ >= s_.channels) return 0;
    return weights_.residual[(l * s_.channels + i) * s_.channels + j - skips_];
  }

  // Of the samples that each tap reads, for a sign of 1; of those that read a sample by it, for -1.
  std::vector<int64_t> Offsets(int64_t l, int64_t sign) const {
    std::vector<int64_t> offsets;
    for (int64_t i = 0; i < s_.taps; ++i) {
      offsets.push_back(sign * (i + 1 - s_.taps) * s_.dilations[l]);
    }
    return offsets;
  }

  void Fill(std::vector<float>& padded, const float* numbers) const {
    std::memcpy(padded.data(), numbers, s_.channels * sizeof(float));
  }

  void LoadSums(const float* x, const float* skips, const std::vector<float>& skip_bias, int64_t b,
                int64_t first, int64_t rows, float* sums) const {
    std::memset(sums, 0, rows * sums_ * sizeof(float));
    for (int64_t m = 0; m < rows; ++m, sums += sums_) {
      const int64_t t = b * s_.samples + first + m;
      for (int64_t j = 0; j < s_.skips; ++j) sums[j] = skips[t * s_.skips + j] + skip_bias[j];
      std::memcpy(sums + skips_, x + t * s_.channels, s_.channels * sizeof(float));
    }
  }

  // Adds the last layer's bias to the residual stream, and keeps it.
  void StoreInput(const std::vector<float>& bias, bool has_bias, int64_t first, int64_t rows,
                  float* sums, Stored* in) const {
    float* stream = sums + skips_;
    for (int64_t m = 0; m < rows; ++m, stream += sums_) {
      if (has_bias) AddRow(bias, 1, stream);
      Write<Number>(stream, c_, in + (first + m) * c_);
    }
  }

  // Starts each sample's row with what its latent frame adds.
  void LoadCondition(const float* condition, int64_t l, int64_t b, int64_t first, int64_t rows,
                     float* h) const {
    const float* frames = condition + (l * s_.items + b) * s_.frames * 2 * s_.channels;
    Frames frame(s_.Pool(), first);
    for (int64_t m = 0; m < rows; ++m, h += 2 * c_) {
      const float* source = frames + frame.Next() * 2 * s_.channels;
      if (s_.channels == c_) {
        for (int64_t j = 0; j < 2 * c_; j += kWidth) Store(h + j, Load(source + j));
        continue;
      }
      LoadRows(source, 2, s_.channels, c_, h);
    }
  }

  // Both halves by one division, as quotients of exponentials. Beyond the limits they are constant
  // within float32's rounding.
  void Gate(const float* h, int64_t rows, Stored* halves, Stored* gated) const {
    for (int64_t m = 0; m < rows; ++m, h += 2 * c_, halves += 2 * c_, gated += c_) {
      for (int64_t j = 0; j < c_; j += kWidth) {
        const Vector a = Exp(-Clamp(Load(h + j), 30.f));
        const Vector b = Exp(2.f * Clamp(Load(h + c_ + j), 10.f));
        const Vector reciprocal = 1.f / ((1.f + a) * (b + 1.f));
        const Vector opening = (b + 1.f) * reciprocal, content = (b - 1.f) * (1.f + a) * reciprocal;
        Number::Write(halves + j, opening);
        Number::Write(halves + c_ + j, content);
        Number::Write(gated + j, opening * content);
      }
    }
  }

  void BackwardItem(int64_t b, const float* skip_grads, const Stored* inputs, Stored* halves,
                    const std::vector<std::vector<float>>& dilated,
                    const std::vector<std::vector<float>>& mix, const GatedGrads& grads,
                    Sums& sums) const {
    const int64_t blocks = (s_.samples + kBlockSamples - 1) / kBlockSamples;
    const int64_t taps_width = s_.taps * c_, skip_panels = skips_ / kPanelColumns * kPanelColumns;
    Taps<Number> taps(s_.taps, c_), gate_taps(s_.taps, 2 * c_);
    std::vector<Stored> rounded(kBlockSamples * sums_), gated(kBlockSamples * c_);
    std::vector<float> out(kBlockSamples * sums_), gate(kBlockSamples * c_);
    std::vector<float> left_panels(kBlockSamples * taps_width);
    std::vector<float> right_panels(kBlockSamples * 2 * c_), sum_panels(kBlockSamples * sums_);
    std::vector<float> condition(s_.layers * s_.frames * 2 * c_);
    for (int64_t block = blocks - 1; block >= 0; --block) {
      const int64_t first = block * kBlockSamples;
      const int64_t rows = std::min(kBlockSamples, s_.samples - first);
      LoadGrads(skip_grads, b, first, rows, out.data());
      AddRowSum(out.data(), rows, skips_, sums_, sums.bias.data());
      // Those of skips are the same for all layers.
      for (int64_t m = 0; m < rows; ++m) {
        Write<Number>(out.data() + m * sums_, skips_, rounded.data() + m * sums_);
      }
      float* last_panels =
          LayOut<Number>(rounded.data(), sums_, rows, skip_panels, sum_panels.data());
      for (int64_t l = s_.layers - 1; l >= 0; --l) {
        const Stored* in = inputs + Place(b, l) * c_;
        Stored* h = halves + Place(b, l) * 2 * c_;
        AddRowSum(out.data() + skips_, rows, c_, sums_, sums.bias.data() + skips_ + l * c_);
        for (int64_t m = 0; m < rows; ++m) {
          const int64_t stream = m * sums_ + skips_;
          Write<Number>(out.data() + stream, c_, rounded.data() + stream);
        }
        std::fill(gate.begin(), gate.end(), 0.f);
        AddProduct<Number>(rows, Left<Number>::Rows(rounded.data(), sums_), sums_ / Number::kDepth,
                           mix[l].data(), c_, gate.data(), c_);
        UngateBlock(gate.data(), first, rows, h + first * 2 * c_, gated.data(),
                    condition.data() + l * s_.frames * 2 * c_);

        LayOut<Number>(gated.data(), c_, rows, c_, left_panels.data());
        LayOut<Number>(rounded.data() + skip_panels, sums_, rows, sums_ - skip_panels, last_panels);
        AddOuterProducts<Number>(left_panels.data(), c_, sum_panels.data(), sums_, rows,
                                 sums.mix.data() + l * c_ * sums_);

        taps.Read(in, s_.samples, c_, first, rows, Offsets(l, 1));
        taps.LayOutAll(left_panels.data());
        LayOut<Number>(h + first * 2 * c_, 2 * c_, rows, 2 * c_, right_panels.data());
        taps.AddOuter(left_panels.data(), right_panels.data(), 2 * c_,
                      sums.dilated.data() + l * taps_width * 2 * c_);

        AddProduct<Number>(rows, gate_taps.Read(h, s_.samples, 2 * c_, first, rows, Offsets(l, -1)),
                           2 * c_ / Number::kDepth, dilated[l].data(), c_, out.data() + skips_,
                           sums_);
      }
      for (int64_t m = 0; m < rows; ++m) {
        std::memcpy(grads.x + (b * s_.samples + first + m) * s_.channels,
                    out.data() + m * sums_ + skips_, s_.channels * sizeof(float));
      }
    }
    for (int64_t l = 0; l < s_.layers; ++l) {
      const int64_t halves_of_frames = s_.frames * 2;
      StoreRows(condition.data() + l * halves_of_frames * c_, halves_of_frames, s_.channels, c_,
                grads.condition + (l * s_.items + b) * halves_of_frames * s_.channels);
    }
  }

  void LoadGrads(const float* skip_grads, int64_t b, int64_t first, int64_t rows,
                 float* out) const {
    std::memset(out, 0, rows * sums_ * sizeof(float));
    for (int64_t m = 0; m < rows; ++m) {
      std::memcpy(out + m * sums_, skip_grads + (b * s_.samples + first + m) * s_.skips,
                  s_.skips * sizeof(float));
    }
  }

  // From gradients of what gates give to those of what they are given, which replace the halves;
  // makes once more what the gates gave.
  void UngateBlock(const float* grads, int64_t first, int64_t rows, Stored* halves, Stored* gated,
                   float* condition) const {
    Frames frames(s_.Pool(), first);
    for (int64_t m = 0; m < rows; ++m, grads += c_, halves += 2 * c_, gated += c_) {
      float* frame = condition + frames.Next() * 2 * c_;
      for (int64_t j = 0; j < c_; j += kWidth) {
        const Vector opening = Number::Read(halves + j), content = Number::Read(halves + c_ + j);
        const Vector grad = Load(grads + j), product = opening * content;
        const Vector of_sigmoid = grad * product * (1.f - opening);
        const Vector of_tanh = grad * opening * (1.f - content * content);
        Number::Write(gated + j, product);
        Number::Write(halves + j, of_sigmoid);
        Number::Write(halves + c_ + j, of_tanh);
        Store(frame + j, Load(frame + j) + of_sigmoid);
        Store(frame + c_ + j, Load(frame + c_ + j) + of_tanh);
      }
    }
  }

  void Unpad(const Sums& sums, const GatedGrads& grads) const {
    const int64_t c = s_.channels, s = s_.skips;
    for (int64_t l = 0; l < s_.layers; ++l) {
      AddUnpadded(dilated_, sums.dilated.data() + l * dilated_.Rows() * 2 * c_,
                  grads.dilated + l * dilated_.Size());
      const float* mix = sums.mix.data() + l * c_ * sums_;
      for (int64_t i = 0; i < c; ++i, mix += sums_) {
        for (int64_t j = 0; j < s; ++j) grads.skip[(l * c + i) * s + j] += mix[j];
        for (int64_t j = 0; j < c; ++j) grads.residual[(l * c + i) * c + j] += mix[skips_ + j];
      }
      const float* bias = sums.bias.data() + skips_ + l * c_;
      for (int64_t j = 0; j < c; ++j) grads.residual_bias[l * c + j] += bias[j];
      for (int64_t j = 0; j < s; ++j) grads.skip_bias[l * s + j] += sums.bias[j];
    }
  }

  const GatedShape s_;
  const GatedWeights weights_;
  const int64_t c_, skips_, sums_;  // Padded widths: of features, of skips, and of both.
  const KernelShape dilated_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_GATED_STACK_H_
