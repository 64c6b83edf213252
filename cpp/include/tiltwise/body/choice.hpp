// Optional lists of indices.
#pragma once

#include "tiltwise/base/hd.hpp"  // for TW_HD

#include <cstdint>  // for int32_t, int64_t

namespace tiltwise::body {

/// Element i of a list, or i itself without one.
TW_HD std::int64_t chosen(const std::int32_t* list, std::int64_t i) {
  return list != nullptr ? list[i] : i;
}

}  // namespace tiltwise::body
