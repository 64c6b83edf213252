// Kernels with one planted bug each, and the correct ones they come from.
#pragma once

#include "launch.hpp"  // for TW_SHARED and the emulated CUDA

namespace planted {

constexpr unsigned threads = 64;

/// Sum of `threads` numbers per block, by halves.
__global__ void block_sum(const float* in, float* out) {
  TW_DYN_SHARED(float, partial);
  const unsigned t = threadIdx.x;
  partial[t] = in[blockIdx.x * blockDim.x + t];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) {
      partial[t] += partial[t + half];
    }
    __syncthreads();
  }
  if (t == 0) {
    out[blockIdx.x] = partial[0];
  }
}

/// The same by shuffles within warps.
__global__ void warp_sum(const float* in, float* out) {
  TW_SHARED(float[threads / 32], partial);
  float sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned delta = 16; delta > 0; delta /= 2) {
    sum += __shfl_down_sync(0xffffffffu, sum, delta);
  }
  if (threadIdx.x % 32 == 0) {
    partial[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    out[blockIdx.x] = partial[0] + partial[1];
  }
}

/// No barrier between the first write and the sums.
__global__ void missing_first_barrier(const float* in, float* out) {
  TW_DYN_SHARED(float, partial);
  const unsigned t = threadIdx.x;
  partial[t] = in[blockIdx.x * blockDim.x + t];
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) {
      partial[t] += partial[t + half];
    }
    __syncthreads();
  }
  if (t == 0) {
    out[blockIdx.x] = partial[0];
  }
}

/// A tile is overwritten while others may still read it: every order from 0 to 63 hides that.
__global__ void missing_second_barrier(const float* in, float* out) {
  TW_SHARED(float[threads], tile);
  const unsigned t = threadIdx.x;
  float sum = 0.0f;
  for (int pass = 0; pass < 2; ++pass) {
    tile[t] = in[blockIdx.x * blockDim.x + t] + static_cast<float>(pass);
    __syncthreads();
    for (unsigned i = 0; i < threads; ++i) {
      sum += tile[i];
    }
  }
  out[blockIdx.x * blockDim.x + t] = sum;
}

/// All threads add to one number without an atomic; threads that run in turn lose nothing.
__global__ void lost_update(const float* in, float* out) {
  out[0] += in[blockIdx.x * blockDim.x + threadIdx.x];
}

__global__ void atomic_update(const float* in, float* out) {
  atomicAdd(out, in[blockIdx.x * blockDim.x + threadIdx.x]);
}

/// Every block writes the same word.
__global__ void blocks_collide(const float* in, float* out) {
  if (threadIdx.x == 0) {
    out[0] = in[blockIdx.x];
  }
}

__global__ void divergent_barrier(const float* in, float* out) {
  if (threadIdx.x < threads / 2) {
    __syncthreads();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void return_before_barrier(const float* in, float* out) {
  if (threadIdx.x == 5) {
    return;
  }
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void divergent_shuffle(const float* in, float* out) {
  float value = in[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    value = __shfl_down_sync(0xffffffffu, value, 1);
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = value;
}

/// Half of a warp waits for the block, the other half for the warp.
__global__ void barrier_against_shuffle(const float* in, float* out) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  }
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);
}

__global__ void partial_mask(const float* in, float* out) {
  out[threadIdx.x] = __shfl_xor_sync(0xffffu, in[threadIdx.x], 1);
}

/// Launched with 40 threads: the second warp has 8 lanes.
__global__ void shuffle_out_of_block(const float* in, float* out) {
  out[threadIdx.x] = __shfl_down_sync(0xffffffffu, in[threadIdx.x], 16);
}

/// `offset` elements beyond its own.
__global__ void write_at(const float* in, float* out, long long offset) {
  out[static_cast<long long>(threadIdx.x) + offset] = in[threadIdx.x];
}

__global__ void read_at(const float* in, float* out, long long offset) {
  out[threadIdx.x] = in[static_cast<long long>(threadIdx.x) + offset];
}

__global__ void static_overrun(const float* in, float* out) {
  TW_SHARED(float[threads], first);
  TW_SHARED(float[threads], second);
  first[threadIdx.x] = in[threadIdx.x];
  second[threadIdx.x] = in[threadIdx.x];
  float* const beyond = first;
  beyond[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = second[threadIdx.x];
}

__global__ void dynamic_overrun(const float* in, float* out) {
  TW_DYN_SHARED(float, tile);
  tile[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

__global__ void too_much_shared(const float* in, float* out) {
  TW_SHARED(float[threads * 256], large);  // 64 KiB
  large[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = large[threadIdx.x];
}

__global__ void misaligned_atomic(const float*, float* out) {
  auto* bytes = reinterpret_cast<unsigned char*>(out) + 4;
  atomicAdd(reinterpret_cast<unsigned long long*>(bytes), 1ull);
}

/// Votes and shuffles of a full warp, for their values.
__global__ void votes(const float* in, float* out) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned even = __ballot_sync(0xffffffffu, lane % 2 == 0);
  const int any = __any_sync(0xffffffffu, lane == 7), none = __any_sync(0xffffffffu, lane == 40);
  const int all = __all_sync(0xffffffffu, lane < 32), most = __all_sync(0xffffffffu, lane < 31);
  const float up = __shfl_up_sync(0xffffffffu, in[threadIdx.x], 1);
  const float first = __shfl_sync(0xffffffffu, in[threadIdx.x], 0);
  const bool right = even == 0x55555555u && any && !none && all && !most &&
                     up == in[lane == 0 ? threadIdx.x : threadIdx.x - 1] && first == in[threadIdx.x - lane];
  out[threadIdx.x] = right ? 1.0f : 0.0f;
}

}  // namespace planted
