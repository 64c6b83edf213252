// Sizes of grids.
#pragma once

#include "launch.hpp"  // for dim3

#include <algorithm>  // for min
#include <cstdint>    // for int64_t
#include <stdexcept>  // for length_error

#if !defined(TW_GRID_ROWS)
#define TW_GRID_ROWS 65535  // what every device takes along y
#endif

namespace tiltwise::cuda {

/// Blocks of `per_block` that cover `count`, along x.
inline unsigned blocks_for(std::int64_t count, std::int64_t per_block) {
  const std::int64_t blocks = (count + per_block - 1) / per_block;
  if (blocks > 0x7fffffff) {
    throw std::length_error("the problem has more elements than one launch can take");
  }
  return static_cast<unsigned>(blocks);
}

/// Extent along y for kernels that walk over `count` in strides of gridDim.y.
inline unsigned rows_for(std::int64_t count) {
  return static_cast<unsigned>(std::min<std::int64_t>(count, TW_GRID_ROWS));
}

}  // namespace tiltwise::cuda
