// The C interface, `umt.h`, of the classes in this folder.

#include "umt_jax/core/umt.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "umt_jax/core/model.h"
#include "umt_jax/core/stream.h"

struct umt_model : umt::Model {};
struct umt_stream : umt::Stream {
  explicit umt_stream(const umt::Model& model) : Stream(model), num_domains(Count(model)) {}
  static int Count(const umt::Model& model) { return (int)model.sizes.domains.size(); }
  const int num_domains;
};

namespace {

#if defined(__cpp_exceptions)
template <typename Function>
bool Succeeds(const Function& function) {
  try {
    function();
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}
#else
template <typename Function>
bool Succeeds(const Function& function) {
  function();  // Without exceptions a program ends where memory does.
  return true;
}
#endif

}  // namespace

extern "C" {

umt_model* umt_model_load(const void* file, size_t file_bytes, size_t most_bytes, char* error,
                          size_t error_bytes) {
  std::unique_ptr<umt_model> model;
  std::string message;
  if (!Succeeds([&] {
        model.reset(new umt_model);
        message = model->Load((const char*)file, file_bytes, most_bytes);
      })) {
    message = "There is not enough memory for it.";
  }
  if (error_bytes > 0) {
    const size_t length = std::min(message.size(), error_bytes - 1);
    std::memcpy(error, message.data(), length);
    error[length] = 0;
  }
  return message.empty() ? model.release() : nullptr;
}

void umt_model_free(umt_model* model) { delete model; }

int umt_model_sample_rate_hz(const umt_model* model) { return model->sizes.sample_rate_hz; }

int umt_model_num_domains(const umt_model* model) { return umt_stream::Count(*model); }

const char* umt_model_domain(const umt_model* model, int domain) {
  if (domain < 0 || domain >= umt_stream::Count(*model)) return nullptr;
  return model->sizes.domains[domain].c_str();
}

float umt_model_temperature(const umt_model* model) { return model->sizes.temperature; }

float umt_model_top_p(const umt_model* model) { return model->sizes.top_p; }

float umt_model_guide_strength(const umt_model* model) {
  return model->guides.empty() ? 0 : model->sizes.guide_strength;
}

float umt_model_gain(const umt_model* model, const float* samples, int64_t count) {
  constexpr float kSilencePeak = 1e-3f;  // As in `umt_jax/audio/level.py`.
  double energy = 0;
  float peak = 0;
  for (int64_t i = 0; i < count; ++i) {
    energy += (double)samples[i] * samples[i];
    peak = std::max(peak, std::fabs(samples[i]));
  }
  if (!model->sizes.has_level || !(peak >= kSilencePeak) || !std::isfinite(energy)) return 1;
  return (float)(std::pow(10., model->sizes.rms_dbfs / 20) / std::sqrt(energy / (double)count));
}

umt_stream* umt_stream_new(const umt_model* model) {
  umt_stream* stream = nullptr;
  return Succeeds([&] { stream = new umt_stream(*model); }) ? stream : nullptr;
}

void umt_stream_free(umt_stream* stream) { delete stream; }

void umt_stream_reset(umt_stream* stream) { stream->Reset(); }

int umt_stream_set_domain(umt_stream* stream, int domain) {
  if (domain < 0 || domain >= stream->num_domains) return -1;
  stream->SetDomain(domain);
  return 0;
}

int umt_stream_set_seed(umt_stream* stream, uint32_t seed) {
  stream->SetSeed(seed);
  return 0;
}

int umt_stream_set_temperature(umt_stream* stream, float temperature) {
  if (!(temperature >= 0 && std::isfinite(temperature))) return -1;
  stream->SetTemperature(temperature);
  return 0;
}

int umt_stream_set_top_p(umt_stream* stream, float top_p) {
  if (!(top_p > 0 && top_p <= 1)) return -1;
  stream->SetTopP(top_p);
  return 0;
}

int umt_stream_set_guide_strength(umt_stream* stream, float guide_strength) {
  if (!stream->HasGuides() && guide_strength != 0) return -1;
  if (!(guide_strength >= 0 && guide_strength <= umt::kMostGuideStrength)) return -1;
  stream->SetGuideStrength(guide_strength);
  return 0;
}

int64_t umt_stream_latency(const umt_stream* stream) { return stream->Latency(); }

int64_t umt_stream_push(umt_stream* stream, const float* samples, int64_t count) {
  return stream->Push(samples, count);
}

int64_t umt_stream_pull(umt_stream* stream, float* samples, int64_t count) {
  return stream->Pull(samples, count);
}

void umt_stream_finish(umt_stream* stream) { stream->Finish(); }
}
