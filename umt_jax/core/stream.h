// One recording on its way through encoder and decoder.

#ifndef UMT_JAX_CORE_STREAM_H_
#define UMT_JAX_CORE_STREAM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "umt_jax/core/encoder.h"
#include "umt_jax/core/random.h"

namespace umt {

class Stream {
 public:
  explicit Stream(const Model& model)
      : model_(model),
        encoder_(model),
        latents_((size_t)kMostFrames * model.sizes.latents),
        gates_((size_t)model.sizes.NumDecoderLayers() * model.sizes.GatePanels() * kPanel),
        head_(model.conditions[0].back().Width()),
        noise_((size_t)model.sizes.pool * kLevels),
        rows_((size_t)model.sizes.NumRows() * model.sizes.channels),
        codes_(model.sizes.pool),
        work_{model.DecoderSizes(),
              model.decoders[0],
              0,
              0,
              1,
              gates_.data(),
              head_.data(),
              noise_.data(),
              rows_.data(),
              inputs_,
              0,
              {model.sizes.temperature, model.sizes.top_p},
              codes_.data()},
        buffers_(work_) {
    Reset();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void Reset() {
    encoder_.Reset();
    num_held_ = num_frames_ = first_frame_ = position_ = 0;
    pushed_ = pulled_ = 0;
    end_ = kNever;
    Begin();
  }

  void SetDomain(int domain) { wanted_domain_ = domain; }

  void SetSeed(uint32_t seed) { seed_ = seed; }
  void SetTemperature(float temperature) { work_.nucleus.temperature = temperature; }
  void SetTopP(float top_p) { work_.nucleus.top_p = top_p; }
  int64_t Latency() const { return encoder_.Latency(); }

  int64_t Push(const float* samples, int64_t count) {
    if (end_ != kNever) return 0;
    int64_t taken = 0;
    for (; taken < count && num_frames_ + Encoder::kHop <= kMostFrames; ++taken) {
      const float sample = std::isfinite(samples[taken]) ? samples[taken] : 0.f;
      ++pushed_;
      Hold(EncodeMuLaw(sample, model_.sizes.truncated));
    }
    return taken;
  }

  void Finish() {
    if (end_ != kNever) return;
    // The rest of the last latent frame is silence.
    const int64_t pool = model_.sizes.pool;
    end_ = (pushed_ + pool - 1) / pool * pool;
  }

  int64_t Pull(float* samples, int64_t count) {
    const int pool = model_.sizes.pool;
    int64_t done = 0;
    while (done < count && pulled_ < pushed_) {
      if (num_frames_ == 0) {
        if (end_ == kNever) break;
        Hold(EncodeMuLaw(0.f, model_.sizes.truncated));
        continue;
      }
      if (position_ == 0) BeginFrame();
      const int64_t wanted = std::min(count - done, pushed_ - pulled_);
      const int last = (int)std::min<int64_t>(pool, position_ + wanted);
      const Key key = Key::Of(seed_).FoldIn((uint32_t)domain_);
      for (int t = position_; t < last; ++t) {
        float* noise = noise_.data() + (size_t)t * kLevels;
        if (work_.nucleus.temperature > 0) {
          ScaledGumbel(key.FoldIn((uint32_t)(pulled_ + t - position_)), work_.nucleus.temperature,
                       noise);
        } else {
          std::fill(noise, noise + kLevels, 0.f);
        }
      }
      work_.Run(buffers_, position_, last, Alone());
      for (int t = position_; t < last; ++t) samples[done++] = model_.amplitudes[codes_[t]];
      pulled_ += last - position_;
      position_ = last;
      if (position_ < pool) continue;
      position_ = 0;
      work_.clock = (work_.clock + pool) % model_.sizes.LargestRing();
      first_frame_ = (first_frame_ + 1) % kMostFrames;
      --num_frames_;
    }
    return done;
  }

 private:
  static constexpr int kMostFrames = 64;  // More than a hop can complete.
  static constexpr int64_t kNever = INT64_MAX;

  // Takes the next code into the encoder.
  void Hold(int code) {
    held_[num_held_++] = Scale(code);
    if (num_held_ < Encoder::kHop) return;
    num_held_ = 0;
    encoder_.Advance(held_, end_, [&](const float* latent) {
      const int frame = (first_frame_ + num_frames_) % kMostFrames;
      std::copy(latent, latent + model_.sizes.latents,
                latents_.begin() + (size_t)frame * model_.sizes.latents);
      ++num_frames_;
    });
  }

  // Forgets the decoder's past; `umt_jax.generation.generate.restart`.
  void Begin() {
    std::fill(rows_.begin(), rows_.end(), 0.f);
    inputs_[0] = 0;
    inputs_[1] = model_.sizes.truncated ? Scale(kCentre) : 0.f;
    work_.clock = 0;
  }

  // Projects the first latent frame of those that wait, for the domain that is wanted.
  void BeginFrame() {
    if (wanted_domain_ != domain_) {
      domain_ = wanted_domain_;
      work_.decoder = model_.decoders[domain_];  // Of the same size: nothing is allocated.
      Begin();
    }
    const float* latent = latents_.data() + (size_t)first_frame_ * model_.sizes.latents;
    const std::vector<Affine>& conditions = model_.conditions[domain_];
    const int gate = model_.sizes.GatePanels() * kPanel;
    for (size_t i = 0; i < conditions.size(); ++i) {
      float* out = i + 1 < conditions.size() ? gates_.data() + i * gate : head_.data();
      const Affine& condition = conditions[i];
      std::fill(out, out + condition.Width(), 0.f);
      condition.Weights().Add(latent, model_.sizes.latents, 1, out, 0, buffers_.own[0].rounded);
      for (int j = 0; j < condition.Width(); ++j) out[j] += condition.bias[j];
    }
  }

  const Model& model_;
  Encoder encoder_;
  std::vector<float> latents_, gates_, head_, noise_, rows_;
  std::vector<uint8_t> codes_;
  float inputs_[2];
  Work<Float> work_;
  Work<Float>::Buffers buffers_;
  float held_[Encoder::kHop];
  int domain_ = 0, wanted_domain_ = 0, num_held_, num_frames_, first_frame_, position_;
  uint32_t seed_ = 0;
  int64_t pushed_, pulled_;
  int64_t end_;  // Of the recording, with the rest of its last latent frame.
};

}  // namespace umt

#endif  // UMT_JAX_CORE_STREAM_H_
