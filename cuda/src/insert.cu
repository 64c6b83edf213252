// Transpose of project (Eqs. 8-11): one thread per sample, atomics on fixed-point sums.
//
// Sums are integers (fixed_point.hpp), so the result has the same bytes in every run.  The steps are: the
// largest sample that can reach each shell; then, in parts that cannot overflow, insertion into integers
// and their addition to the accumulators.  What is not finite has no integer: it is added to the
// accumulators directly, where infinities and NaN do not depend on the order either.
#include "buffer.hpp"       // for Buffer, Stream
#include "fixed_point.hpp"  // for to_fixed and its kin
#include "grid.hpp"         // for blocks_for, strided_blocks_for
#include "kernels.hpp"      // for the declaration

#include "tiltwise/body/slice.hpp"  // for grid_sample, deposit

#include <algorithm>  // for min

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;
// A sample adds at most its own magnitude to a voxel, so a launch cannot overflow a sum.
static_assert(max_samples_per_launch <= (1 << log2_terms), "sums would overflow");

/// Integer sums of one voxel.
struct FixedVoxel {
  unsigned long long re, im, weight;
};

/// Largest magnitudes in a shell, as bits of floats.
struct Largest {
  unsigned value, weight;
};

/// The samples of a call, on the device.
struct Samples {
  const ComplexF* slices;
  const float* weights;
  const float* matrices;
  const float* frequencies;
  long long k;
  float radius_squared;
  int size;
};

__device__ inline Vec3 point_of(const Samples& samples, long long sample) {
  return body::sample_point(samples.matrices + 9 * (sample / samples.k),
                            samples.frequencies + 3 * (sample % samples.k));
}

/// Largest magnitudes per shell: of the block in shared memory first, since many samples meet in a shell.
__global__ void __launch_bounds__(threads)
    largest_kernel(Samples samples, long long count, Largest* __restrict__ largest, int shells) {
  TW_DYN_SHARED(Largest, of_block);
  for (int shell = static_cast<int>(threadIdx.x); shell < shells; shell += threads) {
    of_block[shell] = {0u, 0u};
  }
  __syncthreads();
  for (long long sample = static_cast<long long>(blockIdx.x) * threads + threadIdx.x; sample < count;
       sample += static_cast<long long>(gridDim.x) * threads) {
    const Vec3 p = point_of(samples, sample);
    if (!body::grid_sample(p, samples.radius_squared, samples.size).inside) {
      continue;
    }
    const ComplexF value = samples.slices[sample];
    const unsigned re = magnitude_bits(value.re), im = magnitude_bits(value.im);
    Largest* const of_shell = of_block + shell_of_point(p);
    atomicMax(&of_shell->value, re > im ? re : im);
    atomicMax(&of_shell->weight, magnitude_bits(samples.weights[sample]));
  }
  __syncthreads();
  for (int shell = static_cast<int>(threadIdx.x); shell < shells; shell += threads) {
    atomicMax(&largest[shell].value, of_block[shell].value);
    atomicMax(&largest[shell].weight, of_block[shell].weight);
  }
}

/// units[s], for the terms that reach shell s.
__global__ void __launch_bounds__(threads)
    units_kernel(const Largest* __restrict__ largest, double2* __restrict__ units, int shells) {
  const int shell = static_cast<int>(blockIdx.x * threads + threadIdx.x);
  if (shell >= shells) {
    return;
  }
  Largest reaching = {0u, 0u};
  for (int s = shell - shell_reach; s <= shell + shell_reach; ++s) {
    if (s >= 0 && s < shells) {
      reaching.value = reaching.value > largest[s].value ? reaching.value : largest[s].value;
      reaching.weight = reaching.weight > largest[s].weight ? reaching.weight : largest[s].weight;
    }
  }
  units[shell] = {units_for(reaching.value), units_for(reaching.weight)};
}

__device__ inline void add(double term, double units, unsigned long long* sum, double* accumulator) {
  if (is_finite(term)) {
    atomicAdd(sum, to_fixed(term, units));
  } else {
    atomicAdd(accumulator, term);
  }
}

__global__ void __launch_bounds__(threads)
    insert_kernel(Samples samples, long long first, long long last, const double2* __restrict__ units,
                  FixedVoxel* __restrict__ sums, ComplexD* __restrict__ data, double* __restrict__ weight) {
  const long long sample = first + static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (sample >= last) {
    return;
  }
  const int size = samples.size;
  const body::GridSample s = body::grid_sample(point_of(samples, sample), samples.radius_squared, size);
  if (!s.inside) {
    return;
  }
  const ComplexF value = samples.slices[sample];
  const float sample_weight = samples.weights[sample];
  const body::RowWeights w = body::row_weights(s.fy, s.fz);
  for (int row = 0; row < 4; ++row) {
    const int y = row % 2 != 0 ? s.y1 : s.y0, z = row / 2 != 0 ? s.z1 : s.z0;
    const float row_weight = row == 0 ? w.w00 : row == 1 ? w.w01 : row == 2 ? w.w10 : w.w11;
    const long long index = body::voxel_index(s.x, y, z, size);
    for (int column = 0; column < 2; ++column) {
      const double2 unit = units[shell_of_voxel(s.x + column, y, z, size)];
      const body::Deposit d =
          body::deposit(value, sample_weight, s.fold, body::corner_weight(row_weight, s.fx, column));
      FixedVoxel* const sum = sums + index + column;
      add(d.data.re, unit.x, &sum->re, &data[index + column].re);
      add(d.data.im, unit.x, &sum->im, &data[index + column].im);
      add(d.weight, unit.y, &sum->weight, weight + index + column);
    }
  }
}

/// Adds the integer sums to the accumulators and clears them.
__global__ void __launch_bounds__(threads)
    empty_kernel(FixedVoxel* __restrict__ sums, const double2* __restrict__ units, ComplexD* __restrict__ data,
                 double* __restrict__ weight, int size) {
  const long long columns = size / 2 + 1;
  const long long voxel = static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (voxel >= columns * size * size) {
    return;
  }
  const FixedVoxel sum = sums[voxel];
  if ((sum.re | sum.im | sum.weight) == 0) {
    return;
  }
  const int x = static_cast<int>(voxel % columns), y = static_cast<int>(voxel / columns % size);
  const int z = static_cast<int>(voxel / columns / size);
  const double2 unit = units[shell_of_voxel(x, y, z, size)];
  data[voxel].re += from_fixed(sum.re, unit.x);
  data[voxel].im += from_fixed(sum.im, unit.x);
  weight[voxel] += from_fixed(sum.weight, unit.y);
  sums[voxel] = {0, 0, 0};
}

/// Calls launch(first, last) for parts of the samples that one launch can take.
template <class Launch>
void for_each_part(std::int64_t samples, const Launch& launch) {
  for (std::int64_t first = 0; first < samples; first += max_samples_per_launch) {
    launch(first, std::min(samples, first + max_samples_per_launch));
    TW_CHECK(cudaGetLastError());
  }
}

void insert_all(const InsertArgs& a) {
  const std::int64_t voxels = a.size * a.size * (a.size / 2 + 1), n_samples = a.n * a.k;
  const auto size = static_cast<int>(a.size);
  const Stream stream;
  const Buffer<ComplexF> slices(a.slices, n_samples, stream);
  const Buffer<float> weights(a.weights, n_samples, stream);
  const Buffer<float> matrices(a.matrices, 9 * a.n, stream), frequencies(a.frequencies, 3 * a.k, stream);
  Buffer<ComplexD> data(a.data, voxels, stream);
  Buffer<double> weight(a.weight, voxels, stream);
  Buffer<FixedVoxel> sums(voxels);
  sums.clear(stream);
  const int shells = shell_count(size);
  Buffer<Largest> largest(shells);
  largest.clear(stream);
  Buffer<double2> units(shells);
  const Samples samples = {
      slices.get(), weights.get(), matrices.get(), frequencies.get(), a.k, static_cast<float>(a.radius * a.radius),
      size};
  TW_LAUNCH(largest_kernel, dim3(strided_blocks_for(n_samples, threads)), dim3(threads),
            static_cast<std::size_t>(shells) * sizeof(Largest), stream, samples, n_samples, largest.get(), shells);
  TW_CHECK(cudaGetLastError());
  TW_LAUNCH(units_kernel, dim3(blocks_for(shells, threads)), dim3(threads), 0, stream, largest.get(), units.get(),
            shells);
  TW_CHECK(cudaGetLastError());
  for_each_part(n_samples, [&](std::int64_t first, std::int64_t last) {
    TW_LAUNCH(insert_kernel, dim3(blocks_for(last - first, threads)), dim3(threads), 0, stream, samples, first, last,
              units.get(), sums.get(), data.get(), weight.get());
    TW_LAUNCH(empty_kernel, dim3(blocks_for(voxels, threads)), dim3(threads), 0, stream, sums.get(), units.get(),
              data.get(), weight.get(), size);
  });
  data.download(a.data, stream);
  weight.download(a.weight, stream);
  stream.wait();
}

}  // namespace

int insert(const InsertArgs* args, ErrorText* error) {
  return guarded("insert", error, [args] {
    if (args->n > 0 && args->k > 0) {
      insert_all(*args);
    }
  });
}

}  // namespace tiltwise::cuda
