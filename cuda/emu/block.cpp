// Fibers, barriers and shared memory of one CUDA block.
#include "block.hpp"

#include <sys/mman.h>  // for mmap, mprotect
#include <unistd.h>    // for sysconf

#include <algorithm>  // for all_of, find_if, min, shuffle
#include <cstring>    // for memset
#include <new>        // for bad_alloc
#include <numeric>    // for iota

namespace cuda_emu {

namespace {

constexpr std::size_t stack_bytes = 128 * 1024;
constexpr std::size_t canary_bytes = 64;
constexpr unsigned char canary = 0xa5;

thread_local Block* running = nullptr;

void enter_fiber() {
  running->fiber_main();
}

/// Stacks are kept for later launches.  A page that may not be touched lies below each: a kernel that needs
/// more stack crashes instead of writing over its neighbour.
unsigned char* stack_of(unsigned thread) {
  static std::vector<unsigned char*> stacks;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  while (stacks.size() <= thread) {
    void* memory = mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    stacks.push_back(static_cast<unsigned char*>(memory) + page);
  }
  return stacks[thread];
}

bool is_canary(const unsigned char* bytes) {
  return std::all_of(bytes, bytes + canary_bytes, [](unsigned char b) { return b == canary; });
}

std::string triple(Index3 i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

}  // namespace

Block* current_block() {
  return running;
}

Block& block() {
  if (running == nullptr) {
    throw EmulationError("a device function was called outside a kernel");
  }
  return *running;
}

EmulatorCall::EmulatorCall() {
  ++block().self().emulator_calls;
}

EmulatorCall::~EmulatorCall() {
  --block().self().emulator_calls;
}

// Room for the largest request in many pieces, each behind a canary.
SharedMemory::SharedMemory() : bytes_(new unsigned char[4 * max_shared_bytes]) {}

void SharedMemory::reset(std::size_t dynamic_bytes) {
  pieces_.clear();
  used_ = 0;
  requested_ = 0;
  piece(nullptr, dynamic_bytes);
}

void* SharedMemory::piece(const void* tag, std::size_t bytes) {
  for (const Piece& p : pieces_) {
    if (p.tag == tag) {
      return bytes_.get() + p.offset;
    }
  }
  requested_ += bytes;
  const std::size_t offset = used_ + canary_bytes;
  const std::size_t padded = (bytes + 15) / 16 * 16;
  if (requested_ > max_shared_bytes || offset + padded + canary_bytes > 4 * max_shared_bytes) {
    block().fail("shared memory of the block exceeds 48 KiB");
  }
  std::memset(bytes_.get() + used_, canary, canary_bytes);
  std::memset(bytes_.get() + offset, 0xff, bytes);
  std::memset(bytes_.get() + offset + bytes, canary, padded - bytes + canary_bytes);
  pieces_.push_back({tag, offset, bytes});
  used_ = offset + padded;
  return bytes_.get() + offset;
}

void SharedMemory::check_canaries() const {
  for (const Piece& p : pieces_) {
    const unsigned char* start = bytes_.get() + p.offset;
    if (!is_canary(start - canary_bytes) || !is_canary(start + p.bytes)) {
      throw EmulationError("shared memory was written outside an array of " + std::to_string(p.bytes) + " bytes");
    }
  }
}

bool SharedMemory::contains(const void* address) const {
  const auto* byte = static_cast<const unsigned char*>(address);
  return byte >= bytes_.get() && byte < bytes_.get() + 4 * max_shared_bytes;
}

std::size_t SharedMemory::offset_of(const void* address, std::size_t bytes) const {
  const auto offset = static_cast<std::size_t>(static_cast<const unsigned char*>(address) - bytes_.get());
  for (const Piece& p : pieces_) {
    if (offset >= p.offset && offset + bytes <= p.offset + p.bytes) {
      return offset;
    }
  }
  block().fail("access outside every array in shared memory");
}

Block::Block(std::string kernel, dim3 grid, dim3 extent, std::size_t shared_bytes)
    : kernel_(std::move(kernel)),
      grid_(grid),
      extent_(extent),
      shared_bytes_(shared_bytes),
      fibers_(static_cast<std::size_t>(extent.x) * extent.y * extent.z) {}

std::uint64_t Block::linear_index() const {
  return (static_cast<std::uint64_t>(index_.z) * grid_.y + index_.y) * grid_.x + index_.x;
}

std::string Block::where() const {
  return "kernel " + kernel_ + ", block " + triple(index_) + ", thread " + triple(self().index);
}

void Block::fiber_main() {
  for (;;) {
    call_->invoke(call_->data);
    park(Wait::done);
  }
}

void Block::give_stack(Fiber& fiber) {
  fiber.stack = stack_of(fiber.thread);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter_fiber, 0);
}

void Block::start_fibers() {
  for (unsigned i = 0; i < fibers_.size(); ++i) {
    Fiber& f = fibers_[i];
    f.thread = i;
    if (f.stack == nullptr) {
      give_stack(f);
    }
    f.wait = Wait::none;
    f.index = {i % extent_.x, i / extent_.x % extent_.y, i / extent_.x / extent_.y};
    f.exchanges = 0;
    f.emulator_calls = 0;
    f.warp_syncs = 0;
  }
}

void Block::resume(unsigned thread) {
  current_ = thread;
  resumed_ = true;
  swapcontext(&scheduler_, &fibers_[thread].context);
  resumed_ = false;
  if (!failure_.empty()) {
    throw EmulationError(failure_);
  }
}

void Block::park(Wait wait) {
  Fiber& f = self();
  f.wait = wait;
  swapcontext(&f.context, &scheduler_);
}

void Block::fail(const std::string& what) {
  failure_ = where() + ": " + what;
  for (;;) {
    park(Wait::done);  // the scheduler throws and never comes back
  }
}

void Block::run(Index3 index, const AnyCall& call, std::mt19937_64* shuffle) {
  struct Running {
    explicit Running(Block* b) { running = b; }
    ~Running() { running = nullptr; }
  } guard(this);
  index_ = index;
  call_ = &call;
  epoch_ = 0;
  start_fibers();
  current_ = 0;
  shared_.reset(shared_bytes_);
  std::vector<unsigned> order(fibers_.size());
  std::iota(order.begin(), order.end(), 0u);
  do {
    if (shuffle != nullptr) {
      std::shuffle(order.begin(), order.end(), *shuffle);  // between barriers any order is legal
    }
    for (const unsigned thread : order) {
      if (fibers_[thread].wait == Wait::none) {
        resume(thread);
      }
    }
  } while (release_warps() || release_block());
  shared_.check_canaries();
}

/// Lets warps go whose live lanes all wait at the same operation.
bool Block::release_warps() {
  bool released = false;
  for (std::size_t first = 0; first < fibers_.size(); first += warp_size) {
    const std::size_t last = std::min<std::size_t>(first + warp_size, fibers_.size());
    const Fiber* waiting = nullptr;
    bool complete = true;
    for (std::size_t i = first; i < last; ++i) {
      const Fiber& f = fibers_[i];
      if (f.wait == Wait::warp) {
        if (waiting != nullptr && waiting->op != f.op) {
          current_ = static_cast<unsigned>(i);
          throw EmulationError(where() + ": lanes of a warp wait at different warp operations");
        }
        waiting = &f;
      } else {
        complete = complete && f.wait == Wait::done;
      }
    }
    if (waiting == nullptr) {
      continue;
    }
    if (!complete) {
      current_ = waiting->thread;
      throw EmulationError(where() + ": warp operation not reached by every live lane of the warp");
    }
    for (std::size_t i = first; i < last; ++i) {
      if (fibers_[i].wait == Wait::warp) {
        fibers_[i].wait = Wait::none;
      }
    }
    released = true;
  }
  return released;
}

/// Lets the block go past __syncthreads; false when every thread has returned.
bool Block::release_block() {
  const auto waiting = [](const Fiber& f) { return f.wait == Wait::block; };
  const auto first = std::find_if(fibers_.begin(), fibers_.end(), waiting);
  if (first == fibers_.end()) {
    return false;
  }
  if (!std::all_of(fibers_.begin(), fibers_.end(), waiting)) {
    current_ = first->thread;
    throw EmulationError(where() + ": __syncthreads() not reached by every thread of the block");
  }
  for (Fiber& f : fibers_) {
    f.wait = Wait::none;
  }
  ++epoch_;
  return true;
}

void Block::block_barrier() {
  park(Wait::block);
}

void Block::warp_barrier(WarpOp op, unsigned mask) {
  if (mask != full_mask) {
    fail("warp operations take the full mask");  // the portable subset: no partial masks
  }
  self().op = op;
  if (op == WarpOp::sync) {
    park(Wait::warp);
    ++self().warp_syncs;
  } else {
    park(Wait::warp);
  }
}

void Block::exchange(WarpOp op, unsigned mask, std::uint64_t value) {
  // Two slots in turns: a lane can be at most one exchange ahead of the lanes that still read.
  Fiber& f = self();
  ++f.exchanges;
  f.slot[f.exchanges % 2] = value;
  warp_barrier(op, mask);
}

bool Block::lane_is_live(unsigned lane) const {
  const unsigned thread = self().thread / warp_size * warp_size + lane;
  return lane < warp_size && thread < fibers_.size() && fibers_[thread].exchanges >= self().exchanges;
}

std::uint64_t Block::offered(unsigned lane) {
  if (!lane_is_live(lane)) {
    fail("shuffle reads lane " + std::to_string(lane) + ", which is outside the block or has returned");
  }
  const unsigned thread = self().thread / warp_size * warp_size + lane;
  return fibers_[thread].slot[self().exchanges % 2];
}

bool Block::owns(const void* address) const {
  const auto* byte = static_cast<const unsigned char*>(address);
  const auto* parameters = static_cast<const unsigned char*>(call_->data);
  return (byte >= self().stack && byte < self().stack + stack_bytes) ||
         (byte >= parameters && byte < parameters + call_->bytes);
}

Index3 thread_index() {
  return block().self().index;
}

Index3 block_index() {
  return block().index();
}

dim3 block_extent() {
  return block().extent();
}

dim3 grid_extent() {
  return block().grid();
}

void* dynamic_shared() {
  const EmulatorCall call;
  return block().shared().dynamic();
}

void* static_shared(const void* tag, std::size_t bytes) {
  const EmulatorCall call;
  return block().shared().piece(tag, bytes);
}

void block_barrier() {
  const EmulatorCall call;
  block().block_barrier();
}

void warp_barrier(unsigned mask) {
  const EmulatorCall call;
  block().warp_barrier(WarpOp::sync, mask);
}

void check_alignment(const void* address, std::size_t bytes) {
  const EmulatorCall call;
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0) {
    block().fail("atomic operation on an address that is not aligned");
  }
}

unsigned lane() {
  return block().self().thread % warp_size;
}

std::uint64_t shuffle_bits(unsigned mask, std::uint64_t value, unsigned source) {
  const EmulatorCall call;
  block().exchange(WarpOp::shuffle, mask, value);
  return block().offered(source);
}

unsigned ballot(unsigned mask, bool predicate) {
  const EmulatorCall call;
  block().exchange(WarpOp::ballot, mask, predicate ? 1 : 0);
  unsigned votes = 0;
  for (unsigned i = 0; i < warp_size; ++i) {
    if (block().lane_is_live(i) && block().offered(i) != 0) {
      votes |= 1u << i;
    }
  }
  return votes;
}

unsigned live_lanes() {
  const EmulatorCall call;
  unsigned live = 0;
  for (unsigned i = 0; i < warp_size; ++i) {
    live |= block().lane_is_live(i) ? 1u << i : 0u;
  }
  return live;
}

}  // namespace cuda_emu
