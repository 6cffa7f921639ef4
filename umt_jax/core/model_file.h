// A model in one file: safetensors (https://github.com/huggingface/safetensors), whose header's
// metadata holds the sizes; `umt_jax/checkpoints/model_file.py` writes it.

#ifndef UMT_JAX_CORE_MODEL_FILE_H_
#define UMT_JAX_CORE_MODEL_FILE_H_

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace umt {

// An array of the file: float16 or float32.
struct Tensor {
  const char* data = nullptr;
  int64_t size = 0;
  bool half = false;

  float operator[](int64_t index) const {
    if (!half) {
      float value;
      std::memcpy(&value, data + 4 * index, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, data + 2 * index, 2);
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    // Finite: `ModelFile` refuses what is not.
    const float size =
        exponent ? std::ldexp(1024.f + fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    return bits >> 15 ? -size : size;
  }

  bool IsFinite() const {
    for (int64_t i = 0; i < size; ++i) {
      if (half) {
        uint16_t bits;
        std::memcpy(&bits, data + 2 * i, 2);
        if ((bits >> 10 & 31) == 31) return false;
      } else if (!std::isfinite((*this)[i])) {
        return false;
      }
    }
    return true;
  }
};

// Reads the JSON of a header: one object of objects of texts, whole numbers and lists of these.
class HeaderReader {
 public:
  HeaderReader(const char* begin, const char* end) : next_(begin), end_(end) {}

  bool Take(char mark) {
    Skip();
    if (next_ == end_ || *next_ != mark) return false;
    ++next_;
    return true;
  }

  bool TakeText(std::string& text) {
    if (!Take('"')) return false;
    text.clear();
    while (next_ < end_ && *next_ != '"') {
      char letter = *next_++;
      if (letter == '\\') {
        if (next_ == end_) return false;
        letter = *next_++;
        if (letter == 'u') {
          if (!TakeUnicode(text)) return false;
          continue;
        }
        const char* known = std::strchr("\"\"\\\\//b\bf\fn\nr\rt\t", letter);
        if (!known) return false;
        letter = known[1];
      }
      text += letter;
    }
    return Take('"');
  }

  bool TakeNumber(int64_t& number) {
    Skip();
    const char* begin = next_;
    number = 0;
    for (; next_ < end_ && *next_ >= '0' && *next_ <= '9'; ++next_) {
      if (number > INT64_MAX / 10 - 1) return false;
      number = number * 10 + (*next_ - '0');
    }
    return next_ > begin;
  }

  bool TakeNumbers(std::vector<int64_t>& numbers) {
    numbers.clear();
    if (!Take('[')) return false;
    if (Take(']')) return true;
    do {
      numbers.emplace_back();
      if (numbers.size() > 8 || !TakeNumber(numbers.back())) return false;
    } while (Take(','));
    return Take(']');
  }

  bool AtEnd() {
    Skip();
    return next_ == end_;
  }

 private:
  void Skip() {
    while (next_ < end_ && std::memchr(" \t\r\n", *next_, 4)) ++next_;
  }

  bool TakeUnicode(std::string& text) {
    uint32_t point = 0;
    if (!TakeUnit(point)) return false;
    if (point >= 0xd800 && point < 0xdc00) {
      uint32_t low = 0;
      if (end_ - next_ < 2 || next_[0] != '\\' || next_[1] != 'u') return false;
      next_ += 2;
      if (!TakeUnit(low) || low < 0xdc00 || low > 0xdfff) return false;
      point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
    }
    if (point < 0x80) {
      text += (char)point;
    } else if (point < 0x800) {
      text += (char)(0xc0 | point >> 6);
      text += (char)(0x80 | (point & 63));
    } else {
      if (point < 0x10000) {
        text += (char)(0xe0 | point >> 12);
      } else {
        text += (char)(0xf0 | point >> 18);
        text += (char)(0x80 | (point >> 12 & 63));
      }
      text += (char)(0x80 | (point >> 6 & 63));
      text += (char)(0x80 | (point & 63));
    }
    return true;
  }

  bool TakeUnit(uint32_t& unit) {
    if (end_ - next_ < 4) return false;
    for (int i = 0; i < 4; ++i) {
      const char* digits = "0123456789abcdefABCDEF";
      const char* digit = (const char*)std::memchr(digits, *next_++, 22);
      if (!digit) return false;
      const int value = (int)(digit - digits);
      unit = unit << 4 | (value < 16 ? value : value - 6);
    }
    return true;
  }

  const char *next_, *end_;
};

// What a file says of itself, all of it checked against its length.
class ModelFile {
 public:
  static constexpr int64_t kMostHeaderBytes = 1 << 20;

  // Returns what is wrong, "" for nothing.
  std::string Read(const char* file, size_t file_bytes) {
    if (file_bytes < 8) return "It is no model: it has " + std::to_string(file_bytes) + " bytes.";
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | (unsigned char)file[i];
    if (header_bytes > (uint64_t)kMostHeaderBytes || header_bytes > file_bytes - 8) {
      return "It is no model in the format safetensors, or it was cut off.";
    }
    const char* data = file + 8 + header_bytes;
    if (!ReadHeader(file + 8, data, (int64_t)(file_bytes - 8 - header_bytes))) {
      return "It is damaged, or no model in the format safetensors.";
    }
    if (Text("format") != "umt_jax") {
      return "It holds arrays of another program. Write a model with python -m umt_jax.export "
             "--format=safetensors.";
    }
    if (Text("format_version") != "1") {
      return "It is of a newer version of umt_jax than this program.";
    }
    return "";
  }

  std::string Text(const std::string& name) const {
    const auto found = texts_.find(name);
    return found == texts_.end() ? "" : found->second;
  }

  // Returns -1 where there is no such whole number, or one beyond `most`.
  int64_t Number(const std::string& name, int64_t most) const {
    const std::string text = Text(name);
    if (text.empty() || text.size() > 18) return -1;
    for (const char digit : text) {
      if (digit < '0' || digit > '9') return -1;
    }
    const int64_t number = std::strtoll(text.c_str(), nullptr, 10);
    return number <= most ? number : -1;
  }

  // Whether there is such an array of so many numbers, none of them infinite or NaN.
  bool Has(const std::string& name, double size) const {
    const auto found = tensors_.find(name);
    return found != tensors_.end() && (double)found->second.size == size &&
           found->second.IsFinite();
  }

  const Tensor& Get(const std::string& name) const { return tensors_.at(name); }

  // Adds an array that is no file's.
  void Set(const std::string& name, const Tensor& tensor) { tensors_[name] = tensor; }

 private:
  bool ReadHeader(const char* begin, const char* end, int64_t data_bytes) {
    HeaderReader header(begin, end);
    if (!header.Take('{')) return false;
    do {
      std::string name;
      if (!header.TakeText(name) || !header.Take(':') || !header.Take('{')) return false;
      if (name == "__metadata__" ? !ReadTexts(header) : !ReadTensor(header, name, end, data_bytes))
        return false;
    } while (header.Take(','));
    return header.Take('}') && header.AtEnd();
  }

  bool ReadTexts(HeaderReader& header) {
    if (header.Take('}')) return true;
    do {
      std::string name, text;
      if (!header.TakeText(name) || !header.Take(':') || !header.TakeText(text)) return false;
      texts_[name] = text;
    } while (header.Take(','));
    return header.Take('}');
  }

  bool ReadTensor(HeaderReader& header, const std::string& name, const char* data,
                  int64_t data_bytes) {
    std::string type;
    std::vector<int64_t> shape, offsets;
    do {
      std::string field;
      if (!header.TakeText(field) || !header.Take(':')) return false;
      if (field == "dtype" ? !header.TakeText(type)
                           : !header.TakeNumbers(field == "shape" ? shape : offsets))
        return false;
    } while (header.Take(','));
    if (!header.Take('}') || offsets.size() != 2) return false;
    const int width = type == "F16" ? 2 : type == "F32" ? 4 : 0;
    double size = 1;
    for (const int64_t length : shape) size *= (double)length;
    if (offsets[0] > offsets[1] || offsets[1] > data_bytes) return false;
    if (!width) return true;  // Nothing that is read here.
    if (size * width != (double)(offsets[1] - offsets[0])) return false;
    tensors_[name] = {data + offsets[0], (int64_t)size, width == 2};
    return true;
  }

  std::map<std::string, std::string> texts_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_MODEL_FILE_H_
