// Prints what the layers of training give for numbers that are the same everywhere: losses of a
// decoder's head, sums of its layers, features of an encoder, and all their gradients.

#include <cstdint>
#include <cstdio>
#include <vector>

#include "umt_jax/core/code_losses.h"
#include "umt_jax/core/dilated_stack.h"
#include "umt_jax/core/gated_stack.h"

namespace {

using Floats = std::vector<float>;

constexpr int64_t kItems = 2, kSamples = 261, kFrames = 9, kChannels = 19, kSkips = 21;
const int32_t kDilations[] = {1, 2, 130, 300};
constexpr int64_t kLayers = 4;

// Numbers between -size and size: a linear congruential generator's upper bits.
Floats Numbers(int64_t count, float size) {
  static uint32_t state = 1;
  Floats numbers(count);
  for (float& number : numbers) {
    state = state * 1664525u + 1013904223u;
    number = size * ((float)(state >> 8) / (1 << 23) - 1);
  }
  return numbers;
}

void Print(const char* name, const Floats& numbers) {
  for (const float number : numbers) std::printf("%s %.9g\n", name, number);
}

void Gated() {
  const int64_t c = kChannels, s = kSkips;
  const Floats x = Numbers(kItems * kSamples * c, 1), skips = Numbers(kItems * kSamples * s, 1);
  const Floats condition = Numbers(kLayers * kItems * kFrames * 2 * c, 1);
  const Floats dilated = Numbers(kLayers * 2 * c * 2 * c, .4f);
  const Floats residual = Numbers(kLayers * c * c, .3f), residual_bias = Numbers(kLayers * c, .3f);
  const Floats skip = Numbers(kLayers * c * s, .3f), skip_bias = Numbers(kLayers * s, .3f);
  const umt::GatedStack<umt::Single> stack(
      {kItems, kSamples, kLayers, 2, c, s, kFrames, 2, kDilations},
      {dilated.data(), residual.data(), residual_bias.data(), skip.data(), skip_bias.data()});
  const int64_t kept = kItems * kLayers * kSamples * umt::Padded(c);
  Floats sums(skips.size()), inputs(kept), halves(2 * kept);
  stack.Forward(x.data(), skips.data(), condition.data(), sums.data(), inputs.data(),
                halves.data());
  Print("sums", sums);
  Floats x_grads(x.size()), condition_grads(condition.size()), dilated_grads(dilated.size());
  Floats residual_grads(residual.size()), residual_bias_grads(residual_bias.size());
  Floats skip_grads(skip.size()), skip_bias_grads(skip_bias.size());
  stack.Backward(
      sums.data(), inputs.data(), halves.data(),
      {x_grads.data(), condition_grads.data(), dilated_grads.data(), residual_grads.data(),
       residual_bias_grads.data(), skip_grads.data(), skip_bias_grads.data()});
  Print("gated.x", x_grads);
  Print("gated.condition", condition_grads);
  Print("gated.dilated", dilated_grads);
  Print("gated.residual", residual_grads);
  Print("gated.residual_bias", residual_bias_grads);
  Print("gated.skip", skip_grads);
  Print("gated.skip_bias", skip_bias_grads);
}

void Dilated(bool preactivation, bool tanh) {
  const int64_t c = kChannels;
  const Floats x = Numbers(kItems * kSamples * c, 1);
  const Floats dilated = Numbers(kLayers * 3 * c * c, .3f), bias = Numbers(kLayers * c, .3f);
  const Floats mix = Numbers(kLayers * c * c, .3f), mix_bias = Numbers(kLayers * c, .3f);
  const umt::DilatedStack<umt::Single> stack(
      {kItems, kSamples, kLayers, c, 1, kDilations, preactivation, tanh},
      {dilated.data(), bias.data(), mix.data(), mix_bias.data()});
  const int64_t kept = kItems * kLayers * kSamples * umt::Padded(c);
  Floats y(x.size()), inputs(kept), hidden(kept);
  stack.Forward(x.data(), y.data(), inputs.data(), hidden.data());
  Print("features", y);
  Floats x_grads(x.size()), dilated_grads(dilated.size()), bias_grads(bias.size());
  Floats mix_grads(mix.size()), mix_bias_grads(mix_bias.size());
  stack.Backward(y.data(), inputs.data(), hidden.data(),
                 {x_grads.data(), dilated_grads.data(), bias_grads.data(), mix_grads.data(),
                  mix_bias_grads.data()});
  Print("dilated.x", x_grads);
  Print("dilated.dilated", dilated_grads);
  Print("dilated.bias", bias_grads);
  Print("dilated.mix", mix_grads);
  Print("dilated.mix_bias", mix_bias_grads);
}

void Losses() {
  const int64_t s = kSkips;
  const Floats skips = Numbers(kItems * kSamples * s, 1), frames = Numbers(kItems * kFrames * s, 1);
  const Floats head = Numbers(s * s, .5f), logits = Numbers(s * umt::kLevels, 2);
  const Floats logits_bias = Numbers(umt::kLevels, 1), grads = Numbers(kItems * kSamples, 1);
  std::vector<int32_t> codes;
  for (const float number : Numbers(kItems * kSamples, 1)) {
    codes.push_back((int32_t)((number + 1) * 127));
  }
  const umt::CodeLosses<umt::Single> losses({kItems, kSamples, kFrames, s, 3},
                                            {head.data(), logits.data(), logits_bias.data()});
  const int64_t kept = kItems * kSamples * umt::Padded(s);
  Floats nats(grads.size()), summed(kept), hidden(kept);
  losses.Forward(skips.data(), frames.data(), codes.data(), nats.data(), summed.data(),
                 hidden.data());
  Print("nats", nats);
  Floats skip_grads(skips.size()), frame_grads(frames.size()), head_grads(head.size());
  Floats logits_grads(logits.size()), logits_bias_grads(logits_bias.size());
  losses.Backward(grads.data(), codes.data(), summed.data(), hidden.data(),
                  {skip_grads.data(), frame_grads.data(), head_grads.data(), logits_grads.data(),
                   logits_bias_grads.data()});
  Print("losses.skips", skip_grads);
  Print("losses.frames", frame_grads);
  Print("losses.head", head_grads);
  Print("losses.logits", logits_grads);
  Print("losses.logits_bias", logits_bias_grads);
}

}  // namespace

int main() {
  Gated();
  Dilated(false, false);
  Dilated(true, true);
  Losses();
}
