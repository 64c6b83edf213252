// One CUDA block on one OS thread, one fiber per CUDA thread.
#pragma once

#include "types.hpp"  // for dim3, Index3

#include <ucontext.h>  // for ucontext_t

#include <cstddef>    // for size_t
#include <cstdint>    // for uint64_t
#include <memory>     // for unique_ptr
#include <random>     // for mt19937_64
#include <stdexcept>  // for runtime_error
#include <string>     // for string
#include <vector>     // for vector

namespace cuda_emu {

constexpr unsigned warp_size = 32;
constexpr unsigned full_mask = 0xffffffffu;
constexpr std::size_t max_shared_bytes = 48 * 1024;  // what every device grants without asking
constexpr unsigned max_block_threads = 1024;

/// A kernel did something that is undefined or forbidden on a device.
class EmulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Operations at which the lanes of a warp meet.  All lanes must meet at the same one.
enum class WarpOp { sync, shuffle, ballot };

/// A call without its type.
struct AnyCall {
  const void* data;
  std::size_t bytes;
  void (*invoke)(const void*);
};

enum class Wait { none, block, warp, done };

/// One CUDA thread.
struct Fiber {
  ucontext_t context;
  unsigned char* stack = nullptr;
  Wait wait = Wait::none;
  WarpOp op = WarpOp::sync;
  Index3 index;
  unsigned thread = 0;          ///< linear index in the block
  unsigned exchanges = 0;       ///< shuffles and votes so far
  unsigned warp_syncs = 0;      ///< __syncwarp passed so far
  unsigned emulator_calls = 0;  ///< nested calls of the emulator that have not returned
  std::uint64_t slot[2] = {};   ///< values offered to the warp, in turns
};

/// Shared memory of a block: named pieces with canaries between them, all bytes 0xFF before the block runs.
class SharedMemory {
 public:
  struct Piece {
    const void* tag;  ///< declaration it belongs to; null for dynamic shared memory
    std::size_t offset, bytes;
  };

  SharedMemory();
  void reset(std::size_t dynamic_bytes);
  void* dynamic() { return bytes_.get() + pieces_.front().offset; }
  /// The piece that belongs to a declaration; made by the first thread that arrives.
  void* piece(const void* tag, std::size_t bytes);
  void check_canaries() const;
  bool contains(const void* address) const;
  /// Offset of an access from the start of the memory; fails when it is not inside one piece.
  std::size_t offset_of(const void* address, std::size_t bytes) const;

 private:
  std::unique_ptr<unsigned char[]> bytes_;
  std::vector<Piece> pieces_;
  std::size_t used_ = 0, requested_ = 0;
};

/// The block that runs on this OS thread.
class Block {
 public:
  Block(std::string kernel, dim3 grid, dim3 block, std::size_t shared_bytes);

  /// Runs the kernel body for one block of the grid; throws EmulationError.
  void run(Index3 index, const AnyCall& call, std::mt19937_64* shuffle);

  Fiber& self() { return fibers_[current_]; }
  const Fiber& self() const { return fibers_[current_]; }
  void block_barrier();
  void warp_barrier(WarpOp op, unsigned mask);
  /// Offers a value to the warp and waits for the others; `offered` then reads what a lane offered.
  void exchange(WarpOp op, unsigned mask, std::uint64_t value);
  std::uint64_t offered(unsigned lane);
  bool lane_is_live(unsigned lane) const;
  /// Ends the kernel with an error; never returns to the thread.
  [[noreturn]] void fail(const std::string& what);

  const std::string& kernel() const { return kernel_; }
  dim3 grid() const { return grid_; }
  dim3 extent() const { return extent_; }
  Index3 index() const { return index_; }
  std::uint64_t linear_index() const;
  unsigned epoch() const { return epoch_; }
  SharedMemory& shared() { return shared_; }
  /// Whether the code that runs now is a kernel's, not the emulator's.
  bool in_kernel() const { return resumed_ && self().emulator_calls == 0; }
  /// Stack of this thread, or its kernel's parameters.
  bool owns(const void* address) const;
  std::string where() const;

  /// Body of every fiber: runs the kernel once per block, for as long as there are blocks.
  void fiber_main();

 private:
  void start_fibers();
  static void give_stack(Fiber& fiber);
  void resume(unsigned thread);
  void park(Wait wait);
  bool release_warps();
  bool release_block();

  std::string kernel_;
  dim3 grid_, extent_;
  std::size_t shared_bytes_;
  Index3 index_;
  SharedMemory shared_;
  std::vector<Fiber> fibers_;
  ucontext_t scheduler_;
  unsigned current_ = 0;
  bool resumed_ = false;  ///< a fiber runs, not the scheduler
  unsigned epoch_ = 0;    ///< block barriers passed in this block
  const AnyCall* call_ = nullptr;
  std::string failure_;
};

/// Held by functions of the emulator while a kernel is inside them.  They share instances of standard
/// templates with the kernels, so their accesses may reach the hooks of races.hpp, which then look away.
class EmulatorCall {
 public:
  EmulatorCall();
  ~EmulatorCall();
  EmulatorCall(const EmulatorCall&) = delete;
  EmulatorCall& operator=(const EmulatorCall&) = delete;
};

/// Block of the CUDA thread that calls; null on the host.
Block* current_block();
/// The same for device functions, which only kernels may call.
Block& block();

// What kernels ask for.  Nothing here is inline: kernels may be compiled with hooks on every memory access,
// and the emulator's own state is none of theirs.
Index3 thread_index();
Index3 block_index();
dim3 block_extent();
dim3 grid_extent();
void* dynamic_shared();
void* static_shared(const void* tag, std::size_t bytes);
void block_barrier();
void warp_barrier(unsigned mask);
unsigned lane();
/// What lane `source` of the warp gives as `value`.
std::uint64_t shuffle_bits(unsigned mask, std::uint64_t value, unsigned source);
unsigned ballot(unsigned mask, bool predicate);
unsigned live_lanes();
void check_alignment(const void* address, std::size_t bytes);

}  // namespace cuda_emu
