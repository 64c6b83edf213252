// The emulated CUDA runtime.
#include "runtime.hpp"

#include <algorithm>  // for shuffle
#include <cstdlib>    // for getenv, strtoull
#include <cstring>    // for memcpy, memset
#include <numeric>    // for iota
#include <vector>     // for vector

namespace cuda_emu {

namespace {

constexpr unsigned max_grid_yz = 65535;

std::uint64_t seed_from_environment() {
  const char* text = std::getenv("TW_EMU_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 0;
}

}  // namespace

Device::Device() : seed(seed_from_environment()) {}

Device& Device::instance() {
  static Device device;
  return device;
}

cudaError_t Device::report(cudaError_t error, const std::string& detail) {
  last_error_ = error;
  detail_ = detail;
  return error;
}

cudaError_t Device::take_last_error() {
  const cudaError_t error = last_error_;
  last_error_ = cudaSuccess;
  return error;
}

const char* Device::describe(cudaError_t error) {
  description_ = error == cudaSuccess ? "no error" : "emulated error " + std::to_string(error) + ": " + detail_;
  return description_.c_str();
}

void Device::enqueue(Stream* stream, std::function<void()> work) {
  (stream != nullptr ? stream : &default_stream_)->work.push_back(std::move(work));
}

cudaError_t Device::drain(Stream* stream) {
  Stream* queue = stream != nullptr ? stream : &default_stream_;
  try {
    while (!queue->work.empty()) {
      const std::function<void()> work = std::move(queue->work.front());
      queue->work.pop_front();
      work();
    }
  } catch (const EmulationError& error) {
    queue->work.clear();
    return report(cudaErrorLaunchFailure, error.what());
  }
  return cudaSuccess;
}

cudaError_t Device::drain_all() {
  cudaError_t result = drain(nullptr);
  for (Stream* stream : streams) {
    const cudaError_t error = drain(stream);
    result = result == cudaSuccess ? error : result;
  }
  return result;
}

bool Device::accepts(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const std::uint64_t threads = static_cast<std::uint64_t>(block.x) * block.y * block.z;
  const bool grid_fits = grid.x >= 1 && grid.x <= 0x7fffffffu && grid.y >= 1 && grid.y <= max_grid_yz && grid.z >= 1 &&
                         grid.z <= max_grid_yz;
  if (!grid_fits || threads < 1 || threads > max_block_threads || block.z > 64 || shared_bytes > max_shared_bytes) {
    report(cudaErrorInvalidConfiguration, "grid, block or shared memory of a launch is out of range");
    return false;
  }
  return true;
}

void Device::run_grid(const char* kernel, dim3 grid, dim3 block, std::size_t shared_bytes, const AnyCall& call) {
  ++launch;
  std::mt19937_64 random(seed + launch);
  std::mt19937_64* shuffle = seed != 0 ? &random : nullptr;
  std::vector<std::uint64_t> order(static_cast<std::uint64_t>(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  if (shuffle != nullptr) {
    std::shuffle(order.begin(), order.end(), random);
  }
  Block runner(kernel, grid, block, shared_bytes);
  try {
    for (const std::uint64_t i : order) {
      runner.run({static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                  static_cast<unsigned>(i / grid.x / grid.y)},
                 call, shuffle);
    }
    memory.check_red_zones();
  } catch (const EmulationError& error) {
    const std::string text = error.what();
    throw EmulationError(text.find(kernel) == std::string::npos ? "kernel " + std::string(kernel) + ": " + text : text);
  }
}

}  // namespace cuda_emu

using cuda_emu::Device;
using Lock = std::lock_guard<std::recursive_mutex>;

namespace {

bool known(Device& device, cudaStream_t stream) {
  return stream == nullptr || device.streams.count(stream) == 1;
}

/// Whether both ends of a copy are where `kind` says, at this moment.
bool copy_is_valid(Device& device, const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  const auto placed = [&](const void* data, bool on_device) {
    return on_device ? device.memory.find(data, bytes) != nullptr : device.memory.near(data) == nullptr;
  };
  return placed(to, to_device) && placed(from, from_device);
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  *count = 0;
  if (device.driver_version < cuda_emu::emulated_runtime_version) {
    return device.report(cudaErrorInsufficientDriver, "driver version is insufficient for the runtime version");
  }
  *count = device.count;
  return device.count > 0 ? cudaSuccess : device.report(cudaErrorNoDevice, "no CUDA-capable device is detected");
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = Device::instance().driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = cuda_emu::emulated_runtime_version;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  *data = device.memory.allocate(bytes);
  return *data != nullptr ? cudaSuccess : device.report(cudaErrorMemoryAllocation, "out of memory");
}

cudaError_t cudaFree(void* data) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  if (data == nullptr) {
    return cudaSuccess;
  }
  const cudaError_t pending = device.drain_all();  // cudaFree waits for the device
  try {
    if (!device.memory.release(data)) {
      return device.report(cudaErrorInvalidDevicePointer, "cudaFree of a pointer that cudaMalloc did not return");
    }
  } catch (const cuda_emu::EmulationError& error) {
    return device.report(cudaErrorLaunchFailure, error.what());
  }
  return pending;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  if (!known(device, stream)) {
    return device.report(cudaErrorInvalidResourceHandle, "copy in a stream that does not exist");
  }
  if (!copy_is_valid(device, to, from, bytes, kind)) {
    return device.report(cudaErrorInvalidValue,
                         "copy of " + std::to_string(bytes) + " bytes outside its memory or in the wrong direction");
  }
  device.enqueue(stream, [=, &device] {
    if (!copy_is_valid(device, to, from, bytes, kind)) {
      throw cuda_emu::EmulationError("memory was freed before a copy in its stream was done");
    }
    device.memory.check_red_zones();
    std::memcpy(to, from, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  if (!known(device, stream) || device.memory.find(data, bytes) == nullptr) {
    return device.report(cudaErrorInvalidValue, "cudaMemset outside device memory or in an unknown stream");
  }
  device.enqueue(stream, [=] { std::memset(data, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  *stream = new cuda_emu::Stream;
  device.streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  if (stream == nullptr || !known(device, stream)) {
    return device.report(cudaErrorInvalidResourceHandle, "destruction of a stream that does not exist");
  }
  const cudaError_t pending = device.drain(stream);
  device.streams.erase(stream);
  delete stream;
  return pending;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  if (!known(device, stream)) {
    return device.report(cudaErrorInvalidResourceHandle, "synchronisation of a stream that does not exist");
  }
  return device.drain(stream);
}

cudaError_t cudaGetLastError() {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  return device.take_last_error();
}

const char* cudaGetErrorString(cudaError_t error) {
  Device& device = Device::instance();
  const Lock lock(device.mutex);
  return device.describe(error);
}

void tw_emu_set_seed(std::uint64_t seed) {
  Device::instance().seed = seed;
}

void tw_emu_set_memory_limit(std::int64_t bytes) {
  Device::instance().memory.set_limit(bytes);
}

std::size_t tw_emu_allocated_bytes() {
  return Device::instance().memory.allocated_bytes();
}

void tw_emu_set_machine(int devices, int driver_version) {
  Device::instance().count = devices;
  Device::instance().driver_version = driver_version;
}
