// The kernel table of the plugin, and whether this machine can use it.
#include "check.hpp"    // for TW_CHECK, guarded
#include "kernels.hpp"  // for the entries

#include <cstdio>  // for snprintf

#if !defined(TW_BACKEND_NAME)
#define TW_BACKEND_NAME "cuda"
#endif

namespace tiltwise::cuda {

namespace {

/// Stands for all kernels: a device that cannot run it can run none.
__global__ void probe_kernel() {}

int refuse(ErrorText* error, const char* format, int a = 0, int b = 0, int c = 0, int d = 0) {
  std::snprintf(error->text, sizeof error->text, format, a, b, c, d);
  static_cast<void>(cudaGetLastError());
  return status_unavailable;
}

}  // namespace

int available(ErrorText* error) {
  int driver = 0, runtime = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return refuse(error, "no NVIDIA driver was found");
  }
  static_cast<void>(cudaRuntimeGetVersion(&runtime));
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code == cudaErrorInsufficientDriver) {
    return refuse(error, "the NVIDIA driver supports CUDA %d.%d, this plugin needs %d.%d", driver / 1000,
                  driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  }
  if (code == cudaErrorNoDevice || (code == cudaSuccess && devices == 0)) {
    return refuse(error, "no CUDA device was found");
  }
  return guarded("device", error, [code] {
    TW_CHECK(code);
    cudaFuncAttributes attributes;
    TW_CHECK(cudaFuncGetAttributes(&attributes, probe_kernel));
  });
}

namespace {

const KernelTable table = {abi_number, TW_BACKEND_NAME, available,   project,    insert,
                           score,      posterior,       backproject, shell_sums, curvature,
                           condense,   phase_cost,      cc_table,    cc_cost,    0};

}  // namespace

}  // namespace tiltwise::cuda

const tiltwise::KernelTable* tw_backend(std::uint32_t abi) {
  return abi == tiltwise::abi_number ? &tiltwise::cuda::table : nullptr;
}
