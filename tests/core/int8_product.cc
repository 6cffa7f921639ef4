// A product with a matrix of 8-bit numbers, for test_int8.py, by what this is compiled for. Alone
// it prints the columns of a panel and of a register, and how many products one instruction adds.
// With ROWS DEPTH PANELS it reads the matrix, as `packing.panels` lays it out, and the rows,
// float32, and writes their product.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "umt_jax/core/int8.h"
#include "umt_jax/core/packing.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::printf("%d %d %d\n", umt_panel_columns(), umt_register_columns(), umt_int8_products());
    return 0;
  }
  const int rows = std::atoi(argv[1]);
  umt::Matrix<umt::Int8> matrix{nullptr, std::atoi(argv[2]), std::atoi(argv[3])};
  const int columns = matrix.panels * umt::kPanel;
  std::vector<umt::Int8> weights((size_t)matrix.Steps() * columns);
  std::vector<float> in((size_t)rows * matrix.depth), out((size_t)rows * columns);
  if (std::fread(weights.data(), sizeof(umt::Int8), weights.size(), stdin) != weights.size()) {
    return 1;
  }
  if (std::fread(in.data(), sizeof(float), in.size(), stdin) != in.size()) return 1;
  matrix.data = weights.data();
  umt::Rounded<umt::Int8> rounded;
  matrix.Add(in.data(), matrix.depth, rows, out.data(), columns, rounded);
  return std::fwrite(out.data(), sizeof(float), out.size(), stdout) != out.size();
}
