// From the error codes of the CUDA runtime to one exception, and from that to the status of a table entry.
#pragma once

#include "launch.hpp"  // for cudaError_t

#include "tiltwise/kernel/abi.hpp"  // for Status, ErrorText

#include <cstdio>     // for snprintf
#include <exception>  // for exception
#include <new>        // for bad_alloc
#include <stdexcept>  // for runtime_error
#include <string>     // for string

namespace tiltwise::cuda {

/// A call of the CUDA runtime that failed.  Never leaves the plugin.
class CudaError : public std::runtime_error {
 public:
  CudaError(cudaError_t code, const char* call)
      : std::runtime_error(std::string(cudaGetErrorString(code)) + " (" + call + ")"), code_(code) {}

  Status status() const {
    switch (code_) {
      case cudaErrorMemoryAllocation:
        return status_out_of_memory;
      case cudaErrorNoDevice:
      case cudaErrorInsufficientDriver:
        return status_unavailable;
      default:
        return status_failed;
    }
  }

 private:
  cudaError_t code_;
};

inline void check(cudaError_t code, const char* call) {
  if (code != cudaSuccess) {
    throw CudaError(code, call);
  }
}

#define TW_CHECK(call) ::tiltwise::cuda::check((call), #call)

inline int fail(Status status, const char* kernel, const char* what, ErrorText* error) {
  std::snprintf(error->text, sizeof error->text, "cuda: %s: %s", kernel, what);
  return status;
}

/// Runs the host part of a kernel; every exception becomes a status and a text.
template <class Work>
int guarded(const char* kernel, ErrorText* error, const Work& work) {
  try {
    work();
    TW_CHECK(cudaGetLastError());  // also what the release of memory found
    return status_ok;
  } catch (const CudaError& e) {
    static_cast<void>(cudaGetLastError());  // reported here, not again by the next call
    return fail(e.status(), kernel, e.what(), error);
  } catch (const std::bad_alloc&) {
    return fail(status_out_of_memory, kernel, "not enough host memory", error);
  } catch (const std::exception& e) {
    return fail(status_failed, kernel, e.what(), error);
  }
}

}  // namespace tiltwise::cuda
