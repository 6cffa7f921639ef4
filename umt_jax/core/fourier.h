// The Fourier transform of real numbers, of which there are a power of two.

#ifndef UMT_JAX_CORE_FOURIER_H_
#define UMT_JAX_CORE_FOURIER_H_

#include <cmath>
#include <utility>
#include <vector>

namespace umt {

// Complex numbers, real parts and imaginary parts apart, so that loops over them are vectorized.
struct Spectrum {
  float *real, *imag;
};

// Transforms of one size. It allocates nothing once it is made.
class Fourier {
 public:
  // `size`: 2 or more.
  explicit Fourier(int size) : size_(size), half_(size / 2), real_(2 * half_), imag_(2 * half_) {
    for (int k = 0; k <= half_; ++k) {
      const double angle = 2 * M_PI * k / size;
      cosines_.push_back((float)std::cos(angle));
      sines_.push_back((float)std::sin(angle));
    }
  }

  // Sets bins 0 to size / 2 of sum over t of samples[t] * exp(-2 pi i k t / size).
  void Forward(const float* samples, Spectrum bins) {
    // Even samples are real parts, odd ones imaginary parts of half as many complex numbers.
    for (int t = 0; t < half_; ++t) {
      real_[t] = samples[2 * t];
      imag_[t] = samples[2 * t + 1];
    }
    const Spectrum z = Transform();
    for (int k = 0; k <= half_; ++k) {
      const int same = k % half_, mirrored = (half_ - k) % half_;
      const float even_real = z.real[same] + z.real[mirrored];
      const float even_imag = z.imag[same] - z.imag[mirrored];
      const float odd_real = z.imag[same] + z.imag[mirrored];
      const float odd_imag = z.real[mirrored] - z.real[same];
      bins.real[k] = 0.5f * (even_real + odd_real * cosines_[k] + odd_imag * sines_[k]);
      bins.imag[k] = 0.5f * (even_imag + odd_imag * cosines_[k] - odd_real * sines_[k]);
    }
  }

  // Sets the samples of which `Forward` makes these bins; the first and the last are taken as real.
  void Inverse(const Spectrum bins, float* samples) {
    for (int k = 0; k < half_; ++k) {
      const int mirrored = half_ - k;
      const float imag = k ? bins.imag[k] : 0.f, mirrored_imag = k ? bins.imag[mirrored] : 0.f;
      const float even_real = bins.real[k] + bins.real[mirrored];
      const float even_imag = imag - mirrored_imag;
      const float apart_real = bins.real[k] - bins.real[mirrored];
      const float apart_imag = imag + mirrored_imag;
      const float odd_real = apart_real * cosines_[k] - apart_imag * sines_[k];
      const float odd_imag = apart_imag * cosines_[k] + apart_real * sines_[k];
      // Of a conjugate the transform is the conjugate of the inverse.
      real_[k] = even_real - odd_imag;
      imag_[k] = -(even_imag + odd_real);
    }
    const Spectrum z = Transform();
    const float scale = 1.f / (float)size_;
    for (int t = 0; t < half_; ++t) {
      samples[2 * t] = scale * z.real[t];
      samples[2 * t + 1] = -scale * z.imag[t];
    }
  }

 private:
  // Transforms the first half of real_ and imag_, by Stockham's algorithm: each pass halves what is
  // left and writes it in order into the other half.
  Spectrum Transform() {
    Spectrum in{real_.data(), imag_.data()}, out{real_.data() + half_, imag_.data() + half_};
    for (int left = half_, stride = 1; left > 1; left /= 2, stride *= 2) {
      for (int p = 0; p < left / 2; ++p) {
        const float c = cosines_[2 * p * stride], s = sines_[2 * p * stride];
        const int one = stride * p, other = stride * (p + left / 2), target = 2 * stride * p;
        for (int q = 0; q < stride; ++q) {
          const float real = in.real[one + q] - in.real[other + q];
          const float imag = in.imag[one + q] - in.imag[other + q];
          out.real[target + q] = in.real[one + q] + in.real[other + q];
          out.imag[target + q] = in.imag[one + q] + in.imag[other + q];
          out.real[target + stride + q] = real * c + imag * s;
          out.imag[target + stride + q] = imag * c - real * s;
        }
      }
      std::swap(in, out);
    }
    return in;
  }

  const int size_, half_;
  std::vector<float> cosines_, sines_;  // Of 2 pi k / size.
  std::vector<float> real_, imag_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_FOURIER_H_
