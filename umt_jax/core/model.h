// A model's sizes and weights, packed for this processor.

#ifndef UMT_JAX_CORE_MODEL_H_
#define UMT_JAX_CORE_MODEL_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "umt_jax/core/decoder.h"
#include "umt_jax/core/guide.h"
#include "umt_jax/core/model_file.h"
#include "umt_jax/core/mu_law.h"

namespace umt {

// Fields of `umt_jax.config.ModelConfig`.
struct ModelSizes {
  int sample_rate_hz, encoder_blocks, encoder_layers, encoder_channels, latents, pool;
  int decoder_blocks, decoder_layers, channels, skips;
  GuideSizes guide;
  bool truncated, preactivation, tanh, has_level;
  double rms_dbfs;
  float temperature, top_p, guide_strength;
  std::vector<std::string> domains;

  int NumEncoderLayers() const { return encoder_blocks * encoder_layers; }
  int NumDecoderLayers() const { return decoder_blocks * decoder_layers; }
  int EncoderDilation(int layer) const { return 1 << (layer % encoder_layers); }
  // Samples on either side of itself that a feature of the encoder sees.
  int64_t Reach() const { return (int64_t)encoder_blocks * ((1 << encoder_layers) - 1) + 1; }
  int64_t NumRows() const { return (int64_t)decoder_blocks * ((1 << decoder_layers) - 1); }
  // Of the ring buffers of all layers of a dilation; where the clock begins anew.
  int LargestRing() const { return 1 << (decoder_layers - 1); }
  // Panels of half a panel of sigmoids and as many tanhs.
  int GatePanels() const { return (channels + kPanel / 2 - 1) / (kPanel / 2); }
};

class Model {
 public:
  ModelSizes sizes;
  std::vector<float> first;                  // Of the encoder: three taps and the bias.
  std::vector<std::vector<Affine>> dilated;  // Of each layer, one for each tap; the first's bias.
  std::vector<Affine> mix;
  Affine latent;
  std::vector<std::vector<Affine>> conditions;  // Of each domain: each layer's gates, and the head.
  std::vector<Decoder<Float>> decoders;         // Of each domain; they point into the next two.
  std::vector<std::vector<float>> weights, biases;
  std::vector<Guide> guides;  // Of each domain; none where the model has none.
  float amplitudes[kLevels];

  // Returns what is wrong, "" for nothing.
  std::string Load(const char* bytes, size_t num_bytes, size_t most_bytes) {
    ModelFile file;
    std::string error = file.Read(bytes, num_bytes);
    if (error.empty()) error = ReadSizes(file);
    if (error.empty()) error = CheckArrays(file);
    if (!error.empty()) return error;
    if (NeededBytes() > (double)most_bytes) {
      return "It needs " + std::to_string((int64_t)(NeededBytes() / 1e6)) +
             " MB of memory, more than the " + std::to_string(most_bytes / 1000000) +
             " MB that are allowed.";
    }
    PackEncoder(file);
    for (size_t k = 0; k < sizes.domains.size(); ++k) {
      PackDecoder(file, (int)k);
      if (sizes.guide.channels) PackGuide(file, (int)k);
    }
    for (int code = 0; code < kLevels; ++code) {
      amplitudes[code] = DecodeMuLaw(code, sizes.truncated);
    }
    return "";
  }

  Sizes DecoderSizes() const {
    // So many samples share one product for a layer's past tap, as in `native.py`.
    constexpr int kRowsAtOnce = 32;
    return {1,
            1,
            sizes.pool,
            (int)sizes.NumRows(),
            sizes.decoder_blocks,
            sizes.decoder_layers,
            sizes.channels,
            sizes.skips,
            kRowsAtOnce};
  }

  // Needs the sizes of the encoder.
  void PackEncoder(const ModelFile& file) {
    const int c = sizes.encoder_channels;
    for (int i = 0; i < 3 * c; ++i) first.push_back(file.Get("encoder.first.kernel")[i]);
    for (int i = 0; i < c; ++i) first.push_back(file.Get("encoder.first.bias")[i]);
    const std::string layers = "encoder.layers.";
    for (int64_t layer = 0; layer < sizes.NumEncoderLayers(); ++layer) {
      dilated.emplace_back();
      for (int tap = 0; tap < 3; ++tap) {
        dilated.back().push_back(Plain(file, layers + "dilated.kernel", (layer * 3 + tap) * c * c,
                                       c, c, tap ? "" : layers + "dilated.bias", layer * c));
      }
      mix.push_back(
          Plain(file, layers + "mix.kernel", layer * c * c, c, c, layers + "mix.bias", layer * c));
    }
    latent = Plain(file, "encoder.latent.kernel", 0, c, sizes.latents, "encoder.latent.bias", 0);
  }

 private:
  std::string ReadSizes(const ModelFile& file) {
    // As in `umt_jax/config.py`, but for layers, whose largest dilation must fit an `int`.
    const int64_t most_channels = 1 << 20, most_layers = 24;
    auto take = [&](const char* name, int64_t most) { return (int)file.Number(name, most); };
    sizes.sample_rate_hz = take("sample_rate_hz", 10000000);
    sizes.encoder_blocks = take("encoder_blocks", 1000);
    sizes.encoder_layers = take("encoder_layers", most_layers);
    sizes.encoder_channels = take("encoder_channels", most_channels);
    sizes.latents = take("latent_channels", most_channels);
    sizes.pool = take("pool_samples", 1 << 24);
    sizes.decoder_blocks = take("decoder_blocks", 1000);
    sizes.decoder_layers = take("decoder_layers", most_layers);
    sizes.channels = take("residual_channels", most_channels);
    sizes.skips = take("skip_channels", most_channels);
    const int smallest =
        std::min({sizes.sample_rate_hz, sizes.encoder_blocks, sizes.encoder_layers,
                  sizes.encoder_channels, sizes.latents, sizes.pool, sizes.decoder_blocks,
                  sizes.decoder_layers, sizes.channels, sizes.skips});
    if (smallest < 1) return "Its header lacks a size, or has one that is not allowed.";
    // Files of the first release say nothing of guides.
    const int guide_channels =
        file.Text("guide_channels").empty() ? 0 : take("guide_channels", most_channels);
    sizes.guide = {sizes.latents, guide_channels, sizes.pool,
                   GuideSizes::Hop(sizes.sample_rate_hz, sizes.pool),
                   GuideSizes::Fft(sizes.sample_rate_hz)};
    if (guide_channels < 0 || (guide_channels && !sizes.guide.AreSmall())) {
      return "Its header has a size of guides that is not allowed.";
    }
    if (file.Number("decoder_taps", 1024) != 2) {
      return "Its decoders' convolutions do not have two taps, which this program needs.";
    }
    const std::string mu_law = file.Text("mu_law"), activation = file.Text("encoder_activation");
    if ((mu_law != "rounded" && mu_law != "truncated") ||
        (activation != "relu" && activation != "tanh")) {
      return "It asks for a mu-law or an activation that this program does not know.";
    }
    sizes.truncated = mu_law == "truncated";
    sizes.tanh = activation == "tanh";
    sizes.preactivation = file.Text("encoder_preactivation") == "true";
    sizes.has_level = !file.Text("rms_dbfs").empty();
    sizes.rms_dbfs = std::strtod(file.Text("rms_dbfs").c_str(), nullptr);
    sizes.temperature = std::strtof(file.Text("temperature").c_str(), nullptr);
    sizes.top_p = std::strtof(file.Text("top_p").c_str(), nullptr);
    sizes.guide_strength = std::strtof(file.Text("guide_strength").c_str(), nullptr);
    if (!(sizes.rms_dbfs >= -60 && sizes.rms_dbfs <= 0) ||
        !(sizes.temperature >= 0 && std::isfinite(sizes.temperature)) ||
        !(sizes.top_p > 0 && sizes.top_p <= 1) ||
        !(sizes.guide_strength >= 0 && sizes.guide_strength <= kMostGuideStrength)) {
      return "Its header has a level, temperature, top_p or guide_strength that is not allowed.";
    }
    const std::string names = file.Text("domains");
    for (size_t begin = 0; begin <= names.size();) {
      const size_t end = std::min(names.find('\n', begin), names.size());
      if (end > begin) sizes.domains.push_back(names.substr(begin, end - begin));
      begin = end + 1;
    }
    if (sizes.domains.empty() || sizes.domains.size() > 10000) return "It names no domain.";
    return "";
  }

  std::string CheckArrays(const ModelFile& file) const {
    const double k = (double)sizes.domains.size(), q = kLevels, z = sizes.latents;
    const double e = sizes.encoder_channels, c = sizes.channels, s = sizes.skips;
    const double encoder_layers = sizes.NumEncoderLayers(), layers = k * sizes.NumDecoderLayers();
    std::vector<std::pair<std::string, double>> arrays = {
        {"encoder.first.kernel", 3 * e},
        {"encoder.first.bias", e},
        {"encoder.layers.dilated.kernel", encoder_layers * 3 * e * e},
        {"encoder.layers.dilated.bias", encoder_layers * e},
        {"encoder.layers.mix.kernel", encoder_layers * e * e},
        {"encoder.layers.mix.bias", encoder_layers * e},
        {"encoder.latent.kernel", e * z},
        {"encoder.latent.bias", z},
        {"decoders.first.kernel", k * 2 * c},
        {"decoders.first.bias", k * c},
        {"decoders.skip.kernel", k * c * s},
        {"decoders.skip.bias", k * s},
        {"decoders.layers.dilated.kernel", layers * 2 * c * 2 * c},
        {"decoders.layers.dilated.bias", layers * 2 * c},
        {"decoders.layers.condition.kernel", layers * z * 2 * c},
        {"decoders.layers.condition.bias", layers * 2 * c},
        {"decoders.layers.residual.kernel", layers * c * c},
        {"decoders.layers.residual.bias", layers * c},
        {"decoders.layers.skip.kernel", layers * c * s},
        {"decoders.layers.skip.bias", layers * s},
        {"decoders.head.kernel", k * s * s},
        {"decoders.head.bias", k * s},
        {"decoders.condition.kernel", k * z * s},
        {"decoders.condition.bias", k * s},
        {"decoders.logits.kernel", k * s * q},
        {"decoders.logits.bias", k * q},
    };
    if (sizes.guide.channels) {
      const double g = sizes.guide.channels, m = sizes.guide.Magnitudes();
      arrays.insert(arrays.end(),
                    {{"decoders.guide.first.kernel", k * Guide::kFirstTaps * z * g},
                     {"decoders.guide.first.bias", k * g},
                     {"decoders.guide.magnitudes.kernel", k * Guide::kLastTaps * g * m},
                     {"decoders.guide.magnitudes.bias", k * m}});
      for (size_t layer = 0; layer < std::size(Guide::kDilations); ++layer) {
        const std::string dilated = GuideLayer("dilated", layer), mix = GuideLayer("mix", layer);
        arrays.insert(arrays.end(), {{dilated + ".kernel", k * Guide::kDilatedTaps * g * g},
                                     {dilated + ".bias", k * g},
                                     {mix + ".kernel", k * g * g},
                                     {mix + ".bias", k * g}});
      }
    }
    for (const auto& [name, size] : arrays) {
      if (!file.Has(name, size)) {
        return "Its array " + name +
               " is missing, does not fit the sizes in its header, or holds a number that is not "
               "finite.";
      }
    }
    return "";
  }

  // Bytes of packed weights, and of a stream's buffers.
  double NeededBytes() const {
    const double e = sizes.encoder_channels, c = sizes.channels, s = sizes.skips;
    const double z = sizes.latents, k = (double)sizes.domains.size(), p = kPanel;
    const double gates = 2 * c + p, sums = c + s + p, layers = sizes.NumDecoderLayers();
    const double encoder = sizes.NumEncoderLayers() * (4 * e + 2) * (e + p) + (e + 1) * (z + p);
    const double decoder = layers * ((2 * c + z + 1) * gates + (c + p + 1) * sums) +
                           (c + 1) * sums + (s + z + 1) * (s + p) + (s + 1) * (kLevels + p);
    const double stream =
        8 * e * (double)sizes.Reach() + c * (double)sizes.NumRows() + layers * 33 * gates + 64 * z;
    const double g = sizes.guide.channels, m = sizes.guide.Magnitudes();
    const double guide = g ? (g + p) * (Guide::kFirstTaps * z +
                                        (double)std::size(Guide::kDilations) * (3 * g + g + 2)) +
                                 (m + p) * (Guide::kLastTaps * g + 1)
                           : 0;
    const double guided = g ? GuidePlayer::NeededFloats(sizes.guide) : 0;
    return 4 * (encoder + k * (decoder + guide) + stream + guided);
  }

  template <typename Get>
  static void Pack(int depth, int columns, const Get& get, std::vector<float>& packed) {
    const int panels = Panels(columns);
    const size_t begin = packed.size();
    packed.resize(begin + (size_t)depth * panels * kPanel);
    for (int p = 0; p < panels; ++p) {
      for (int i = 0; i < depth; ++i) {
        float* row = packed.data() + begin + ((size_t)p * depth + i) * kPanel;
        for (int j = 0; j < std::min(kPanel, columns - p * kPanel); ++j) {
          row[j] = get(i, p * kPanel + j);
        }
      }
    }
  }

  static Affine Plain(const ModelFile& file, const std::string& kernel, int64_t first, int depth,
                      int columns, const std::string& bias, int64_t first_bias) {
    Affine affine;
    affine.depth = depth;
    affine.panels = Panels(columns);
    const Tensor& numbers = file.Get(kernel);
    auto get = [&](int i, int j) { return numbers[first + (int64_t)i * columns + j]; };
    Pack(depth, columns, get, affine.weights);
    affine.bias.resize(affine.Width());
    if (!bias.empty()) {
      for (int j = 0; j < columns; ++j) affine.bias[j] = file.Get(bias)[first_bias + j];
    }
    return affine;
  }

  static std::string GuideLayer(const char* part, size_t layer) {
    return std::string("decoders.guide.") + part + "_0" + std::to_string(layer);
  }

  static GuideConvolution Convolution(const ModelFile& file, const std::string& name, int domain,
                                      int num_taps, int depth, int columns, int dilation) {
    GuideConvolution convolution{{}, dilation, Guide::Ahead(num_taps, dilation)};
    for (int tap = 0; tap < num_taps; ++tap) {
      const int64_t first = ((int64_t)domain * num_taps + tap) * depth * columns;
      convolution.taps.push_back(Plain(file, name + ".kernel", first, depth, columns,
                                       tap ? "" : name + ".bias", (int64_t)domain * columns));
    }
    return convolution;
  }

  void PackGuide(const ModelFile& file, int domain) {
    const int g = sizes.guide.channels, m = sizes.guide.Magnitudes();
    Guide guide;
    guide.first =
        Convolution(file, "decoders.guide.first", domain, Guide::kFirstTaps, sizes.latents, g, 1);
    for (size_t layer = 0; layer < std::size(Guide::kDilations); ++layer) {
      guide.dilated.push_back(Convolution(file, GuideLayer("dilated", layer), domain,
                                          Guide::kDilatedTaps, g, g, Guide::kDilations[layer]));
      const std::string mix = GuideLayer("mix", layer);
      guide.mixes.push_back(Plain(file, mix + ".kernel", (int64_t)domain * g * g, g, g,
                                  mix + ".bias", (int64_t)domain * g));
    }
    guide.last = Convolution(file, "decoders.guide.magnitudes", domain, Guide::kLastTaps, g, m, 1);
    guides.push_back(std::move(guide));
  }

  // Which of 2 C columns is at a place of the panels, -1 for none.
  int GateColumn(int column) const {
    constexpr int kHalf = kPanel / 2;
    const int channel = column / kPanel * kHalf + column % kHalf;
    return channel < sizes.channels ? column % kPanel / kHalf * sizes.channels + channel : -1;
  }

  void PackDecoder(const ModelFile& file, int domain) {
    const int c = sizes.channels, s = sizes.skips, z = sizes.latents;
    const int num_layers = sizes.NumDecoderLayers(), gates = sizes.GatePanels() * kPanel;
    const int sums = Panels(c + s) * kPanel;
    const int64_t k = domain, first_layer = k * num_layers;
    std::vector<float> packed, added;
    auto numbers = [&](const char* name) -> const Tensor& { return file.Get(name); };
    auto pack_gates = [&](const Tensor& kernel, int64_t begin, int depth,
                          std::vector<float>& target) {
      auto get = [&](int i, int j) {
        const int column = GateColumn(j);
        return column < 0 ? 0.f : kernel[begin + (int64_t)i * 2 * c + column];
      };
      Pack(depth, gates, get, target);
    };
    // Residual and skip beside each other; the first's residual is zero.
    auto pack_sums = [&](const Tensor* residual, const Tensor& skip, int64_t layer, Range rows) {
      auto get = [&](int i, int j) {
        const int64_t row = layer * c + rows.begin + i;
        if (j >= c) return skip[row * s + j - c];
        return residual ? (*residual)[row * c + j] : 0.f;
      };
      Pack(rows.end - rows.begin, c + s, get, packed);
    };
    auto pack_plain = [&](const Tensor& kernel, int columns) {
      auto get = [&](int i, int j) { return kernel[(k * s + i) * columns + j]; };
      Pack(s, columns, get, packed);
    };

    const Tensor &first_kernel = numbers("decoders.first.kernel"),
                 &first_bias = numbers("decoders.first.bias");
    for (int i = 0; i < 2 * c; ++i) added.push_back(first_kernel[k * 2 * c + i]);
    for (int i = 0; i < c; ++i) added.push_back(first_bias[k * c + i]);
    const Tensor& dilated_kernel = numbers("decoders.layers.dilated.kernel");
    for (int64_t layer = first_layer; layer < first_layer + num_layers; ++layer) {
      pack_gates(dilated_kernel, layer * 2 * c * 2 * c, c, packed);
    }
    pack_sums(nullptr, numbers("decoders.skip.kernel"), k, {0, c});
    added.resize(added.size() + sums);
    float* skip_sum = added.data() + added.size() - sums + c;
    for (int j = 0; j < s; ++j) {
      skip_sum[j] = numbers("decoders.skip.bias")[k * s + j];
      for (int64_t layer = first_layer; layer < first_layer + num_layers; ++layer) {
        skip_sum[j] += numbers("decoders.layers.skip.bias")[layer * s + j];
      }
    }
    conditions.emplace_back();
    for (int64_t layer = first_layer; layer < first_layer + num_layers; ++layer) {
      pack_gates(dilated_kernel, (layer * 2 + 1) * c * 2 * c, c, packed);
      const int first = DecoderSizes().FirstPart();
      for (const Range rows : {Range{0, first}, Range{first, c}}) {
        pack_sums(&numbers("decoders.layers.residual.kernel"),
                  numbers("decoders.layers.skip.kernel"), layer, rows);
      }
      for (int j = 0; j < sums; ++j) {
        added.push_back(j < c ? numbers("decoders.layers.residual.bias")[layer * c + j] : 0.f);
      }
      Affine condition;
      condition.depth = z;
      condition.panels = sizes.GatePanels();
      pack_gates(numbers("decoders.layers.condition.kernel"), layer * z * 2 * c, z,
                 condition.weights);
      for (int j = 0; j < gates; ++j) {
        const int64_t column = layer * 2 * c + GateColumn(j);
        condition.bias.push_back(GateColumn(j) < 0
                                     ? 0.f
                                     : numbers("decoders.layers.condition.bias")[column] +
                                           numbers("decoders.layers.dilated.bias")[column]);
      }
      conditions.back().push_back(std::move(condition));
    }
    pack_plain(numbers("decoders.head.kernel"), s);
    pack_plain(numbers("decoders.logits.kernel"), kLevels);
    for (int j = 0; j < kLevels; ++j) {
      added.push_back(numbers("decoders.logits.bias")[k * kLevels + j]);
    }
    Affine head =
        Plain(file, "decoders.condition.kernel", k * z * s, z, s, "decoders.condition.bias", k * s);
    for (int j = 0; j < s; ++j) head.bias[j] += numbers("decoders.head.bias")[k * s + j];
    conditions.back().push_back(std::move(head));
    weights.push_back(std::move(packed));
    biases.push_back(std::move(added));
    decoders.emplace_back((const Float*)weights.back().data(), biases.back().data(),
                          DecoderSizes());
  }
};

}  // namespace umt

#endif  // UMT_JAX_CORE_MODEL_H_
