// Networks in training on a CPU: `native_layers.py` builds this file and calls it through
// XLA's foreign function interface. What it computes is in `core`.

#include <cstdint>
#include <cstring>

#include "umt_jax/core/code_losses.h"
#include "umt_jax/core/dilated_stack.h"
#include "umt_jax/core/gated_stack.h"
#include "umt_jax/core/packing.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Floats = ffi::Buffer<ffi::F32>;
using Numbers = ffi::Buffer<ffi::S32>;
using NewFloats = ffi::Result<Floats>;

float* Zeroed(NewFloats& array) {
  std::memset(array->typed_data(), 0, array->size_bytes());
  return array->typed_data();
}

// Runs work(Number{}) for the numbers of an array that is kept.
template <typename Work>
ffi::Error WithNumbers(ffi::DataType type, const Work& work) {
  if (type == ffi::F32) {
    work(umt::Single{});
    return ffi::Error::Success();
  }
#if defined(__AVX512BF16__)
  if (type == ffi::BF16) {
    work(umt::Brain{});
    return ffi::Error::Success();
  }
#endif
  return ffi::Error::InvalidArgument("This processor keeps activations in float32 alone.");
}

umt::GatedShape ShapeOf(const Floats& x, const Floats& skips, const Floats& dilated,
                        const Numbers& dilations, int64_t frames, int64_t threads) {
  return {x.dimensions()[0],
          x.dimensions()[1],
          dilated.dimensions()[0],
          dilated.dimensions()[1],
          x.dimensions()[2],
          skips.dimensions()[2],
          frames,
          threads,
          dilations.typed_data()};
}

ffi::Error GatedForward(int64_t threads, int64_t frames, Floats x, Floats skips, Floats condition,
                        Floats dilated, Floats residual, Floats residual_bias, Floats skip,
                        Floats skip_bias, Numbers dilations, NewFloats sums,
                        ffi::Result<ffi::AnyBuffer> inputs, ffi::Result<ffi::AnyBuffer> halves) {
  const umt::GatedShape shape = ShapeOf(x, skips, dilated, dilations, frames, threads);
  const umt::GatedWeights weights{dilated.typed_data(), residual.typed_data(),
                                  residual_bias.typed_data(), skip.typed_data(),
                                  skip_bias.typed_data()};
  return WithNumbers(inputs->element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::GatedStack<Number>(shape, weights)
        .Forward(x.typed_data(), skips.typed_data(), condition.typed_data(), sums->typed_data(),
                 (Stored*)inputs->untyped_data(), (Stored*)halves->untyped_data());
  });
}

ffi::Error GatedBackward(int64_t threads, int64_t frames, Floats grads, ffi::AnyBuffer inputs,
                         ffi::AnyBuffer kept_halves, Floats dilated, Floats residual, Floats skip,
                         Numbers dilations, NewFloats x_grads, NewFloats condition_grads,
                         NewFloats dilated_grads, NewFloats residual_grads,
                         NewFloats residual_bias_grads, NewFloats skip_grads,
                         NewFloats skip_bias_grads, ffi::Result<ffi::AnyBuffer> halves) {
  const umt::GatedShape shape = ShapeOf(*x_grads, grads, dilated, dilations, frames, threads);
  // XLA lets both share memory; where it does not, they are copied.
  if (halves->untyped_data() != kept_halves.untyped_data()) {
    std::memcpy(halves->untyped_data(), kept_halves.untyped_data(), kept_halves.size_bytes());
  }
  const umt::GatedWeights weights{dilated.typed_data(), residual.typed_data(), nullptr,
                                  skip.typed_data(), nullptr};
  const umt::GatedGrads all{x_grads->typed_data(),       condition_grads->typed_data(),
                            Zeroed(dilated_grads),       Zeroed(residual_grads),
                            Zeroed(residual_bias_grads), Zeroed(skip_grads),
                            Zeroed(skip_bias_grads)};
  return WithNumbers(inputs.element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::GatedStack<Number>(shape, weights)
        .Backward(grads.typed_data(), (const Stored*)inputs.untyped_data(),
                  (Stored*)halves->untyped_data(), all);
  });
}

umt::DilatedShape ShapeOf(const Floats& x, const Floats& dilated, const Numbers& dilations,
                          bool preactivation, bool tanh, int64_t threads) {
  return {x.dimensions()[0], x.dimensions()[1],      dilated.dimensions()[0], x.dimensions()[2],
          threads,           dilations.typed_data(), preactivation,           tanh};
}

ffi::Error DilatedForward(int64_t threads, bool preactivation, bool tanh, Floats x, Floats dilated,
                          Floats dilated_bias, Floats mix, Floats mix_bias, Numbers dilations,
                          NewFloats y, ffi::Result<ffi::AnyBuffer> inputs,
                          ffi::Result<ffi::AnyBuffer> hidden) {
  const umt::DilatedShape shape = ShapeOf(x, dilated, dilations, preactivation, tanh, threads);
  const umt::DilatedWeights weights{dilated.typed_data(), dilated_bias.typed_data(),
                                    mix.typed_data(), mix_bias.typed_data()};
  return WithNumbers(inputs->element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::DilatedStack<Number>(shape, weights)
        .Forward(x.typed_data(), y->typed_data(), (Stored*)inputs->untyped_data(),
                 (Stored*)hidden->untyped_data());
  });
}

ffi::Error DilatedBackward(int64_t threads, bool preactivation, bool tanh, Floats grads,
                           ffi::AnyBuffer inputs, ffi::AnyBuffer hidden, Floats dilated, Floats mix,
                           Numbers dilations, NewFloats x_grads, NewFloats dilated_grads,
                           NewFloats dilated_bias_grads, NewFloats mix_grads,
                           NewFloats mix_bias_grads) {
  const umt::DilatedShape shape = ShapeOf(grads, dilated, dilations, preactivation, tanh, threads);
  const umt::DilatedWeights weights{dilated.typed_data(), nullptr, mix.typed_data(), nullptr};
  const umt::DilatedGrads all{x_grads->typed_data(), Zeroed(dilated_grads),
                              Zeroed(dilated_bias_grads), Zeroed(mix_grads),
                              Zeroed(mix_bias_grads)};
  return WithNumbers(inputs.element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::DilatedStack<Number>(shape, weights)
        .Backward(grads.typed_data(), (const Stored*)inputs.untyped_data(),
                  (const Stored*)hidden.untyped_data(), all);
  });
}

ffi::Error LossesForward(int64_t threads, Floats skips, Floats frames, Numbers codes, Floats head,
                         Floats logits, Floats logits_bias, NewFloats nats,
                         ffi::Result<ffi::AnyBuffer> summed, ffi::Result<ffi::AnyBuffer> hidden) {
  const auto shape = skips.dimensions();
  const umt::HeadShape sizes{shape[0], shape[1], frames.dimensions()[1], shape[2], threads};
  const umt::HeadWeights weights{head.typed_data(), logits.typed_data(), logits_bias.typed_data()};
  return WithNumbers(summed->element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::CodeLosses<Number>(sizes, weights)
        .Forward(skips.typed_data(), frames.typed_data(), codes.typed_data(), nats->typed_data(),
                 (Stored*)summed->untyped_data(), (Stored*)hidden->untyped_data());
  });
}

ffi::Error LossesBackward(int64_t threads, Floats grads, Numbers codes, ffi::AnyBuffer summed,
                          ffi::AnyBuffer hidden, Floats head, Floats logits, Floats logits_bias,
                          NewFloats skip_grads, NewFloats frame_grads, NewFloats head_grads,
                          NewFloats logits_grads, NewFloats logits_bias_grads) {
  const auto shape = skip_grads->dimensions();
  const umt::HeadShape sizes{shape[0], shape[1], frame_grads->dimensions()[1], shape[2], threads};
  const umt::HeadWeights weights{head.typed_data(), logits.typed_data(), logits_bias.typed_data()};
  const umt::HeadGrads all{skip_grads->typed_data(), frame_grads->typed_data(), Zeroed(head_grads),
                           Zeroed(logits_grads), Zeroed(logits_bias_grads)};
  return WithNumbers(summed.element_type(), [&](auto number) {
    using Number = decltype(number);
    using Stored = typename Number::Stored;
    umt::CodeLosses<Number>(sizes, weights)
        .Backward(grads.typed_data(), codes.typed_data(), (const Stored*)summed.untyped_data(),
                  (const Stored*)hidden.untyped_data(), all);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_gated_forward, GatedForward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Attr<int64_t>("frames")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Ret<Floats>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_gated_backward, GatedBackward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Attr<int64_t>("frames")
                                  .Arg<Floats>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_dilated_forward, DilatedForward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("preactivation")
                                  .Attr<bool>("tanh")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Ret<Floats>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_dilated_backward, DilatedBackward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Attr<bool>("preactivation")
                                  .Attr<bool>("tanh")
                                  .Arg<Floats>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_losses_forward, LossesForward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_losses_backward, LossesBackward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("threads")
                                  .Arg<Floats>()
                                  .Arg<Numbers>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
