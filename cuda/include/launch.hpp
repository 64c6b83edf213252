// How kernels are launched and declare shared memory: the same source for nvcc and for the emulator.
//
// TW_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
// TW_DYN_SHARED(float, name)            pointer to the dynamic shared memory of the block
// TW_SHARED(float[8][32], name)         static shared memory
//
// A kernel template with several arguments goes in parentheses: TW_LAUNCH((k<int, 4>), ...).
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>  // for the CUDA runtime

namespace tiltwise::cuda {

template <class T>
using Same = T;

}  // namespace tiltwise::cuda

#define TW_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#define TW_DYN_SHARED(type, name)                      \
  extern __shared__ double2 tiltwise_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(tiltwise_dynamic_shared)
#define TW_SHARED(type, name) __shared__ tiltwise::cuda::Same<type> name

#else

#include "cuda_emu.hpp"  // for the emulated CUDA runtime

#define TW_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_emu::launch(#kernel, kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__)
#define TW_DYN_SHARED(type, name) type* const name = static_cast<type*>(::cuda_emu::dynamic_shared())
#define TW_SHARED(type, name) auto& name = ::cuda_emu::shared_array<type>([] {})

#endif
