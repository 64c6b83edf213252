// Tables of correlations at given shifts, with derivatives: one thread per item.
#include "tiltwise/body/correlation.hpp"  // for cc_cost

#include "buffer.hpp"   // for Buffer, Stream
#include "grid.hpp"     // for strided_blocks_for
#include "kernels.hpp"  // for the declaration

namespace tiltwise::cuda {

namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads)
    cc_cost_kernel(const float* __restrict__ tables, const int* __restrict__ rows, const double* __restrict__ shifts,
                   double* __restrict__ out, long long n, long long size) {
  for (long long i = static_cast<long long>(blockIdx.x) * threads + threadIdx.x; i < n;
       i += static_cast<long long>(gridDim.x) * threads) {
    body::cc_cost(tables + rows[i] * size * size, size, shifts[2 * i], shifts[2 * i + 1], out + cc_cost_terms * i);
  }
}

}  // namespace

int cc_cost(const CcCostArgs* args, ErrorText* error) {
  return guarded("cc_cost", error, [args] {
    const CcCostArgs& a = *args;
    if (a.n == 0) {
      return;
    }
    const Stream stream;
    const Buffer<float> tables(a.tables, a.m * a.size * a.size, stream);
    const Buffer<int> rows(a.rows, a.n, stream);
    const Buffer<double> shifts(a.shifts, 2 * a.n, stream);
    Buffer<double> out(cc_cost_terms * a.n);
    TW_LAUNCH(cc_cost_kernel, dim3(strided_blocks_for(a.n, threads)), dim3(threads), 0, stream, tables.get(),
              rows.get(), shifts.get(), out.get(), a.n, a.size);
    TW_CHECK(cudaGetLastError());
    out.download(a.out, stream);
    stream.wait();
  });
}

}  // namespace tiltwise::cuda
