// The Python face of a kernel table.
#pragma once

#include <pybind11/pybind11.h>  // for module_

namespace tiltwise::bind {

void register_gather(pybind11::module_& module);
void register_kernels(pybind11::module_& module);

}  // namespace tiltwise::bind
