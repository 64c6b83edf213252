// Sums of products over Fourier shells (Eqs. 12, 13, FSC): one block per image and shell.
//
// The components of every shell are listed once, on the host.  A block then adds its own in a fixed order:
// no atomics, the same bytes in every run.
#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for blocks_for
#include "kernels.hpp"  // for the declaration
#include "reduce.hpp"   // for block_sum

#include "tiltwise/body/maximise.hpp"  // for real_product

#include <vector>  // for vector

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

/// Components ordered by shell: those of shell s are order[start[s]] .. order[start[s + 1] - 1].
struct ShellLists {
  std::vector<long long> start, order;
};

ShellLists list_shells(const ShellSumsArgs& a) {
  const auto inside = [&a](std::int64_t k) { return a.shells[k] >= 0 && a.shells[k] < a.n_shells; };
  ShellLists lists;
  lists.start.assign(static_cast<std::size_t>(a.n_shells + 1), 0);
  for (std::int64_t k = 0; k < a.k; ++k) {
    if (inside(k)) {
      ++lists.start[static_cast<std::size_t>(a.shells[k] + 1)];
    }
  }
  for (std::size_t s = 1; s < lists.start.size(); ++s) {
    lists.start[s] += lists.start[s - 1];
  }
  lists.order.resize(static_cast<std::size_t>(lists.start.back()));
  std::vector<long long> next = lists.start;
  for (std::int64_t k = 0; k < a.k; ++k) {
    if (inside(k)) {
      lists.order[static_cast<std::size_t>(next[static_cast<std::size_t>(a.shells[k])]++)] = k;
    }
  }
  return lists;
}

/// `weights` may be null.
__global__ void __launch_bounds__(threads)
    shell_kernel(const ComplexF* __restrict__ a, const ComplexF* __restrict__ b, const float* __restrict__ weights,
                 const long long* __restrict__ start, const long long* __restrict__ order, double* __restrict__ out,
                 long long k, long long n_shells) {
  const long long image = blockIdx.x / n_shells, shell = blockIdx.x % n_shells;
  double sum = 0.0;
  for (long long i = start[shell] + threadIdx.x; i < start[shell + 1]; i += threads) {
    const long long component = order[i];
    const double product = body::real_product(a[image * k + component], b[image * k + component]);
    sum += weights != nullptr ? static_cast<double>(weights[component]) * product : product;
  }
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = sum;
  }
}

}  // namespace

int shell_sums(const ShellSumsArgs* args, ErrorText* error) {
  return guarded("shell_sums", error, [args] {
    const ShellSumsArgs& a = *args;
    if (a.n == 0 || a.n_shells == 0) {
      return;
    }
    const ShellLists lists = list_shells(a);
    const Stream stream;
    const Buffer<ComplexF> left(a.a, a.n * a.k, stream), right(a.b, a.n * a.k, stream);
    const Buffer<float> weights(a.weights, a.weights != nullptr ? a.k : 0, stream);
    const Buffer<long long> start(lists.start.data(), a.n_shells + 1, stream);
    const Buffer<long long> order(lists.order.data(), lists.start.back(), stream);
    Buffer<double> out(a.n * a.n_shells);
    TW_LAUNCH(shell_kernel, dim3(blocks_for(a.n * a.n_shells, 1)), dim3(threads), 0, stream, left.get(), right.get(),
              weights.get(), start.get(), order.get(), out.get(), a.k, a.n_shells);
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
