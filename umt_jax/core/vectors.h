// Floats of one register of this processor, and the functions that layers need of them.

#ifndef UMT_JAX_CORE_VECTORS_H_
#define UMT_JAX_CORE_VECTORS_H_

#include <cstdint>
#include <cstring>

namespace umt {

// Floats of one register, registers of one row of a panel, and what a block of many rows takes of
// these at once: rows and registers. Their sums, one row of the panel and one input must all fit
// into the processor's registers: 32 with AVX-512 (24 + 4 + 1 used), 16 with AVX2 (12 + 2 + 1),
// 32 with NEON (16 + 4 + 1; SSE has 16 and keeps some of them in memory).
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 4, kBlockRows = 6, kBlockRegisters = 4;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kRegisters = 4, kBlockRows = 6, kBlockRegisters = 2;
#else
constexpr int kWidth = 4, kRegisters = 8, kBlockRows = 4, kBlockRegisters = 4;
#endif
constexpr int kPanel = kWidth * kRegisters;
constexpr int kCacheLine = 64;  // Bytes, of x86-64 and of most ARM processors.

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Words __attribute__((vector_size(4 * kWidth)));

inline Vector Load(const float* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof vector);
  return vector;
}

inline void Store(float* target, Vector vector) { std::memcpy(target, &vector, sizeof vector); }

inline Vector Fill(float value) { return value - Vector{}; }

// exp(x) = 2^n exp(r): n whole, |r| at most half of ln 2. Constants are those of `expf` in the
// Cephes library (S. L. Moshier, single/expf.c): log2(e); ln 2 as a number of few bits, which n
// times is exact, less the rest; and the polynomial, within 2 ulp of exp(r). For |x| up to 87.
inline Vector Exp(Vector x) {
  const Vector magic = Fill(12582912.f);  // 1.5 * 2^23: adding it rounds to whole numbers.
  const Vector shifted = x * 1.44269504f + magic;
  const Vector whole = shifted - magic;
  const Vector r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vector y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  // Adds n to the exponent, which lies above the 23 bits of the fraction.
  return (Vector)((Words)y + (((Words)shifted - (Words)magic) << 23));
}

// log(x) of a positive normal number: x = 2^n m, m between sqrt(1/2) and sqrt(2). The polynomial is
// that of `logf` in the Cephes library (S. L. Moshier, single/logf.c).
inline Vector Log(Vector x) {
  const Words bits = (Words)x;
  // Numbers from sqrt(2) on count to the next power of two.
  const Words n = (bits - 0x3f3504f3) >> 23;
  const Vector m = (Vector)(bits - (n << 23)) - 1.f, square = m * m;
  Vector y = m * 7.0376836292e-2f - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  const Vector exponent = __builtin_convertvector(n, Vector);
  return m + (y * m * square - exponent * 2.12194440e-4f - square * 0.5f) + exponent * 0.693359375f;
}

inline Vector Clamp(Vector x, float limit) {
  x = x > Fill(limit) ? Fill(limit) : x;
  return x < Fill(-limit) ? Fill(-limit) : x;
}

// sigmoid(a) * tanh(b). Beyond the limits they are constant within float32's rounding of a sum of
// order 1: sigmoid(-30) is 1e-13, sigmoid(30) and tanh(10) round to 1.
inline Vector Gate(Vector a, Vector b) {
  const Vector ea = Exp(-Clamp(a, 30.f)), eb = Exp(2.f * Clamp(b, 10.f));
  return (eb - 1.f) / ((eb + 1.f) * (1.f + ea));
}

inline float Sum(Vector vector) {
  float sum = 0;
  for (int i = 0; i < kWidth; ++i) sum += vector[i];
  return sum;
}

}  // namespace umt

#endif  // UMT_JAX_CORE_VECTORS_H_
