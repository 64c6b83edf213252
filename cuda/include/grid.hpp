// Sizes of grids.
#pragma once

#include "launch.hpp"  // for dim3

#include <algorithm>  // for min
#include <cstdint>    // for int64_t
#include <stdexcept>  // for length_error

namespace tiltwise::cuda {

#if defined(TW_SMALL_GRIDS)
// In the emulator small problems must need strides and several launches, too.
constexpr std::int64_t max_rows = 2, max_strided_blocks = 3, max_samples_per_launch = 500;
#else
/// What every device takes along y.
constexpr std::int64_t max_rows = 65535;
/// Enough to fill a device, few enough for the results of blocks to be cheap.
constexpr std::int64_t max_strided_blocks = 1024;
/// Samples that one launch may insert (fixed_point.hpp).
constexpr std::int64_t max_samples_per_launch = 1 << 20;
#endif

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
  return static_cast<unsigned>(std::min(count, max_rows));
}

/// Blocks for kernels that walk over `count` in strides of the grid.
inline unsigned strided_blocks_for(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>(std::min((count + per_block - 1) / per_block, max_strided_blocks));
}

}  // namespace tiltwise::cuda
