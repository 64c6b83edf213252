// Device memory of the emulator.
#include "memory.hpp"

#include "block.hpp"  // for EmulationError

#include <algorithm>  // for all_of
#include <cstring>    // for memset
#include <new>        // for nothrow

namespace cuda_emu {

namespace {

constexpr std::size_t alignment = 256;    // what cudaMalloc promises
constexpr std::size_t red_zone = 4096;    // wider than a stride gone wrong by one row
constexpr unsigned char nan_byte = 0xff;  // four of them are a float NaN

bool intact(const unsigned char* zone) {
  return std::all_of(zone, zone + red_zone, [](unsigned char b) { return b == nan_byte; });
}

/// What is wrong with the red zones, which are repaired: one error, one report.
std::string damage(const Allocation& a) {
  std::string text;
  for (const bool behind : {false, true}) {
    unsigned char* zone = behind ? a.data + a.bytes : a.data - red_zone;
    if (!intact(zone)) {
      std::memset(zone, nan_byte, red_zone);
      text = "device memory was written " + std::string(behind ? "behind" : "before") + " allocation " +
             std::to_string(a.number) + " of " + std::to_string(a.bytes) + " bytes";
    }
  }
  return text;
}

}  // namespace

void* DeviceMemory::allocate(std::size_t bytes) {
  if (limit_ >= 0 && allocated_ + bytes > static_cast<std::size_t>(limit_)) {
    return nullptr;
  }
  const std::size_t total = bytes + 2 * red_zone + alignment;
  std::unique_ptr<unsigned char[]> storage(new (std::nothrow) unsigned char[total]);
  if (!storage) {
    return nullptr;
  }
  std::memset(storage.get(), nan_byte, total);
  const auto start = reinterpret_cast<std::uintptr_t>(storage.get()) + red_zone;
  auto* data = reinterpret_cast<unsigned char*>((start + alignment - 1) / alignment * alignment);
  allocated_ += bytes;
  Allocation& a = allocations_[data];
  a.storage = std::move(storage);
  a.data = data;
  a.bytes = bytes;
  a.number = ++count_;
  return data;
}

bool DeviceMemory::release(void* data) {
  const auto found = allocations_.find(static_cast<const unsigned char*>(data));
  if (found == allocations_.end()) {
    return false;
  }
  const std::string text = damage(found->second);
  allocated_ -= found->second.bytes;
  allocations_.erase(found);
  if (!text.empty()) {
    throw EmulationError(text);
  }
  return true;
}

Allocation* DeviceMemory::near(const void* address) {
  const auto* byte = static_cast<const unsigned char*>(address);
  auto next = allocations_.upper_bound(byte + red_zone);
  while (next != allocations_.begin()) {
    Allocation& a = (--next)->second;
    if (byte >= a.data - red_zone && byte < a.data + a.bytes + red_zone) {
      return &a;
    }
    if (byte >= a.data) {
      break;
    }
  }
  return nullptr;
}

Allocation* DeviceMemory::find(const void* address, std::size_t bytes) {
  const auto* byte = static_cast<const unsigned char*>(address);
  const auto next = allocations_.upper_bound(byte);
  if (next == allocations_.begin()) {
    return nullptr;
  }
  Allocation& a = std::prev(next)->second;
  const auto offset = static_cast<std::size_t>(byte - a.data);
  return offset <= a.bytes && bytes <= a.bytes - offset ? &a : nullptr;
}

void DeviceMemory::check_red_zones() {
  for (const auto& entry : allocations_) {
    const std::string text = damage(entry.second);
    if (!text.empty()) {
      throw EmulationError(text);
    }
  }
}

}  // namespace cuda_emu
