// Cross and quadratic terms of the expanded likelihood (Eq. 4).
//
// The cross terms are a matrix product, (rotations x components) * (components x shifts): a block computes
// a tile of it from tiles in shared memory, a thread 4 x 4 of its numbers.  Long sums are cut into a number
// of parts that depends on the extents alone, and the parts are added in order.
#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, rows_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

#include "tiltwise/body/choice.hpp"    // for chosen
#include "tiltwise/body/residual.hpp"  // for add_cross, add_quadratic, shifted_image

#include <algorithm>  // for clamp, min
#include <cmath>      // for HUGE_VALF

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;
constexpr int per_thread = 4;     // rotations, and shifts, of one thread
constexpr int threads_shift = 8;  // threads along the shifts of a tile
constexpr int threads_rotation = threads / threads_shift;
constexpr int tile_rotations = per_thread * threads_rotation;  // 64
constexpr int tile_shifts = per_thread * threads_shift;        // 32
constexpr int tile_components = 16;                            // 128 bytes of a row: one memory transaction
/// Floats are summed over this many components, the partial sums in double.
constexpr int components_per_sum = 256;
static_assert(components_per_sum % tile_components == 0, "sums end with a tile");
/// With fewer tiles than this, long sums are cut: enough blocks to fill a device.
constexpr std::int64_t enough_blocks = 512;

// One column more than needed: rows that are written together fall into different banks.
using RotationTile = ComplexF[tile_components][tile_rotations + 1];
using ShiftTile = ComplexF[tile_components][tile_shifts + 1];

/// A pair of floats in one load; rows of ComplexF are aligned to 8 bytes in device memory.
__device__ inline ComplexF load(const ComplexF* address) {
  const float2 pair = __ldg(reinterpret_cast<const float2*>(address));
  return {pair.x, pair.y};
}

/// partial[part, r, t] = sum over the components of part blockIdx.z.
__global__ void __launch_bounds__(threads)
    cross_kernel(const ComplexF* __restrict__ slices, const ComplexF* __restrict__ image,
                 const ComplexF* __restrict__ phases, const int* __restrict__ rows, const int* __restrict__ columns,
                 float* __restrict__ partial, long long n_rotations, long long n_shifts, long long k,
                 long long components_per_part) {
  TW_SHARED(RotationTile, slice_tile);
  TW_SHARED(ShiftTile, shifted_tile);
  const long long first_rotation = static_cast<long long>(blockIdx.x) * tile_rotations;
  const long long first_shift = static_cast<long long>(blockIdx.y) * tile_shifts;
  const long long first = blockIdx.z * components_per_part;
  const long long last = first + components_per_part < k ? first + components_per_part : k;
  const int thread = static_cast<int>(threadIdx.x);
  const int my_shift = thread % threads_shift, my_rotation = thread / threads_shift;
  const int load_component = thread % tile_components, load_row = thread / tile_components;
  constexpr int rows_per_load = threads / tile_components;

  float sum[per_thread][per_thread] = {};
  double total[per_thread][per_thread] = {};
  for (long long start = first; start < last; start += tile_components) {
    const long long component = start + load_component;
    const bool in_range = component < last;
    for (int row = load_row; row < tile_rotations; row += rows_per_load) {
      const bool valid = in_range && first_rotation + row < n_rotations;
      slice_tile[load_component][row] =
          valid ? load(slices + body::chosen(rows, first_rotation + row) * k + component) : ComplexF{0.0f, 0.0f};
    }
    for (int row = load_row; row < tile_shifts; row += rows_per_load) {
      const bool valid = in_range && first_shift + row < n_shifts;
      shifted_tile[load_component][row] =
          valid ? body::shifted_image(load(image + component),
                                      load(phases + body::chosen(columns, first_shift + row) * k + component))
                : ComplexF{0.0f, 0.0f};
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < tile_components; ++c) {
      ComplexF slice[per_thread], shifted[per_thread];
#pragma unroll
      for (int i = 0; i < per_thread; ++i) {
        slice[i] = slice_tile[c][my_rotation + i * threads_rotation];
        shifted[i] = shifted_tile[c][my_shift + i * threads_shift];
      }
#pragma unroll
      for (int i = 0; i < per_thread; ++i) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
          sum[i][j] = body::add_cross(sum[i][j], slice[i], shifted[j]);
        }
      }
    }
    __syncthreads();
    const long long done = start + tile_components - first;
    if (done % components_per_sum == 0 || start + tile_components >= last) {
#pragma unroll
      for (int i = 0; i < per_thread; ++i) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
          total[i][j] += static_cast<double>(sum[i][j]);
          sum[i][j] = 0.0f;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < per_thread; ++i) {
    const long long rotation = first_rotation + my_rotation + i * threads_rotation;
#pragma unroll
    for (int j = 0; j < per_thread; ++j) {
      const long long shift = first_shift + my_shift + j * threads_shift;
      if (rotation < n_rotations && shift < n_shifts) {
        partial[(blockIdx.z * n_rotations + rotation) * n_shifts + shift] = static_cast<float>(total[i][j]);
      }
    }
  }
}

/// cross[i] = sum over the parts, in order; minus infinity where it is not wanted.
__global__ void __launch_bounds__(threads)
    add_parts_kernel(const float* __restrict__ partial, const bool* __restrict__ wanted, float* __restrict__ cross,
                     long long count, long long parts) {
  const long long i = static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (i >= count) {
    return;
  }
  double sum = 0.0;
  for (long long part = 0; part < parts; ++part) {
    sum += static_cast<double>(partial[part * count + i]);
  }
  cross[i] = wanted == nullptr || wanted[i] ? static_cast<float>(sum) : -HUGE_VALF;
}

/// One block per rotation.
__global__ void __launch_bounds__(threads)
    quadratic_kernel(const ComplexF* __restrict__ slices, const float* __restrict__ power, const int* __restrict__ rows,
                     float* __restrict__ quadratic, long long k) {
  const ComplexF* slice = slices + body::chosen(rows, blockIdx.x) * k;
  double total = 0.0;
  for (long long first = threadIdx.x; first < k; first += static_cast<long long>(components_per_sum) * threads) {
    float sum = 0.0f;
    for (int i = 0; i < components_per_sum && first + i * threads < k; ++i) {
      const long long component = first + i * threads;
      sum = body::add_quadratic(sum, load(slice + component), power[component]);
    }
    total += static_cast<double>(sum);
  }
  total = block_sum<threads>(total);
  if (threadIdx.x == 0) {
    quadratic[blockIdx.x] = static_cast<float>(total);
  }
}

struct Parts {
  std::int64_t count, components;
};

/// How the sums over components are cut; a function of the extents alone.
Parts cut_sums(std::int64_t tiles, std::int64_t k) {
  const std::int64_t sums = (k + components_per_sum - 1) / components_per_sum;
  const std::int64_t wanted = std::clamp<std::int64_t>(enough_blocks / tiles, 1, std::max<std::int64_t>(sums, 1));
  const std::int64_t components = (sums + wanted - 1) / wanted * components_per_sum;
  return {components > 0 ? (k + components - 1) / components : 1, components};
}

/// A list in device memory; without elements, hence null, where the host has none.
template <class Element>
std::int64_t length(const Element* list, std::int64_t count) {
  return list != nullptr ? count : 0;
}

void cross_terms(const ScoreArgs& a, const Buffer<ComplexF>& slices, const Buffer<int>& rows, const Stream& stream) {
  const Buffer<ComplexF> image(a.image, a.k, stream);
  const Buffer<ComplexF> phases(a.phases, a.n_phases * a.k, stream);
  const Buffer<int> columns(a.columns, length(a.columns, a.n_shifts), stream);
  const dim3 tiles(blocks_for(a.n_rotations, tile_rotations), blocks_for(a.n_shifts, tile_shifts));
  const Parts parts = cut_sums(static_cast<std::int64_t>(tiles.x) * tiles.y, a.k);
  const std::int64_t count = a.n_rotations * a.n_shifts;
  Buffer<float> partial(parts.count * count);
  const Buffer<bool> wanted(a.wanted, length(a.wanted, count), stream);
  TW_LAUNCH(cross_kernel, dim3(tiles.x, tiles.y, static_cast<unsigned>(parts.count)), dim3(threads), 0, stream,
            slices.get(), image.get(), phases.get(), rows.get(), columns.get(), partial.get(), a.n_rotations,
            a.n_shifts, a.k, parts.components);
  TW_CHECK(cudaGetLastError());
  Buffer<float> cross(count);
  TW_LAUNCH(add_parts_kernel, dim3(blocks_for(count, threads)), dim3(threads), 0, stream, partial.get(), wanted.get(),
            cross.get(), count, parts.count);
  TW_CHECK(cudaGetLastError());
  cross.download(a.cross, stream);
  stream.wait();
}

void quadratic_terms(const ScoreArgs& a, const Buffer<ComplexF>& slices, const Buffer<int>& rows,
                     const Stream& stream) {
  const Buffer<float> power(a.power, a.k, stream);
  Buffer<float> quadratic(a.n_rotations);
  TW_LAUNCH(quadratic_kernel, dim3(blocks_for(a.n_rotations, 1)), dim3(threads), 0, stream, slices.get(), power.get(),
            rows.get(), quadratic.get(), a.k);
  TW_CHECK(cudaGetLastError());
  quadratic.download(a.quadratic, stream);
  stream.wait();
}

}  // namespace

int score(const ScoreArgs* args, ErrorText* error) {
  return guarded("score", error, [args] {
    const ScoreArgs& a = *args;
    if (a.n_rotations == 0) {
      return;
    }
    const Stream stream;
    const Buffer<ComplexF> slices(a.slices, a.n_slices * a.k, stream);
    const Buffer<int> rows(a.rows, length(a.rows, a.n_rotations), stream);
    if (a.n_shifts > 0) {
      cross_terms(a, slices, rows, stream);
    }
    quadratic_terms(a, slices, rows, stream);
  });
}

}  // namespace tiltwise::cuda
