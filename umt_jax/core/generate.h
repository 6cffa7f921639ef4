// Shares the streams of several decoders out among threads.

#ifndef UMT_JAX_CORE_GENERATE_H_
#define UMT_JAX_CORE_GENERATE_H_

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "umt_jax/core/decoder.h"

namespace umt {

template <typename Weight>
void Generate(Sizes sizes, int threads, const Weight* weights, int64_t num_weights,
              const float* biases, int64_t num_biases, const float* gates, const float* head,
              const float* noise, float* rows, float* inputs, const int32_t* clock, Nucleus nucleus,
              uint8_t* codes) {
  // Each decoder's streams are shared out where there are more threads than decoders.
  const int groups = std::clamp(threads / sizes.domains, 1, sizes.streams);
  std::vector<Work<Weight>> works;
  for (int k = 0; k < sizes.domains; ++k) {
    const Decoder<Weight> decoder(weights + k * num_weights, biases + k * num_biases, sizes);
    const int gate = decoder.layers[0].past.panels * kPanel, skips = decoder.head.panels * kPanel;
    for (int group = 0; group < groups; ++group) {
      works.push_back({sizes, decoder, k, sizes.streams * group / groups,
                       sizes.streams * (group + 1) / groups,
                       gates + (int64_t)k * sizes.streams * sizes.NumLayers() * gate,
                       head + (int64_t)k * sizes.streams * skips, noise,
                       rows + (int64_t)k * sizes.rows * sizes.streams * sizes.channels,
                       inputs + (int64_t)k * sizes.streams * 2, clock[k], nucleus, codes});
    }
  }
  std::vector<std::thread> workers;
  const int count = std::min<int>(threads, works.size());
  auto run = [&](int worker) {
    for (size_t i = worker; i < works.size(); i += count) {
      typename Work<Weight>::Buffers buffers(works[i]);
      works[i].Run(buffers, 0, sizes.samples);
    }
  };
  for (int worker = 1; worker < count; ++worker) workers.emplace_back(run, worker);
  run(0);
  for (std::thread& worker : workers) worker.join();
}

}  // namespace umt

#endif  // UMT_JAX_CORE_GENERATE_H_
