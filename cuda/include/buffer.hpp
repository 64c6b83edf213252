// Device memory and streams that release themselves.
#pragma once

#include "check.hpp"   // for TW_CHECK
#include "launch.hpp"  // for the CUDA runtime

#include <cstddef>  // for size_t
#include <cstdint>  // for int64_t

namespace tiltwise::cuda {

/// A queue of work on the device, one per call of a kernel.  It does not wait for the default stream, which
/// belongs to other libraries in the process.
class Stream {
 public:
  Stream() { TW_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  operator cudaStream_t() const { return stream_; }
  void wait() const { TW_CHECK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// `count` elements of device memory, not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t count) : count_(static_cast<std::size_t>(count)) {
    if (count_ > 0) {
      TW_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), bytes()));
    }
  }
  /// A copy of host memory, complete once the stream has come this far.
  Buffer(const T* host, std::int64_t count, const Stream& stream) : Buffer(count) { upload(host, stream); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() { return data_; }
  const T* get() const { return data_; }

  void upload(const T* host, const Stream& stream) {
    if (count_ > 0) {
      TW_CHECK(cudaMemcpyAsync(data_, host, bytes(), cudaMemcpyHostToDevice, stream));
    }
  }
  /// The host memory is valid after `stream.wait()`.
  void download(T* host, const Stream& stream) const {
    if (count_ > 0) {
      TW_CHECK(cudaMemcpyAsync(host, data_, bytes(), cudaMemcpyDeviceToHost, stream));
    }
  }
  void clear(const Stream& stream) {
    if (count_ > 0) {
      TW_CHECK(cudaMemsetAsync(data_, 0, bytes(), stream));
    }
  }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }

  T* data_ = nullptr;
  std::size_t count_;
};

}  // namespace tiltwise::cuda
