// The part of the CUDA runtime API that the plugin uses: device queries, memory, streams, launches.
//
// Streams are queues.  Copies and launches are carried out when a stream is synchronised, not before, and
// streams are not ordered among each other (stricter than CUDA's default stream): a missing
// synchronisation leaves NaN in the result.
#pragma once

#include "block.hpp"   // for Block, EmulationError
#include "memory.hpp"  // for DeviceMemory
#include "races.hpp"   // for Shadow
#include "types.hpp"   // for dim3

#include <cstddef>     // for size_t
#include <cstdint>     // for uint64_t
#include <deque>       // for deque
#include <functional>  // for function
#include <mutex>       // for recursive_mutex
#include <random>      // for mt19937_64
#include <set>         // for set
#include <string>      // for string
#include <tuple>       // for tuple, apply

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidMemcpyDirection = 21,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevicePointer = 17,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchFailure = 719,
};

constexpr unsigned cudaStreamNonBlocking = 1;

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };

namespace cuda_emu {

struct Stream {
  std::deque<std::function<void()>> work;
};

constexpr int emulated_runtime_version = 13000;

/// The one emulated device.  Every entry of the API takes its lock: kernels of two threads never mix.
class Device {
 public:
  static Device& instance();

  std::recursive_mutex mutex;
  DeviceMemory memory;
  std::uint64_t seed;
  std::set<Stream*> streams;
  int count = 1;
  int driver_version = emulated_runtime_version;

  // Of the running launch.
  std::uint32_t launch = 0;
  Shadow shared_shadow;

  /// Remembers an error as the last one and returns it.
  cudaError_t report(cudaError_t error, const std::string& detail);
  cudaError_t take_last_error();
  const char* describe(cudaError_t error);

  void enqueue(Stream* stream, std::function<void()> work);
  /// Does all work of a stream; stops at the first error.
  cudaError_t drain(Stream* stream);
  cudaError_t drain_all();

  bool accepts(dim3 grid, dim3 block, std::size_t shared_bytes);
  void run_grid(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const AnyCall& call);

 private:
  Device();
  Stream default_stream_;
  cudaError_t last_error_ = cudaSuccess;
  std::string detail_, description_;
};

/// A kernel with its parameters, copied at the launch and converted as in a call.
template <class... Parameters>
struct Call {
  void (*kernel)(Parameters...);
  std::tuple<Parameters...> parameters;

  static void invoke(const void* call) {
    const Call& self = *static_cast<const Call*>(call);
    std::apply(self.kernel, self.parameters);
  }
};

/// What TW_LAUNCH becomes.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            Stream* stream, Arguments... arguments) {
  Device& device = Device::instance();
  const std::lock_guard<std::recursive_mutex> lock(device.mutex);
  if (!device.accepts(grid, block, shared_bytes)) {
    return;
  }
  const Call<Parameters...> call = {kernel, std::tuple<Parameters...>(arguments...)};
  device.enqueue(stream, [=, &device] {
    device.run_grid(name, grid, block, shared_bytes, {&call, sizeof call, Call<Parameters...>::invoke});
  });
}

}  // namespace cuda_emu

using cudaStream_t = cuda_emu::Stream*;

struct cudaFuncAttributes {
  int numRegs;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
/// Fails on a device that has no code of the kernel; the emulated one has.
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  *attributes = {0};
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, std::size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

#define TW_EMU_EXPORT __attribute__((visibility("default")))

extern "C" {
/// Schedule of all later launches: 0 runs blocks and threads in order, other seeds shuffle both.  The
/// start value is the environment variable TW_EMU_SEED, else 0.
TW_EMU_EXPORT void tw_emu_set_seed(std::uint64_t seed);
/// Bytes that cudaMalloc grants altogether; negative: no limit.
TW_EMU_EXPORT void tw_emu_set_memory_limit(std::int64_t bytes);
TW_EMU_EXPORT std::size_t tw_emu_allocated_bytes();
/// Number of devices, and the CUDA version of the driver (0: none is installed).
TW_EMU_EXPORT void tw_emu_set_machine(int devices, int driver_version);
/// Whether the kernels were compiled with the hooks of races.hpp.
TW_EMU_EXPORT int tw_emu_finds_races();
}
