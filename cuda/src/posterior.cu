// Normalised posterior of one particle over rotations and shifts (Eq. 1), by log-sum-exp.
//
// Sums are those of blocks, in a fixed order, added on the host in the order of blocks.  The significant
// set needs no sorting: poses are ranked by one key of 13 bytes, value first and position second, and the
// key of the last pose kept is found byte by byte from the masses of the 256 values of the next byte.
// These masses are integers, so they do not depend on the order of atomics.
#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for, strided_blocks_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

#include "tiltwise/body/maximise.hpp"  // for log_joint, relative_weight

#include <algorithm>  // for fill_n, max, min
#include <cmath>      // for log, ldexp, llrint
#include <limits>     // for numeric_limits
#include <vector>     // for vector

namespace tiltwise::cuda {

namespace {

using Mass = unsigned long long;

constexpr int threads = 256;
constexpr int values_of_byte = 256;
constexpr int bytes_of_value = 8, bytes_of_position = 5;
constexpr unsigned long long last_position = (1ull << (8 * bytes_of_position)) - 1;

/// The joint log-probabilities of all poses, on the device.
struct Joint {
  const float* log_likelihood;
  const float* log_prior_rotation;
  const float* log_prior_shift;
  long long n_shifts, count;

  __device__ double at(long long pose) const {
    return body::log_joint(log_likelihood[pose], log_prior_rotation[pose / n_shifts], log_prior_shift[pose % n_shifts]);
  }
};

/// Rank of a pose: larger is better.
struct Key {
  unsigned long long value;     ///< orders like the joint log-probability
  unsigned long long position;  ///< falls with the index, so that the first of equal poses comes first

  __device__ unsigned byte(int i) const {
    return static_cast<unsigned>(i < bytes_of_value ? value >> (8 * (bytes_of_value - 1 - i))
                                                    : position >> (8 * (bytes_of_value + bytes_of_position - 1 - i))) &
           0xffu;
  }
};

/// The first `bytes` bytes of the key of the last pose kept.
struct Prefix {
  Key key;
  int bytes;

  __device__ Key cut(Key k) const {
    const int of_value = bytes < bytes_of_value ? bytes : bytes_of_value, of_position = bytes - of_value;
    const auto keep = [](unsigned long long number, int all, int kept) {
      return kept == 0 ? 0ull : number >> (8 * (all - kept)) << (8 * (all - kept));
    };
    return {keep(k.value, bytes_of_value, of_value), keep(k.position, bytes_of_position, of_position)};
  }
  __device__ bool matches(Key k) const {
    const Key c = cut(k);
    return c.value == key.value && c.position == key.position;
  }
  __device__ bool reached_by(Key k) const {
    const Key c = cut(k);
    return c.value > key.value || (c.value == key.value && c.position >= key.position);
  }
};

/// Normalisation, the same for all poses.
struct Scale {
  double top, total;
  double units;  ///< of masses, per 1
};

__device__ inline Key key_of(double joint, long long pose) {
  joint += 0.0;  // one zero
  unsigned long long bits;
  memcpy(&bits, &joint, sizeof bits);
  const unsigned long long sign = 1ull << 63;
  return {(bits & sign) != 0 ? ~bits : bits | sign, last_position - static_cast<unsigned long long>(pose)};
}

__device__ inline Mass mass_of(double joint, const Scale& scale) {
  return static_cast<Mass>(::llrint(body::relative_weight(joint, scale.top) * scale.units));
}

/// What a block finds: its best pose, and whether one is NaN.
struct Top {
  double joint;
  long long pose;
  int has_nan;
};

__device__ __host__ inline bool is_better(const Top& a, const Top& b) {
  return a.joint > b.joint || (a.joint == b.joint && a.pose < b.pose);
}

__global__ void __launch_bounds__(threads) top_kernel(Joint joint, Top* __restrict__ tops) {
  TW_SHARED(Top[threads], found);
  const int thread = static_cast<int>(threadIdx.x);
  Top top = {-INFINITY, joint.count, 0};
  for (long long pose = static_cast<long long>(blockIdx.x) * threads + thread; pose < joint.count;
       pose += static_cast<long long>(gridDim.x) * threads) {
    const Top here = {joint.at(pose), pose, 0};
    top.has_nan |= here.joint != here.joint ? 1 : 0;
    if (is_better(here, top)) {
      top.joint = here.joint;
      top.pose = here.pose;
    }
  }
  found[thread] = top;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
      const Top other = found[thread + half];
      const int has_nan = found[thread].has_nan | other.has_nan;
      if (is_better(other, found[thread])) {
        found[thread] = other;
      }
      found[thread].has_nan = has_nan;
    }
  }
  if (thread == 0) {
    tops[blockIdx.x] = found[0];
  }
}

/// Sums of a block.
struct Sums {
  double total;              ///< of weights relative to the best pose
  double weighted_exponent;  ///< of weight * (joint - top)
};

__global__ void __launch_bounds__(threads) sums_kernel(Joint joint, double top, Sums* __restrict__ sums) {
  double total = 0.0, weighted_exponent = 0.0;
  for (long long pose = static_cast<long long>(blockIdx.x) * threads + threadIdx.x; pose < joint.count;
       pose += static_cast<long long>(gridDim.x) * threads) {
    const double j = joint.at(pose), weight = body::relative_weight(j, top);
    if (weight > 0.0) {
      total += weight;
      weighted_exponent += weight * (j - top);
    }
  }
  total = block_sum<threads>(total);
  weighted_exponent = block_sum<threads>(weighted_exponent);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = {total, weighted_exponent};
  }
}

/// Mass and number of the poses that match the prefix, by the value of the next byte.
__global__ void __launch_bounds__(threads)
    histogram_kernel(Joint joint, Scale scale, Prefix prefix, Mass* __restrict__ mass,
                     unsigned long long* __restrict__ number) {
  static_assert(threads == values_of_byte, "a thread clears and adds one bin");
  TW_SHARED(Mass[values_of_byte], block_mass);
  TW_SHARED(unsigned long long[values_of_byte], block_number);
  block_mass[threadIdx.x] = 0;
  block_number[threadIdx.x] = 0;
  __syncthreads();
  for (long long pose = static_cast<long long>(blockIdx.x) * threads + threadIdx.x; pose < joint.count;
       pose += static_cast<long long>(gridDim.x) * threads) {
    const double j = joint.at(pose);
    const Key key = key_of(j, pose);
    if (prefix.matches(key)) {
      const unsigned byte = key.byte(prefix.bytes);
      atomicAdd(&block_mass[byte], mass_of(j, scale));
      atomicAdd(&block_number[byte], 1ull);
    }
  }
  __syncthreads();
  if (block_number[threadIdx.x] != 0) {
    atomicAdd(&mass[threadIdx.x], block_mass[threadIdx.x]);
    atomicAdd(&number[threadIdx.x], block_number[threadIdx.x]);
  }
}

__global__ void __launch_bounds__(threads)
    weights_kernel(Joint joint, Scale scale, Prefix prefix, float* __restrict__ weights) {
  const long long pose = static_cast<long long>(blockIdx.x) * threads + threadIdx.x;
  if (pose < joint.count) {
    const double j = joint.at(pose);
    const bool kept = prefix.reached_by(key_of(j, pose));
    weights[pose] = kept ? static_cast<float>(body::relative_weight(j, scale.top) / scale.total) : 0.0f;
  }
}

/// The best pose of all; `has_nan` if any is.
Top find_top(const Joint& joint, unsigned blocks, const Stream& stream) {
  Buffer<Top> buffer(blocks);
  TW_LAUNCH(top_kernel, dim3(blocks), dim3(threads), 0, stream, joint, buffer.get());
  TW_CHECK(cudaGetLastError());
  std::vector<Top> tops(blocks);
  buffer.download(tops.data(), stream);
  stream.wait();
  Top best = {-std::numeric_limits<double>::infinity(), joint.count, 0};
  for (const Top& top : tops) {
    const int has_nan = best.has_nan | top.has_nan;
    best = is_better(top, best) ? top : best;
    best.has_nan = has_nan;
  }
  return best;
}

Sums add_weights(const Joint& joint, double top, unsigned blocks, const Stream& stream) {
  Buffer<Sums> buffer(blocks);
  TW_LAUNCH(sums_kernel, dim3(blocks), dim3(threads), 0, stream, joint, top, buffer.get());
  TW_CHECK(cudaGetLastError());
  std::vector<Sums> of_blocks(blocks);
  buffer.download(of_blocks.data(), stream);
  stream.wait();
  Sums all = {0.0, 0.0};
  for (const Sums& s : of_blocks) {
    all.total += s.total;
    all.weighted_exponent += s.weighted_exponent;
  }
  return all;
}

/// Finds the smallest set of best poses that holds `fraction` of the mass: how many they are, and the
/// prefix of the last one.
std::int64_t find_significant(const Joint& joint, const Scale& scale, double fraction, unsigned blocks,
                              const Stream& stream, Prefix& prefix) {
  Buffer<Mass> mass_buffer(values_of_byte), number_buffer(values_of_byte);
  Mass mass[values_of_byte], number[values_of_byte], needed = 0, above = 0;
  std::int64_t count_above = 0;
  prefix = {{0, 0}, 0};
  while (prefix.bytes < bytes_of_value + bytes_of_position) {
    mass_buffer.clear(stream);
    number_buffer.clear(stream);
    TW_LAUNCH(histogram_kernel, dim3(blocks), dim3(threads), 0, stream, joint, scale, prefix, mass_buffer.get(),
              number_buffer.get());
    TW_CHECK(cudaGetLastError());
    mass_buffer.download(mass, stream);
    number_buffer.download(number, stream);
    stream.wait();
    if (prefix.bytes == 0) {
      Mass total = 0;
      for (const Mass m : mass) {
        total += m;
      }
      const long double wanted = static_cast<long double>(fraction) * static_cast<long double>(total);
      needed = wanted > 1.0L ? static_cast<Mass>(std::ceil(wanted)) : 1;  // at least the best pose
      needed = std::min(needed, total);
    }
    unsigned byte = values_of_byte - 1;
    for (; above + mass[byte] < needed; --byte) {
      above += mass[byte];
      count_above += static_cast<std::int64_t>(number[byte]);
    }
    if (prefix.bytes < bytes_of_value) {
      prefix.key.value |= static_cast<unsigned long long>(byte) << (8 * (bytes_of_value - 1 - prefix.bytes));
    } else {
      const int place = bytes_of_value + bytes_of_position - 1 - prefix.bytes;
      prefix.key.position |= static_cast<unsigned long long>(byte) << (8 * place);
    }
    ++prefix.bytes;
    if (number[byte] == 1) {
      break;  // the prefix names one pose already
    }
  }
  return count_above + 1;
}

void summarise(const PosteriorArgs& a) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::int64_t count = a.n_rotations * a.n_shifts;
  *a.summary = {-infinity, 0, 0.0, 0, 0.0};
  std::fill_n(a.weights, count, 0.0f);
  if (count == 0) {
    return;
  }
  const Stream stream;
  const Buffer<float> likelihood(a.log_likelihood, count, stream);
  const Buffer<float> prior_rotation(a.log_prior_rotation, a.n_rotations, stream);
  const Buffer<float> prior_shift(a.log_prior_shift, a.n_shifts, stream);
  const Joint joint = {likelihood.get(), prior_rotation.get(), prior_shift.get(), a.n_shifts, count};
  const unsigned blocks = strided_blocks_for(count, threads);
  const Top top = find_top(joint, blocks, stream);
  if (top.has_nan != 0 || top.joint == infinity) {
    a.summary->log_evidence = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  if (top.joint == -infinity) {
    return;
  }
  const Sums sums = add_weights(joint, top.joint, blocks, stream);
  a.summary->log_evidence = top.joint + std::log(sums.total);
  a.summary->best = top.pose;
  a.summary->max_probability = 1.0 / sums.total;
  a.summary->entropy = std::log(sums.total) - sums.weighted_exponent / sums.total;
  // As fine as the sum of `count` weights of at most 1 allows in 62 bits, and no finer than a double.
  const int bits = std::min(52, 62 - static_cast<int>(std::ceil(std::log2(static_cast<double>(count)))));
  const Scale scale = {top.joint, sums.total, std::ldexp(1.0, bits)};
  Prefix prefix;
  a.summary->n_significant = find_significant(joint, scale, a.fraction, blocks, stream, prefix);
  Buffer<float> weights(count);
  TW_LAUNCH(weights_kernel, dim3(blocks_for(count, threads)), dim3(threads), 0, stream, joint, scale, prefix,
            weights.get());
  TW_CHECK(cudaGetLastError());
  weights.download(a.weights, stream);
  stream.wait();
}

}  // namespace

int posterior(const PosteriorArgs* args, ErrorText* error) {
  return guarded("posterior", error, [args] { summarise(*args); });
}

}  // namespace tiltwise::cuda
