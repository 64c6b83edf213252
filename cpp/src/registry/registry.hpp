// Finds kernel tables: the built-in ones, and those of plugins.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for KernelTable

#include <string>  // for string
#include <vector>  // for vector

namespace tiltwise::registry {

/// Every table compiled into this library, slowest first; `available` says which of them run here.
std::vector<const KernelTable*> builtin_tables();

/// Loads a plugin for the life of the process.  Null when it cannot be used, with the reason in `error`.
const KernelTable* open_plugin(const std::string& path, std::string& error);

}  // namespace tiltwise::registry
