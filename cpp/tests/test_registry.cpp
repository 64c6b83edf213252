// Built-in tables and plugins.
#include "harness.hpp"

#include "registry/registry.hpp"  // for builtin_tables, open_plugin

#include <cstring>  // for strcmp, strlen
#include <string>   // for string
#include <vector>   // for vector

namespace {

using namespace tiltwise;

void every_table_is_complete() {
  const auto tables = registry::builtin_tables();
  EXPECT(!tables.empty() && std::strcmp(tables.front()->name, "host") == 0);
  for (const KernelTable* table : tables) {
    EXPECT(table->abi == abi_number);
    EXPECT(table->project != nullptr && table->insert != nullptr && table->score != nullptr);
    EXPECT(table->posterior != nullptr && table->backproject != nullptr && table->shell_sums != nullptr);
    EXPECT(table->curvature != nullptr);
    EXPECT(table->condense != nullptr);
    EXPECT(table->phase_cost != nullptr);
    EXPECT(table->cc_table != nullptr);
    EXPECT(table->cc_cost != nullptr);
    ErrorText error = {};
    EXPECT((table->available(&error) == status_ok) == (std::strlen(error.text) == 0));
  }
}

void levels_of_this_processor_come_last() {
  std::vector<std::string> names;
  for (const KernelTable* table : registry::builtin_tables()) {
    names.emplace_back(table->name);
  }
#if defined(__x86_64__)
  std::vector<std::string> levels = {"host", "simd-v1", "simd-v3", "simd-v4"};
#if defined(TW_LEVEL_BF16)
  levels.emplace_back("simd-v4-bf16");
#endif
  EXPECT(names == levels);
#elif defined(__aarch64__)
  EXPECT((names == std::vector<std::string>{"host", "simd-neon"}));
  ErrorText error = {};
  EXPECT(registry::builtin_tables().back()->available(&error) == status_ok);
#else
  EXPECT(names.front() == "host");
#endif
}

void a_missing_plugin_gives_a_reason() {
  std::string error;
  EXPECT(registry::open_plugin("/nonexistent/libtiltwise_cuda.so", error) == nullptr);
  EXPECT(error.find("libtiltwise_cuda.so") != std::string::npos);
}

void a_library_without_the_entry_is_refused() {
  std::string error;
  EXPECT(registry::open_plugin("libm.so.6", error) == nullptr);
  EXPECT(error.find("tw_backend") != std::string::npos);
}

}  // namespace

int main() {
  return harness::run_all({{"every table is complete", every_table_is_complete},
                           {"levels of this processor come last", levels_of_this_processor_come_last},
                           {"a missing plugin gives a reason", a_missing_plugin_gives_a_reason},
                           {"a library without the entry is refused", a_library_without_the_entry_is_refused}});
}
