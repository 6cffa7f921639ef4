// The encoder, as its samples come: each latent frame as soon as its look-ahead is there.

#ifndef UMT_JAX_CORE_ENCODER_H_
#define UMT_JAX_CORE_ENCODER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "umt_jax/core/model.h"

namespace umt {

// Layers are not causal: what a layer gives at t needs its input up to t + dilation. So each is
// that much later than the one before it, and keeps the inputs of twice its dilation. All sees
// zeros before the recording and after it, as the whole recording's convolutions do.
class Encoder {
 public:
  static constexpr int kHop = 24;  // Samples that go through the layers together.

  explicit Encoder(const Model& model)
      : model_(model),
        c_(model.sizes.encoder_channels),
        width_(Panels(c_) * kPanel),
        hidden_((size_t)kHop * width_),
        mixed_((size_t)kHop * width_),
        rectified_((size_t)kHop * c_),
        sums_(c_),
        frame_(width_),
        latent_(model.latent.Width()) {
    for (int layer = 0; layer < model.sizes.NumEncoderLayers(); ++layer) {
      pasts_.emplace_back(model.sizes.EncoderDilation(layer), c_);
    }
    features_.resize((size_t)kHop * c_);
    Reset();
  }

  void Reset() {
    for (Past& past : pasts_) past.Reset();
    std::fill(sums_.begin(), sums_.end(), 0.);
    waveform_[0] = waveform_[1] = 0;
    time_ = 0;
  }

  // A latent frame is there once so many samples have come, counted from its first. Hops end
  // anywhere in a frame, though no nearer to the sample that is needed than their common divisor.
  int64_t Latency() const {
    const int64_t needed = model_.sizes.Reach() + model_.sizes.pool;
    const int64_t divisor = std::gcd(model_.sizes.pool, kHop);
    return (needed + divisor - 1) / divisor * divisor + kHop - divisor;
  }

  // Takes the next kHop inputs, of which those from `end` on lie after the recording; `latent` is
  // given each latent frame that is complete.
  template <typename Latent>
  void Advance(const float* inputs, int64_t end, const Latent& latent) {
    First(inputs, end);
    int64_t time = time_ - 1;
    for (size_t layer = 0; layer < pasts_.size(); ++layer) {
      time -= pasts_[layer].dilation;
      float* next = layer + 1 < pasts_.size() ? pasts_[layer + 1].New() : features_.data();
      Layer(layer, time, end, next);
      pasts_[layer].Move();
    }
    for (int i = 0; i < kHop; ++i, ++time) {
      if (time < 0 || time >= end) continue;
      for (int j = 0; j < c_; ++j) sums_[j] += features_[(size_t)i * c_ + j];
      if ((time + 1) % model_.sizes.pool == 0) Pool(latent);
    }
    time_ += kHop;
  }

 private:
  // A layer's inputs: those of twice its dilation, and behind them the new ones.
  struct Past {
    int dilation, channels;
    int64_t begin = 0;
    std::vector<float> rows;

    Past(int dilation, int channels)
        : dilation(dilation),
          channels(channels),
          rows((size_t)(2 * dilation + std::max(2 * dilation, 8 * kHop)) * channels) {}

    void Reset() {
      begin = 0;
      std::fill(rows.begin(), rows.end(), 0.f);
    }

    float* Row(int64_t row) { return rows.data() + (begin + row) * channels; }
    float* New() { return Row(2 * dilation); }

    void Move() {
      begin += kHop;
      const size_t kept = (size_t)2 * dilation * channels;
      if ((size_t)(begin + kHop) * channels + kept <= rows.size()) return;
      std::memmove(rows.data(), Row(0), kept * sizeof(float));
      begin = 0;
    }
  };

  // The convolution of three samples of the waveform, for [time_ - 1, time_ - 1 + kHop).
  void First(const float* inputs, int64_t end) {
    const float* kernel = model_.first.data();
    float* out = pasts_[0].New();
    for (int i = 0; i < kHop; ++i, out += c_) {
      const int64_t time = time_ - 1 + i;
      const float newest = time_ + i < end ? inputs[i] : 0.f;
      for (int j = 0; j < c_; ++j) {
        const float sum = waveform_[0] * kernel[j] + waveform_[1] * kernel[c_ + j] +
                          newest * kernel[2 * c_ + j] + kernel[3 * c_ + j];
        out[j] = time >= 0 && time < end ? sum : 0.f;
      }
      waveform_[0] = waveform_[1];
      waveform_[1] = newest;
    }
  }

  // One layer's outputs for [time, time + kHop).
  void Layer(size_t layer, int64_t time, int64_t end, float* out) {
    Past& past = pasts_[layer];
    if (time + kHop <= 0 || time >= end) {
      std::fill(out, out + (size_t)kHop * c_, 0.f);
      return;
    }
    const Affine& first = model_.dilated[layer][0];
    for (int i = 0; i < kHop; ++i) {
      std::copy(first.bias.begin(), first.bias.end(), hidden_.begin() + (size_t)i * width_);
    }
    for (int tap = 0; tap < 3; ++tap) {
      const float* in = past.Row((int64_t)tap * past.dilation);
      if (model_.sizes.preactivation) {
        for (int i = 0; i < kHop * c_; ++i) rectified_[i] = std::max(in[i], 0.f);
        in = rectified_.data();
      }
      model_.dilated[layer][tap].Weights().Add(in, c_, kHop, hidden_.data(), width_, rounded_);
    }
    for (float& value : hidden_) {
      value = model_.sizes.tanh ? std::tanh(value) : std::max(value, 0.f);
    }
    const Affine& mix = model_.mix[layer];
    for (int i = 0; i < kHop; ++i) {
      std::copy(mix.bias.begin(), mix.bias.end(), mixed_.begin() + (size_t)i * width_);
    }
    mix.Weights().Add(hidden_.data(), width_, kHop, mixed_.data(), width_, rounded_);
    const float* x = past.Row(past.dilation);
    for (int i = 0; i < kHop; ++i) {
      const bool inside = time + i >= 0 && time + i < end;
      for (int j = 0; j < c_; ++j) {
        const size_t at = (size_t)i * c_ + j;
        out[at] = inside ? x[at] + mixed_[(size_t)i * width_ + j] : 0.f;
      }
    }
  }

  template <typename Latent>
  void Pool(const Latent& latent) {
    for (int j = 0; j < c_; ++j) {
      frame_[j] = (float)(sums_[j] / model_.sizes.pool);
      sums_[j] = 0;
    }
    std::copy(model_.latent.bias.begin(), model_.latent.bias.end(), latent_.begin());
    model_.latent.Weights().Add(frame_.data(), c_, 1, latent_.data(), 0, rounded_);
    latent(latent_.data());
  }

  const Model& model_;
  int c_, width_;
  std::vector<Past> pasts_;
  std::vector<float> features_, hidden_, mixed_, rectified_;
  std::vector<double> sums_;
  std::vector<float> frame_, latent_;
  Rounded<Float> rounded_;
  float waveform_[2];  // The last two inputs.
  int64_t time_;       // Of the next input.
};

}  // namespace umt

#endif  // UMT_JAX_CORE_ENCODER_H_
