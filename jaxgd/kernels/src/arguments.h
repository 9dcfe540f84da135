// Checks of the arrays and attributes that JAX gives to the handlers, and the errors that the handlers return.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <new>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace jaxgd {

// A call that a handler refuses, with the error code and the message for JAX.
class Refused : public std::runtime_error {
 public:
  Refused(ffi::ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ffi::ErrorCode code() const { return code_; }

 private:
  ffi::ErrorCode code_;
};

class InvalidArgument : public Refused {
 public:
  explicit InvalidArgument(const std::string& message) : Refused(ffi::ErrorCode::kInvalidArgument, message) {}
};

// Writes a dtype and a shape, as in F32[10,784].
template <typename Shape>
void write_shape(std::ostream& out, ffi::DataType type, const Shape& shape) {
  out << type << "[";
  for (size_t i = 0; i < shape.size(); ++i) out << (i > 0 ? "," : "") << shape[i];
  out << "]";
}
inline std::ostream& operator<<(std::ostream& out, const ffi::AnyBuffer& x) {
  write_shape(out, x.element_type(), x.dimensions());
  return out;
}

// Joins the parts of a message.
template <typename... Parts>
std::string joined(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// Throws InvalidArgument with the joined parts as its message, unless the condition holds.
template <typename... Parts>
void require(bool holds, const Parts&... parts) {
  if (!holds) throw InvalidArgument(joined(parts...));
}

inline void require_shape(std::string_view name, const ffi::AnyBuffer& x, ffi::DataType type,
                          const std::vector<int64_t>& shape) {
  const auto dims = x.dimensions();
  const bool same = dims.size() == shape.size() && std::equal(dims.begin(), dims.end(), shape.begin());
  if (x.element_type() == type && same) return;
  std::ostringstream expected;
  write_shape(expected, type, shape);
  throw InvalidArgument(joined(name, " has another shape or dtype: expected ", expected.str(), ", got ", x));
}

inline ffi::AnyBuffer at(const ffi::RemainingArgs& args, size_t i) {
  const auto x = args.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "argument ", i, " is missing");
  return *x;
}
inline ffi::AnyBuffer at(const ffi::RemainingRets& rets, size_t i) {
  auto x = rets.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "result ", i, " is missing");
  ffi::Result<ffi::AnyBuffer> result = *x;
  return *result;
}

// Returns an attribute of a call.
template <typename T>
T attribute(const ffi::Dictionary& attributes, std::string_view name) {
  const auto value = attributes.get<T>(name);
  require(value.has_value(), "the attribute ", name, " is missing or has another type");
  return *value;
}
template <typename T>
T attribute(const ffi::Dictionary& attributes, std::string_view name, T otherwise) {
  return attributes.contains(name) ? attribute<T>(attributes, name) : otherwise;
}

inline void require_known(const ffi::Dictionary& attributes, std::initializer_list<std::string_view> known) {
  for (const std::string_view name : attributes) {
    require(std::find(known.begin(), known.end(), name) != known.end(), "the attribute ", name, " is unknown");
  }
}

// Runs f, and converts an exception to an error for JAX.
inline ffi::Error guarded(std::string_view name, const std::function<void()>& f) {
  const auto error = [&](ffi::ErrorCode code, std::string_view message) {
    return ffi::Error(code, joined("jaxgd, ", name, ": ", message));
  };
  try {
    f();
    return ffi::Error::Success();
  } catch (const Refused& refused) {
    return error(refused.code(), refused.what());
  } catch (const std::bad_alloc&) {
    return error(ffi::ErrorCode::kResourceExhausted, "out of memory");
  } catch (const std::exception& other) {
    return error(ffi::ErrorCode::kInternal, other.what());
  }
}

}  // namespace jaxgd
