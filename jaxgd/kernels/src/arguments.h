// Checks of the arrays that JAX gives to the handlers, and the errors that the handlers return.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace jaxgd {

// Arrays or a state of the process with which a handler cannot run.
struct Refused {
  ffi::ErrorCode code;
  std::string message;
};

struct InvalidArgument : Refused {
  explicit InvalidArgument(std::string message) : Refused{ffi::ErrorCode::kInvalidArgument, std::move(message)} {}
};

// Describes a dtype and a shape, as in F32[10,784].
template <typename Shape>
std::string describe(ffi::DataType type, const Shape& shape) {
  std::ostringstream text;
  text << type << "[";
  for (size_t i = 0; i < shape.size(); ++i) text << (i > 0 ? "," : "") << shape[i];
  text << "]";
  return text.str();
}
inline std::string describe(const ffi::AnyBuffer& x) { return describe(x.element_type(), x.dimensions()); }

inline void require(bool holds, const std::string& message) {
  if (!holds) throw InvalidArgument(message);
}

inline void require_shape(const std::string& name, const ffi::AnyBuffer& x, ffi::DataType type,
                          const std::vector<int64_t>& shape) {
  const auto dims = x.dimensions();
  const bool same = dims.size() == shape.size() && std::equal(dims.begin(), dims.end(), shape.begin());
  if (x.element_type() == type && same) return;
  throw InvalidArgument(name + " has another shape or dtype: expected " + describe(type, shape) + ", got " +
                        describe(x));
}

inline ffi::AnyBuffer at(const ffi::RemainingArgs& args, size_t i) {
  const auto x = args.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "argument " + std::to_string(i) + " is missing");
  return *x;
}
inline ffi::AnyBuffer at(const ffi::RemainingRets& rets, size_t i) {
  auto x = rets.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "result " + std::to_string(i) + " is missing");
  ffi::Result<ffi::AnyBuffer> result = *x;
  return *result;
}

// Runs f, and converts an exception to an error for JAX.
inline ffi::Error guarded(const char* name, const std::function<void()>& f) {
  const std::string who = std::string("jaxgd, ") + name + ": ";
  try {
    f();
    return ffi::Error::Success();
  } catch (const Refused& error) {
    return ffi::Error(error.code, who + error.message);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, who + "out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(who + error.what());
  }
}

}  // namespace jaxgd
