// One recording on its way through encoder and decoder.

#ifndef UMT_JAX_CORE_STREAM_H_
#define UMT_JAX_CORE_STREAM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "umt_jax/core/encoder.h"
#include "umt_jax/core/guide.h"
#include "umt_jax/core/random.h"

namespace umt {

class Stream {
 public:
  explicit Stream(const Model& model)
      : model_(model),
        encoder_(model),
        guide_(model.guides.empty() ? nullptr : new GuidePlayer(model.sizes.guide)),
        most_frames_(kMostFrames + (guide_ ? GuidePlayer::AheadFrames(model.sizes.guide) : 0)),
        latents_((size_t)most_frames_ * model.sizes.latents),
        guided_(guide_ ? model.sizes.pool : 0),
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
    SetGuideStrength(model.sizes.guide_strength);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void Reset() {
    encoder_.Reset();
    num_held_ = num_frames_ = first_frame_ = position_ = 0;
    pushed_ = pulled_ = num_played_ = 0;
    end_ = kNever;
    Begin();
  }

  bool HasGuides() const { return guide_ != nullptr; }
  // Forgets all sound, too: what is played comes later with a guide than without one.
  void SetGuideStrength(float strength) {
    strength_ = guide_ ? strength : 0;
    Reset();
  }

  void SetDomain(int domain) { wanted_domain_ = domain; }

  void SetSeed(uint32_t seed) { seed_ = seed; }
  void SetTemperature(float temperature) { work_.nucleus.temperature = temperature; }
  void SetTopP(float top_p) { work_.nucleus.top_p = top_p; }
  int64_t Latency() const {
    return encoder_.Latency() + (int64_t)AheadFrames() * model_.sizes.pool;
  }

  int64_t Push(const float* samples, int64_t count) {
    if (end_ != kNever) return 0;
    int64_t taken = 0;
    for (; taken < count && num_frames_ + Encoder::kHop <= most_frames_; ++taken) {
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
      if (!IsNextKnown()) {
        if (end_ == kNever) break;
        Hold(EncodeMuLaw(0.f, model_.sizes.truncated));
        continue;
      }
      if (position_ == 0) BeginFrame();
      const int64_t wanted = std::min(count - done, pushed_ - pulled_);
      const int last = (int)std::min<int64_t>(pool, position_ + wanted);
      if (strength_ >= kMostGuideStrength) {
        std::copy(guided_.begin() + position_, guided_.begin() + last, samples + done);
      } else {
        for (int t = position_; t < last; ++t) Perturb(t);
        work_.Run(buffers_, position_, last, Alone());
        for (int t = position_; t < last; ++t) {
          samples[done + t - position_] = model_.amplitudes[codes_[t]];
        }
      }
      done += last - position_;
      pulled_ += last - position_;
      position_ = last;
      if (position_ < pool) continue;
      position_ = 0;
      work_.clock = (work_.clock + pool) % model_.sizes.LargestRing();
      first_frame_ = (first_frame_ + 1) % most_frames_;
      --num_frames_;
      ++num_played_;
    }
    return done;
  }

 private:
  static constexpr int kMostFrames = 64;  // Beside those ahead; more than a hop can complete.
  static constexpr int64_t kNever = INT64_MAX;

  // Takes the next code into the encoder.
  void Hold(int code) {
    held_[num_held_++] = Scale(code);
    if (num_held_ < Encoder::kHop) return;
    num_held_ = 0;
    encoder_.Advance(held_, end_, [&](const float* latent) {
      std::copy(latent, latent + model_.sizes.latents, Latent(num_frames_++));
    });
  }

  // Latent frames that must be known behind the next one before it can be played.
  int AheadFrames() const {
    return strength_ > 0 ? GuidePlayer::AheadFrames(model_.sizes.guide) : 0;
  }

  bool IsNextKnown() const {
    if (num_frames_ > AheadFrames()) return true;
    const bool are_all_known =
        end_ != kNever && num_played_ + num_frames_ == end_ / model_.sizes.pool;
    return num_frames_ > 0 && are_all_known;
  }

  // One of the frames that wait.
  float* Latent(int index) {
    return latents_.data() + (size_t)((first_frame_ + index) % most_frames_) * model_.sizes.latents;
  }

  // Sets what is added to the logits of a sample of the frame that is played.
  void Perturb(int t) {
    float* noise = noise_.data() + (size_t)t * kLevels;
    if (work_.nucleus.temperature > 0) {
      const Key key = Key::Of(seed_).FoldIn((uint32_t)domain_);
      ScaledGumbel(key.FoldIn((uint32_t)(pulled_ + t - position_)), work_.nucleus.temperature,
                   noise);
    } else {
      std::fill(noise, noise + kLevels, 0.f);
    }
    if (strength_ == 0) return;
    // `guiding.log_likelihoods`.
    const int code = EncodeMuLaw(guided_[t], model_.sizes.truncated);
    for (int q = 0; q < kLevels; ++q) {
      const float deviation = strength_ * (float)(q - code);
      noise[q] -= 0.5f * deviation * deviation;
    }
  }

  // Forgets the past of guide and decoder; `umt_jax.generation.generate.restart`.
  void Begin() {
    num_guided_ = 0;
    if (strength_ > 0) guide_->Begin(model_.guides[domain_]);
    std::fill(rows_.begin(), rows_.end(), 0.f);
    inputs_[0] = 0;
    inputs_[1] = model_.sizes.truncated ? Scale(kCentre) : 0.f;
    work_.clock = 0;
  }

  // Prepares the first latent frame of those that wait, for the domain that is wanted.
  void BeginFrame() {
    if (wanted_domain_ != domain_) {
      domain_ = wanted_domain_;
      work_.decoder = model_.decoders[domain_];  // Of the same size: nothing is allocated.
      Begin();
    }
    if (strength_ > 0) Follow();
    if (strength_ < kMostGuideStrength) Project();
  }

  // Has the guide make the frame's waveform.
  void Follow() {
    while (num_guided_ <= AheadFrames()) {
      guide_->Push(num_guided_ < num_frames_ ? Latent(num_guided_) : nullptr);
      ++num_guided_;
    }
    guide_->Next(guided_.data());
    --num_guided_;
  }

  // Projects the frame for the decoder.
  void Project() {
    const float* latent = Latent(0);
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
  const std::unique_ptr<GuidePlayer> guide_;  // Where the model has guides.
  const int most_frames_;                     // That can wait.
  float strength_ = 0;
  std::vector<float> latents_, guided_, gates_, head_, noise_, rows_;
  std::vector<uint8_t> codes_;
  float inputs_[2];
  Work<Float> work_;
  Work<Float>::Buffers buffers_;
  float held_[Encoder::kHop];
  int domain_ = 0, wanted_domain_ = 0, num_held_, num_frames_, first_frame_, position_;
  int num_guided_;  // Of the frames that wait, the first, which the guide has.
  uint32_t seed_ = 0;
  int64_t pushed_, pulled_, num_played_;  // Samples, and latent frames.
  int64_t end_;  // Of the recording, with the rest of its last latent frame.
};

}  // namespace umt

#endif  // UMT_JAX_CORE_STREAM_H_
