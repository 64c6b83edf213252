#include "registry/registry.hpp"

#include "host/kernels.hpp"     // for host::table
#include "registry/levels.hpp"  // for level_tables

#include <dlfcn.h>  // for dlopen, dlsym, dlerror

namespace tiltwise::registry {

std::vector<const KernelTable*> builtin_tables() {
  std::vector<const KernelTable*> tables = {&host::table};
  for (const KernelTable* const* level = level_tables; *level != nullptr; ++level) {
    tables.push_back(*level);
  }
  return tables;
}

const KernelTable* open_plugin(const std::string& path, std::string& error) {
  // Local: symbols of a plugin must not replace those of this library or of another plugin.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    error = reason != nullptr ? reason : "dlopen failed";
    return nullptr;
  }
  using Entry = const KernelTable* (*)(std::uint32_t);
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "tw_backend"));
  const KernelTable* table = entry != nullptr ? entry(abi_number) : nullptr;
  if (table == nullptr || table->abi != abi_number) {
    error = entry == nullptr ? "it does not export tw_backend" : "it was built for another version of tiltwise";
    dlclose(library);
    return nullptr;
  }
  return table;
}

}  // namespace tiltwise::registry
