// Race detection and the hooks that the compiler calls before memory accesses.
#include "races.hpp"

#include "runtime.hpp"  // for Device, block

#include <string>  // for to_string

namespace cuda_emu {

namespace {

constexpr std::size_t word_bytes = 4;

/// Whether `a` happened before `b` or by the same thread.
bool ordered(const Access& a, const Access& b, bool shared) {
  if (a.launch != b.launch) {
    return true;  // launches follow each other
  }
  if (a.block != b.block) {
    return shared;  // every block has its own shared memory
  }
  if (a.thread == b.thread || a.epoch < b.epoch) {
    return true;
  }
  return a.thread / warp_size == b.thread / warp_size && a.warp_syncs < b.warp_syncs;
}

bool same_thread(const Access& a, const Access& b) {
  return a.launch == b.launch && a.block == b.block && a.thread == b.thread;
}

/// Blocks run in turn, so a reader of another block stays in conflict with every later writer and may be
/// kept in place of newer ones; a reader that `access` follows in its own block may be replaced.
void remember_reader(Word& word, const Access& access, bool shared) {
  for (Access& reader : word.read) {
    if (same_thread(reader, access)) {
      reader = access;
      return;
    }
  }
  for (Access& reader : word.read) {
    if (ordered(reader, access, shared)) {
      reader = access;
      return;
    }
  }
}

std::string thread_name(const Access& a) {
  return "thread " + std::to_string(a.thread) + " of block " + std::to_string(a.block);
}

}  // namespace

bool Shadow::record(std::size_t offset, std::size_t bytes, std::size_t extent, const Access& access, bool is_write,
                    bool shared, Access* other) {
  if (bytes < word_bytes) {
    return true;  // neighbours in a word may belong to other threads
  }
  words_.resize((extent + word_bytes - 1) / word_bytes);
  for (std::size_t i = offset / word_bytes; i < (offset + bytes) / word_bytes; ++i) {
    Word& word = words_[i];
    const auto races = [&](const Access& earlier) {
      const bool both_atomic = earlier.atomic && access.atomic;
      *other = earlier;
      return earlier.launch != 0 && !both_atomic && !ordered(earlier, access, shared);
    };
    if (races(word.write) || (is_write && (races(word.read[0]) || races(word.read[1])))) {
      return false;
    }
    if (is_write) {
      word.write = access;
    } else {
      remember_reader(word, access, shared);
    }
  }
  return true;
}

void record_access(const void* address, std::size_t bytes, bool is_write, bool is_atomic) {
  Block* block = current_block();
  if (block == nullptr || !block->in_kernel() || block->owns(address)) {
    return;
  }
  const EmulatorCall call;
  Device& device = Device::instance();
  const char* verb = is_write ? "writes" : "reads";
  const Fiber& self = block->self();
  const Access access = {block->linear_index(), device.launch, self.thread, block->epoch(), self.warp_syncs, is_atomic};
  Access other;
  if (block->shared().contains(address)) {
    const std::size_t offset = block->shared().offset_of(address, bytes);
    if (!device.shared_shadow.record(offset, bytes, 4 * max_shared_bytes, access, is_write, true, &other)) {
      block->fail("race in shared memory with " + thread_name(other));
    }
    return;
  }
  if (Allocation* a = device.memory.find(address, bytes)) {
    const auto offset = static_cast<std::size_t>(static_cast<const unsigned char*>(address) - a->data);
    if (!a->shadow.record(offset, bytes, a->bytes, access, is_write, false, &other)) {
      block->fail("race at byte " + std::to_string(offset) + " of allocation " + std::to_string(a->number) + " with " +
                  thread_name(other));
    }
    return;
  }
  if (const Allocation* a = device.memory.near(address)) {
    block->fail(std::string(verb) + " " + std::to_string(bytes) + " bytes outside allocation " +
                std::to_string(a->number) + " of " + std::to_string(a->bytes) + " bytes");
  }
  block->fail(std::string(verb) + " memory that is not on the device");
}

}  // namespace cuda_emu

namespace {

bool hooks_present = false;

}  // namespace

// What -fsanitize=thread expects to find.  The emulator's own files are compiled without it.
extern "C" {

#define TW_HOOK(size)                               \
  void __tsan_read##size(void* p) {                 \
    cuda_emu::record_access(p, size, false, false); \
  }                                                 \
  void __tsan_write##size(void* p) {                \
    cuda_emu::record_access(p, size, true, false);  \
  }                                                 \
  void __tsan_unaligned_read##size(void* p) {       \
    cuda_emu::record_access(p, size, false, false); \
  }                                                 \
  void __tsan_unaligned_write##size(void* p) {      \
    cuda_emu::record_access(p, size, true, false);  \
  }
TW_HOOK(1)
TW_HOOK(2)
TW_HOOK(4)
TW_HOOK(8)
TW_HOOK(16)
#undef TW_HOOK

void __tsan_read_range(void* p, std::size_t bytes) {
  cuda_emu::record_access(p, bytes, false, false);
}
void __tsan_write_range(void* p, std::size_t bytes) {
  cuda_emu::record_access(p, bytes, true, false);
}
// Called when a module with hooks is loaded.
void __tsan_init() {
  hooks_present = true;
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

int tw_emu_finds_races() {
  return hooks_present ? 1 : 0;
}

}  // extern "C"
