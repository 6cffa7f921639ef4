// Generates one latent frame of K decoders on a CPU: `native.py` packs the weights, builds this
// file and calls it through XLA's foreign function interface. The decoder is that of `core`.

#include <cstdint>
#include <cstring>

#include "umt_jax/core/generate.h"
#include "umt_jax/core/packing.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Floats = ffi::Buffer<ffi::F32>;

ffi::Error GenerateFrame(int64_t blocks, int64_t layers, int64_t skips, int64_t block_samples,
                         int64_t threads, int64_t most_threads, ffi::AnyBuffer weights,
                         Floats biases, Floats gates, Floats head, Floats noise, Floats rows_in,
                         Floats inputs_in, ffi::Buffer<ffi::S32> clock,
                         Floats temperature_and_top_p, ffi::Result<ffi::Buffer<ffi::U8>> codes,
                         ffi::Result<Floats> rows, ffi::Result<Floats> inputs) {
  const auto shape = rows_in.dimensions();
  const auto times = noise.dimensions();
  const umt::Sizes sizes{(int)shape[0], (int)shape[2], (int)times[0],
                         (int)shape[1], (int)blocks,   (int)layers,
                         (int)shape[3], (int)skips,    (int)block_samples};
  // XLA lets inputs and outputs share memory; where it does not, the state is copied.
  if (rows->typed_data() != rows_in.typed_data()) {
    std::memcpy(rows->typed_data(), rows_in.typed_data(), rows_in.size_bytes());
  }
  if (inputs->typed_data() != inputs_in.typed_data()) {
    std::memcpy(inputs->typed_data(), inputs_in.typed_data(), inputs_in.size_bytes());
  }
  umt::WeightType type;
  switch (weights.element_type()) {
    case ffi::F32:
      type = umt::kFloat32;
      break;
    case ffi::BF16:
      type = umt::kBfloat16;
      break;
    case ffi::S8:
      type = umt::kInt8;
      break;
    default:
      return ffi::Error::InvalidArgument("weights must be float32, bfloat16 or int8");
  }
  const float* numbers = temperature_and_top_p.typed_data();
  umt::GenerateFrame({sizes,
                      type,
                      weights.untyped_data(),
                      (int64_t)weights.size_bytes() / sizes.domains,
                      biases.typed_data(),
                      biases.dimensions()[1],
                      gates.typed_data(),
                      head.typed_data(),
                      noise.typed_data(),
                      rows->typed_data(),
                      inputs->typed_data(),
                      clock.typed_data(),
                      {numbers[0], numbers[1]},
                      codes->typed_data()},
                     (int)threads, (int)most_threads);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_generate_frame, GenerateFrame,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("blocks")
                                  .Attr<int64_t>("layers")
                                  .Attr<int64_t>("skips")
                                  .Attr<int64_t>("block_samples")
                                  .Attr<int64_t>("threads")
                                  .Attr<int64_t>("most_threads")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<Floats>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
