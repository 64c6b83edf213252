// Tests of the emulator: correct kernels give the right result under every schedule, planted bugs are
// all caught.
#include "harness.hpp"  // for EXPECT, run_all
#include "planted.hpp"  // for the kernels

#include <cmath>    // for isnan
#include <cstdio>   // for printf
#include <cstring>  // for strstr
#include <string>   // for string
#include <vector>   // for vector

using planted::threads;

namespace {

using Kernel = void (*)(const float*, float*);
constexpr unsigned blocks = 3;
constexpr unsigned count = blocks * threads;
constexpr std::uint64_t seeds[] = {0, 1, 2, 3, 4, 5};

struct Outcome {
  cudaError_t error = cudaSuccess;
  std::string text;
  std::vector<float> out;

  bool reported(const char* what) const {
    if (error == cudaSuccess || text.find(what) == std::string::npos) {
      std::printf("expected an error about '%s', found '%s'\n", what, text.c_str());
      return false;
    }
    return true;
  }
};

std::vector<float> input() {
  std::vector<float> in(count);
  for (unsigned i = 0; i < count; ++i) {
    in[i] = static_cast<float>(i % 17);
  }
  return in;
}

/// Launches through `start(in, out, stream)` on fresh memory; the first error of any step.
template <class Start>
Outcome run(const Start& start) {
  Outcome outcome;
  outcome.out.assign(count, -1.0f);
  const std::vector<float> host = input();
  float *in = nullptr, *out = nullptr;
  cudaStream_t stream = nullptr;
  const auto note = [&](cudaError_t error) {
    if (error != cudaSuccess && outcome.error == cudaSuccess) {
      outcome.error = error;
      outcome.text = cudaGetErrorString(error);
    }
  };
  note(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  note(cudaMalloc(reinterpret_cast<void**>(&in), count * sizeof(float)));
  note(cudaMalloc(reinterpret_cast<void**>(&out), count * sizeof(float)));
  note(cudaMemcpyAsync(in, host.data(), count * sizeof(float), cudaMemcpyHostToDevice, stream));
  start(in, out, stream);
  note(cudaGetLastError());
  note(cudaStreamSynchronize(stream));
  note(cudaMemcpyAsync(outcome.out.data(), out, count * sizeof(float), cudaMemcpyDeviceToHost, stream));
  note(cudaStreamSynchronize(stream));
  note(cudaFree(in));
  note(cudaFree(out));
  note(cudaStreamDestroy(stream));
  cudaGetLastError();
  return outcome;
}

Outcome run(Kernel kernel, unsigned grid = blocks, unsigned block = threads) {
  return run([=](float* in, float* out, cudaStream_t stream) {
    TW_LAUNCH(kernel, dim3(grid), dim3(block), block * sizeof(float), stream, in, out);
  });
}

float expected_sum(unsigned block) {
  const std::vector<float> in = input();
  float sum = 0.0f;
  for (unsigned i = 0; i < threads; ++i) {
    sum += in[block * threads + i];
  }
  return sum;
}

/// Caught: reported, or wrong for the eye (NaN, or different) under one of the schedules.
template <class IsRight>
bool caught(Kernel kernel, const IsRight& is_right) {
  for (const std::uint64_t seed : seeds) {
    tw_emu_set_seed(seed);
    const Outcome outcome = run(kernel);
    if (outcome.error != cudaSuccess || !is_right(outcome.out)) {
      return true;
    }
  }
  return false;
}

bool sums_are_right(const std::vector<float>& out) {
  for (unsigned b = 0; b < blocks; ++b) {
    if (!(out[b] == expected_sum(b))) {
      return false;
    }
  }
  return true;
}

void correct_kernels_are_right() {
  for (const std::uint64_t seed : seeds) {
    tw_emu_set_seed(seed);
    for (const Kernel kernel : {Kernel(planted::block_sum), Kernel(planted::warp_sum)}) {
      const Outcome outcome = run(kernel);
      EXPECT(outcome.error == cudaSuccess);
      EXPECT(sums_are_right(outcome.out));
    }
    const Outcome votes = run(planted::votes, 1);
    EXPECT(votes.error == cudaSuccess);
    for (const float right : votes.out) {
      EXPECT(right == 1.0f || std::isnan(right));
    }
    EXPECT(votes.out[0] == 1.0f && votes.out[threads - 1] == 1.0f);
  }
}

void missing_barriers_are_caught() {
  EXPECT(caught(planted::missing_first_barrier, sums_are_right));
  EXPECT(caught(planted::missing_second_barrier, [](const std::vector<float>& out) {
    for (unsigned i = 0; i < count; ++i) {
      if (!(out[i] == 2.0f * expected_sum(i / threads) + static_cast<float>(threads))) {
        return false;
      }
    }
    return true;
  }));
}

void races_are_caught() {
  const auto start_at_zero = [](Kernel kernel) {
    return run([=](float* in, float* out, cudaStream_t stream) {
      cudaMemsetAsync(out, 0, sizeof(float), stream);
      TW_LAUNCH(kernel, dim3(blocks), dim3(threads), 0, stream, in, out);
    });
  };
  for (const std::uint64_t seed : seeds) {
    tw_emu_set_seed(seed);
    const Outcome atomic = start_at_zero(planted::atomic_update);
    EXPECT(atomic.error == cudaSuccess);
    EXPECT(atomic.out[0] == expected_sum(0) + expected_sum(1) + expected_sum(2));
    if (tw_emu_finds_races()) {
      EXPECT(start_at_zero(planted::lost_update).reported("race at byte 0 of allocation"));
      EXPECT(run(planted::blocks_collide).reported("race at byte 0 of allocation"));
      EXPECT(run(planted::missing_second_barrier).reported("race in shared memory"));
    }
  }
}

void divergence_is_caught() {
  for (const std::uint64_t seed : seeds) {
    tw_emu_set_seed(seed);
    EXPECT(run(planted::divergent_barrier, 1).reported("__syncthreads() not reached by every thread"));
    EXPECT(run(planted::return_before_barrier, 1).reported("__syncthreads() not reached by every thread"));
    EXPECT(run(planted::divergent_shuffle, 1).reported("different warp operations"));
    EXPECT(run(planted::barrier_against_shuffle, 1).reported("not reached by every live lane"));
    EXPECT(run(planted::partial_mask, 1).reported("full mask"));
    EXPECT(run(planted::shuffle_out_of_block, 1, 40).reported("outside the block"));
  }
}

void overruns_are_caught() {
  const auto write_at = [](long long offset) {
    return run([=](float* in, float* out, cudaStream_t stream) {
      TW_LAUNCH(planted::write_at, dim3(1), dim3(threads), 0, stream, in, out, offset);
    });
  };
  EXPECT(write_at(count - threads).error == cudaSuccess);
  EXPECT(write_at(count - threads + 1).reported("allocation"));
  EXPECT(write_at(-1).reported("allocation"));
  EXPECT(write_at(count + 100).reported("allocation"));
  const Outcome read = run([](float* in, float* out, cudaStream_t stream) {
    TW_LAUNCH(planted::read_at, dim3(1), dim3(threads), 0, stream, in, out, static_cast<long long>(count) - 63);
  });
  EXPECT(tw_emu_finds_races() ? read.reported("reads 4 bytes outside allocation") : std::isnan(read.out[threads - 1]));
  EXPECT(run(planted::dynamic_overrun, 1).reported("shared memory"));
  EXPECT(run(planted::static_overrun, 1).reported("shared memory"));
  EXPECT(run(planted::too_much_shared, 1).reported("48 KiB"));
  EXPECT(run(planted::misaligned_atomic, 1).reported("not aligned"));
}

void memory_errors_are_caught() {
  std::vector<float> host(count, 0.0f);
  float *data = nullptr, *other = nullptr;
  cudaStream_t stream = nullptr;
  EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  EXPECT(cudaMalloc(reinterpret_cast<void**>(&data), 100) == cudaSuccess);
  EXPECT(cudaMalloc(reinterpret_cast<void**>(&other), 100) == cudaSuccess);
  // fresh memory is NaN, and a copy is done when the stream is waited for, not before
  EXPECT(cudaMemcpyAsync(host.data(), data, 100, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
  EXPECT(host[0] == 0.0f);
  EXPECT(cudaStreamSynchronize(stream) == cudaSuccess);
  EXPECT(std::isnan(host[0]) && std::isnan(host[24]) && host[25] == 0.0f);
  EXPECT(cudaMemcpyAsync(data, host.data(), 101, cudaMemcpyHostToDevice, stream) == cudaErrorInvalidValue);
  EXPECT(cudaMemcpyAsync(data + 1, host.data(), 100, cudaMemcpyHostToDevice, stream) == cudaErrorInvalidValue);
  EXPECT(cudaMemcpyAsync(data, host.data(), 100, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidValue);
  EXPECT(cudaMemcpyAsync(data, other, 100, cudaMemcpyHostToDevice, stream) == cudaErrorInvalidValue);
  EXPECT(cudaMemcpyAsync(data, other, 100, cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
  EXPECT(cudaMemsetAsync(data, 0, 101, stream) == cudaErrorInvalidValue);
  EXPECT(cudaFree(data + 1) == cudaErrorInvalidDevicePointer);
  EXPECT(cudaFree(data) == cudaSuccess);
  EXPECT(cudaFree(data) == cudaErrorInvalidDevicePointer);
  EXPECT(cudaMemcpyAsync(host.data(), data, 100, cudaMemcpyDeviceToHost, stream) == cudaErrorInvalidValue);
  EXPECT(cudaFree(other) == cudaSuccess);
  EXPECT(cudaStreamDestroy(stream) == cudaSuccess);
  EXPECT(cudaStreamDestroy(stream) == cudaErrorInvalidResourceHandle);
  EXPECT(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  EXPECT(tw_emu_allocated_bytes() == 0);

  tw_emu_set_memory_limit(1000);
  EXPECT(cudaMalloc(reinterpret_cast<void**>(&data), 1001) == cudaErrorMemoryAllocation);
  EXPECT(data == nullptr);
  tw_emu_set_memory_limit(-1);
  int devices = -1;
  tw_emu_set_machine(0, cuda_emu::emulated_runtime_version);
  EXPECT(cudaGetDeviceCount(&devices) == cudaErrorNoDevice && devices == 0);
  tw_emu_set_machine(1, 0);
  EXPECT(cudaGetDeviceCount(&devices) == cudaErrorInsufficientDriver && devices == 0);
  tw_emu_set_machine(1, cuda_emu::emulated_runtime_version);
  EXPECT(cudaGetDeviceCount(&devices) == cudaSuccess && devices == 1);
  cudaGetLastError();
}

void host_pointers_are_caught() {
  static float host[threads] = {};
  const Outcome outcome = run([](float*, float* out, cudaStream_t stream) {
    TW_LAUNCH(planted::read_at, dim3(1), dim3(threads), 0, stream, host, out, 0ll);
  });
  EXPECT(!tw_emu_finds_races() || outcome.reported("not on the device"));
}

void launches_are_checked() {
  EXPECT(run(planted::votes, 0).reported("out of range"));
  EXPECT(run(planted::votes, 1, 1025).reported("out of range"));
  EXPECT(run(planted::votes, 1, 0).reported("out of range"));
  const Outcome outcome = run([](float* in, float* out, cudaStream_t stream) {
    TW_LAUNCH(planted::votes, dim3(1, 65536), dim3(threads), 0, stream, in, out);
  });
  EXPECT(outcome.reported("out of range"));
}

}  // namespace

int main() {
  std::printf("races are found by %s\n", tw_emu_finds_races() ? "hooks and schedules" : "schedules only");
  return harness::run_all({
      {"correct kernels are right under every schedule", correct_kernels_are_right},
      {"missing barriers are caught", missing_barriers_are_caught},
      {"races are caught", races_are_caught},
      {"divergent barriers and shuffles are caught", divergence_is_caught},
      {"overruns are caught", overruns_are_caught},
      {"errors of memory and streams are caught", memory_errors_are_caught},
      {"host pointers in kernels are caught", host_pointers_are_caught},
      {"launches are checked", launches_are_checked},
  });
}
