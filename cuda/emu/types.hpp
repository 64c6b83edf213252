// Vector types and keywords of CUDA C++ as g++ must see them.
#pragma once

namespace cuda_emu {

/// Extent of a grid or block, or position in one.
struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};

}  // namespace cuda_emu

using uint3 = cuda_emu::Index3;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(8) float2 {
  float x, y;
};

struct alignas(16) double2 {
  double x, y;
};

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// `__shared__` stays undefined on purpose: static shared memory is declared with TW_SHARED, so that it can
// be filled with NaN before every block (section attributes are ignored on statics of templates).
