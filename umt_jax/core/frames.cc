// Latent frames of many recordings at once, for `frames.py`, which calls this through ctypes:
// encodes recordings as they come, draws noise, and generates by several decoders and threads.

#include <algorithm>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "umt_jax/core/encoder.h"
#include "umt_jax/core/generate.h"
#include "umt_jax/core/packing.h"
#include "umt_jax/core/random.h"

namespace {

// One recording on its way through the encoder.
class Recording {
 public:
  explicit Recording(const umt::Model& model)
      : width_(model.sizes.latents), pool_(model.sizes.pool), encoder_(model) {}

  int64_t Latency() const { return encoder_.Latency(); }

  // Takes codes; writes the latent frames that are complete, and returns how many.
  int64_t Push(const uint8_t* codes, int64_t count, float* latents) {
    const int64_t before = num_frames_;
    for (int64_t i = 0; i < count; ++i) Hold(umt::Scale(codes[i]), latents);
    pushed_ += count;
    return num_frames_ - before;
  }

  // Writes the latent frames that are left of a recording of whole frames, and returns how many.
  int64_t Finish(float* latents) {
    const int64_t before = num_frames_;
    end_ = pushed_;
    while (num_frames_ < pushed_ / pool_) Hold(0.f, latents);
    return num_frames_ - before;
  }

 private:
  void Hold(float input, float*& latents) {
    held_[num_held_++] = input;
    if (num_held_ < umt::Encoder::kHop) return;
    num_held_ = 0;
    encoder_.Advance(held_, end_, [&](const float* latent) {
      latents = std::copy(latent, latent + width_, latents);
      ++num_frames_;
    });
  }

  const int width_, pool_;
  umt::Encoder encoder_;
  float held_[umt::Encoder::kHop];
  int num_held_ = 0;
  int64_t pushed_ = 0, num_frames_ = 0, end_ = INT64_MAX;
};

// Returns nullptr where there is no memory for it.
template <typename Function>
auto Made(const Function& make) -> decltype(make()) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace

extern "C" {

// `arrays` are those named here, as JAX has them.
umt::Model* umt_encoder_new(int blocks, int layers, int channels, int latents, int pool,
                            int preactivation, int tanh, const float* const* arrays) {
  const int64_t e = channels, num_layers = blocks * layers;
  const std::pair<const char*, int64_t> names[] = {
      {"encoder.first.kernel", 3 * e},
      {"encoder.first.bias", e},
      {"encoder.layers.dilated.kernel", num_layers * 3 * e * e},
      {"encoder.layers.dilated.bias", num_layers * e},
      {"encoder.layers.mix.kernel", num_layers * e * e},
      {"encoder.layers.mix.bias", num_layers * e},
      {"encoder.latent.kernel", e * latents},
      {"encoder.latent.bias", latents},
  };
  return Made([&] {
    umt::ModelFile file;
    for (const auto& [name, size] : names) file.Set(name, {(const char*)*arrays++, size, false});
    auto* model = new umt::Model;
    model->sizes.encoder_blocks = blocks;
    model->sizes.encoder_layers = layers;
    model->sizes.encoder_channels = channels;
    model->sizes.latents = latents;
    model->sizes.pool = pool;
    model->sizes.preactivation = preactivation;
    model->sizes.tanh = tanh;
    model->PackEncoder(file);
    return model;
  });
}

void umt_encoder_free(umt::Model* encoder) { delete encoder; }

Recording* umt_recording_new(const umt::Model* encoder) {
  return Made([&] { return new Recording(*encoder); });
}

void umt_recording_free(Recording* recording) { delete recording; }

int64_t umt_recording_latency(const Recording* recording) { return recording->Latency(); }

int64_t umt_recording_push(Recording* recording, const uint8_t* codes, int64_t count,
                           float* latents) {
  return recording->Push(codes, count, latents);
}

int64_t umt_recording_finish(Recording* recording, float* latents) {
  return recording->Finish(latents);
}

// Draws temperature times Gumbel noise, [samples, domains, streams, kLevels], for the samples of
// each stream from `first_samples` on, by its seed and each domain's index in the model.
void umt_draw_noise(int samples, int domains, int streams, const uint32_t* seeds,
                    const uint32_t* first_samples, const uint32_t* domain_indices,
                    float temperature, int threads, float* noise) {
  auto draw = [&](int begin, int end) {
    for (int k = 0; k < domains; ++k) {
      for (int b = 0; b < streams; ++b) {
        const umt::Key key = umt::Key::Of(seeds[b]).FoldIn(domain_indices[k]);
        for (int t = begin; t < end; ++t) {
          float* row = noise + (((int64_t)t * domains + k) * streams + b) * umt::kLevels;
          umt::ScaledGumbel(key.FoldIn(first_samples[b] + (uint32_t)t), temperature, row);
        }
      }
    }
  };
  std::vector<std::thread> workers;
  for (int i = 1; i < threads; ++i) {
    workers.emplace_back(draw, samples * i / threads, samples * (i + 1) / threads);
  }
  draw(0, samples / threads);
  for (std::thread& worker : workers) worker.join();
}

// `sizes` are the fields of `Sizes`, in their order; for the others see `Frame`.
void umt_generate_frame(const int* sizes, int type, const void* weights, int64_t weight_bytes,
                        const float* biases, int64_t num_biases, const float* gates,
                        const float* head, const float* noise, float* rows, float* inputs,
                        const int32_t* clock, float temperature, float top_p, int threads,
                        int most_threads, uint8_t* codes) {
  const umt::Sizes s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],
                     sizes[5], sizes[6], sizes[7], sizes[8]};
  umt::GenerateFrame({s,
                      (umt::WeightType)type,
                      weights,
                      weight_bytes,
                      biases,
                      num_biases,
                      gates,
                      head,
                      noise,
                      rows,
                      inputs,
                      clock,
                      {temperature, top_p},
                      codes},
                     threads, most_threads);
}

}  // extern "C"
